"""Boots a disk image in a virtual machine and says what it saw."""
