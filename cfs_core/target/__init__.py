"""Volumes and locations: what actions are applied to."""
