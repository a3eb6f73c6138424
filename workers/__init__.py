"""The worker: takes jobs from Redis, trains them in child processes, publishes their events.

Needs Redis, the storage and the adapters; never Flask, never the database.
"""
