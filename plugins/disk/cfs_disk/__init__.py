"""GPT, ext4 with offline fs-verity and FAT for cfs, without root."""
