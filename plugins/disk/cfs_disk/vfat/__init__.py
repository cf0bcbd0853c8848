"""FAT: made by mkfs.vfat, filled and read by cfs."""
