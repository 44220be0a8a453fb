"""Where data lie: the roots, the cache, the download."""
