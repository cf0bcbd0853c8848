"""GUID partition tables: which partitions a disk gets, and the bytes of the table."""
