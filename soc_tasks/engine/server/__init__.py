"""The embedded engine behind the Cloud Tasks API v2: any language's client queues, any application is called by HTTP.

Tasks are rows of the engine's own table, in queues named project/location/queue, as no queue of a site can be called;
configurations of queues have a table of their own. A worker dispatches them as it does a site's tasks, only by calls of
its own kind. What the API answers and what is called follows the service; whatever is not there answers UNIMPLEMENTED.
"""
