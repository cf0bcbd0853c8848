"""Simulators and contracts for authors of cfs plugins."""
