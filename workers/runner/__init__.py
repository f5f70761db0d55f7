"""The runner: the one process that imports merging and evaluation; it owns the device and everything on it."""
