"""Fuzzing of everything that cfs parses and did not write: one target for each parser (docs/adr/0024)."""
