"""Intel's multi-buffer library as a hasher for cfs."""
