"""A composefs repository: its directory, what it holds by name, checks, garbage, export."""
