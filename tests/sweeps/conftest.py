"""Fixtures of the tests of sweeps."""

from written_specs import spec_file, sweep

__all__ = ["spec_file", "sweep"]
