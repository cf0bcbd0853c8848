"""ext4 with offline fs-verity: sized, made, filled, adjusted and read back."""
