"""Find plugins, hold them to their word."""
