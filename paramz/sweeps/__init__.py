"""Sweeps: the spec, the trials, the runner and the store. Imports no torch."""
