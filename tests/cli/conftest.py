"""Fixtures of the tests of the command line."""

from written_specs import spec_file, sweep

__all__ = ["spec_file", "sweep"]
