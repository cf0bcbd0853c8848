"""Early-boot code for cfs: mounts a composefs root; hooks for dracut, mkinitcpio and initramfs-tools."""
