"""The only place with SQL. Synchronous: callers on an event loop go through threads."""
