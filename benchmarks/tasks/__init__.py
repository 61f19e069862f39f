"""Tasks that do nothing: enqueued, drained, waited for, beside other queues; each module measures one thing."""
