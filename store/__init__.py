"""The store: rows in Postgres, and the bell that tells workers to look at them.

Every function takes a session first; `session.Database` hands sessions out, one per transaction. The row of a job is
the lock of everything under it: see `rows.lock_job`.
"""
