"""A set of real servers for the tests: PostgreSQL behind PgBouncer in transaction mode, and Redis, as the system has
them."""
