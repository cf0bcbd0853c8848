"""The object store: content named by its fs-verity digest."""
