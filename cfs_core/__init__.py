"""The core of cfs: verbs, checks, plans and the plugin host. No registry client, no EROFS, no bootloader lives here."""

__version__ = "0.1.0"
