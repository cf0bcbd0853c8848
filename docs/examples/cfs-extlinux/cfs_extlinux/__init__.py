"""extlinux.conf for U-Boot boards."""
