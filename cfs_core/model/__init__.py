"""Frozen facts, no input or output. `tree` is the one mutable exception: a tree under construction."""
