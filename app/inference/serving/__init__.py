"""Models in memory: which are loaded, how requests share them, how batches are scored."""
