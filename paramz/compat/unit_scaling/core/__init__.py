"""What operations of one's own are made of."""

from paramz.compat.unit_scaling.core import functional

__all__ = ["functional"]
