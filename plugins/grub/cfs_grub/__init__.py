"""GNU GRUB 2 for cfs."""
