"""What a user's own unit-scaled operations are made of."""

from __future__ import annotations

from paramz.compat.unit_scaling.core import functional

__all__ = ["functional"]
