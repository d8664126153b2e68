"""Optimizers that people ask for, and what stands against a rule for them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_RADIUS = "its layers' norms set the size of their steps, and with it what a learning rate means"
_GUESS = "it estimates its learning rate from the distance to the start, one for all tensors"
WITHOUT_RULE: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("prodigy", "dadaptadam", "dadaptsgd", "dadaptlion", "dadaptadan"), _GUESS),
        **dict.fromkeys(("scion", "scionlight"), _RADIUS),
        **dict.fromkeys(
            ("sophia", "sophiah", "sophiag"),
            "its step is a gradient over a Hessian where that is large and a sign where it is not, "
            "and which of the two holds changes with width",
        ),
        **dict.fromkeys(
            ("lamb", "lars"),
            "its step is in proportion to the weight's norm, clamped at a constant, so a rule "
            "would have to know on which side of it each tensor is",
        ),
        **dict.fromkeys(
            ("kron", "psgd"), "its preconditioner is fitted, and how that answers to scale is open"
        ),
        **dict.fromkeys(
            ("splus", "spectralsphere", "adago"),
            "it puts a size of its own on an orthogonalised step, and a coordinate check of that "
            "was not run",
        ),
    }
)
