"""Layers imported by other processes: Python runs one thread at a time, and more cores than one need more of it."""
