"""What faces people: the HTTP API. `app.create_app(parts)` gives the application that a replica serves.

Nothing is imported here: other replicas use single modules of it, and each process is started the sooner.
"""
