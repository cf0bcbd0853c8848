"""The part of cfs that is in an image: units of systemd."""
