"""Targets, by what they read."""
