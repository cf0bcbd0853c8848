"""Container registries for cfs."""
