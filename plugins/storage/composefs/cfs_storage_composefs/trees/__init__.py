"""Trees: scanned from directories, brought into their canonical and bootable forms."""
