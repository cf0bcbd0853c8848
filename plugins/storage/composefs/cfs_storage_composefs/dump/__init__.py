"""Trees as text: composefs-dump(5)."""
