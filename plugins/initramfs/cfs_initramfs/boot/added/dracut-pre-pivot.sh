#!/bin/sh
# dracut without systemd: the root is mounted at $NEWROOT, and is exchanged for the composefs root before it is entered.

if /usr/lib/cfs/cfs-setup-root wanted; then
    PATH="/usr/lib/cfs/bin:$PATH" CFS_SYSROOT="$NEWROOT" /usr/lib/cfs/cfs-setup-root || die "cfs-setup-root failed"
fi
