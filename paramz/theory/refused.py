"""Optimizers that people ask for, and what stands against a rule for them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType

_RADIUS = "its layers' norms set the size of their steps, and with it what a learning rate means"
_GUESS = "it estimates its learning rate from the distance to the start, one for all tensors"
_CLAMPED = (
    "its step is in proportion to the weight's norm, clamped at a constant, so a rule would have "
    "to know on which side of it each tensor is"
)
_SUBSPACE = (
    "its steps are Adam's in a subspace whose rank is an option of its own, so their size follows "
    "what share of each matrix that is, and a coordinate check of that was not run"
)
_NEIGHBOUR = (
    "it takes gradients at weights moved by a radius, which tensors share by their gradients' "
    "sizes, so with width the move goes to other tensors: the radius needs a rule of its own for "
    "every tensor (Haas et al. 2024, arXiv 2411.00075)"
)


_QUASI_NEWTON = (
    "its preconditioner is an estimate of the diagonal of the Hessian, rectified at a constant, so "
    "how its step answers to scale changes from tensor to tensor (APOLLO, with low ranks, is "
    "another optimizer)"
)


def name_of(optimizer: str | type) -> str:
    """The name by which the tables know an optimizer.

    Two are called Apollo: the quasi-Newton one (2009.13586), which has a ``rebound``, and APOLLO of
    low ranks (2412.05270).

    >>> name_of("Schedule-Free_AdamW")
    'schedulefreeadamw'
    """
    name = optimizer if isinstance(optimizer, str) else optimizer.__name__
    key = name.lower().replace("_", "").replace("-", "")
    if key == "apollo" and not isinstance(optimizer, str) and _is_quasi_newton(optimizer):
        return "apollodqn"
    return key


def _is_quasi_newton(kind: type) -> bool:
    """Some versions have no ``rebound``, and all have one ``beta``."""
    return bool({"rebound", "beta"} & inspect.signature(kind).parameters.keys())


def _words(names: str) -> tuple[str, ...]:
    return tuple(names.split())


WITHOUT_RULE: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(_words("prodigy prodigyplusschedulefree trac dadaptadam"), _GUESS),
        **dict.fromkeys(_words("dadaptsgd dadaptlion dadaptadan dadaptadagrad"), _GUESS),
        **dict.fromkeys(_words("sam asam gsam wsam bsam looksam friendlysam"), _NEIGHBOUR),
        "adabelief": "it adds its epsilon to an average of squares at every step, so what that is "
        "beside gradients changes with width (with AdamW's groups the input layer's step falls by "
        "width^-0.4 in a coordinate check)",
        "yogi": "its average of squares starts at a constant and its epsilon is large, so what "
        "both are beside gradients changes with width (with AdamW's groups the input layer's step "
        "falls by width^-0.9 in a coordinate check)",
        **dict.fromkeys(_words("galore galoreadamw galoreadamw8bit galoreadafactor"), _SUBSPACE),
        **dict.fromkeys(_words("qgaloreadamw8bit apollo apolloadamw fira"), _SUBSPACE),
        "apollodqn": _QUASI_NEWTON,
        # Of torch.
        "asgd": "its learning rate falls with lambd * lr * steps, so it falls earlier for tensors "
        "whose learning rate is larger",
        "adadelta": "its steps have the size of its own former steps, which start at its epsilon, "
        "and not that of lr",
        "lbfgs": "it has one learning rate and one curvature for all tensors in one vector",
        "rprop": "its steps start at lr and then grow and shrink by themselves, between bounds "
        "that are the same for all tensors",
        "sparseadam": "it takes sparse gradients only, so it trains embeddings and nothing else: "
        "give it the group that plan.param_groups(model, 'adamw', lr=..., split='tensor') makes "
        "for the embedding, whose learning rate is the same (and set no decay)",
        **dict.fromkeys(("scion", "scionlight"), _RADIUS),
        **dict.fromkeys(
            ("sophia", "sophiah", "sophiag"),
            "its step is a gradient over a Hessian where that is large and a sign where it is not, "
            "and which of the two holds changes with width",
        ),
        **dict.fromkeys(_words("lamb fusedlamb lamb8bit lars lars8bit"), _CLAMPED),
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
