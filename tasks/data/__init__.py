"""Data sets on disk: the data root, the cache, downloads."""
