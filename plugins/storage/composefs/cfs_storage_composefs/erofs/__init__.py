"""Composefs EROFS images: what they look like on disk, written and read."""
