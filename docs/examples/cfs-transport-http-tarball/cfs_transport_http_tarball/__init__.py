"""Root filesystems as tar files on web servers."""
