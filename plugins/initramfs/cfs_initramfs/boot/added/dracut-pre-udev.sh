#!/bin/sh
# dracut without systemd: loads kernel modules before udev looks for devices.

/usr/lib/cfs/load-modules
