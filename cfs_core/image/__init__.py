"""OCI bytes to a tree."""
