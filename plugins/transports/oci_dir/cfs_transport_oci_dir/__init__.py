"""OCI directories and archives for cfs."""
