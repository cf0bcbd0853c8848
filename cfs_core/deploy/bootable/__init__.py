"""An image judged as the machine will meet it: kernel, initramfs, mount points, init, fstab, root flags."""
