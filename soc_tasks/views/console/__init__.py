"""The console: pages under Django's admin that show queues, tasks, iterations and failures, and steer them."""
