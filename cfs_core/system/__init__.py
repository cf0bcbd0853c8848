"""The only doors to the machine."""
