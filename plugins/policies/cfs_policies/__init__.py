"""Judgements about images for cfs."""
