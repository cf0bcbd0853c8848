"""The verb install: request, preflight, plan, run, verify."""
