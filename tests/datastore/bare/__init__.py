"""A site without any database of Django's: its state and its entities are in Datastore, its queues on Cloud Tasks."""
