"""systemd-boot for cfs."""
