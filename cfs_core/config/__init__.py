"""Settings with their origin."""
