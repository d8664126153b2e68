"""Matrices that a model computes from its parameters: of which, and over what that summed.

A hypernetwork's weight is what a layer puts out for a parameter or a constant. Which sums over
width it has behind it tells whether its parameters' roles speak of it: each of them needs a
parameter with width as its fan_in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from torch import Tensor

PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution"})
# Behind these the size of entries is another one, or they are other things.
_LOST = re.compile("norm|softmax|linalg|fft|arg|inverse|solve|exponential|rsqrt|topk|sort")
# Sums of matrices of which more are followed no further: a network of its own made them.
_MOST = 16


@dataclass(frozen=True, slots=True)
class Term:
    """One of the summands of a tensor that depends on no input.

    Attributes:
        makers: the parameters that it is a product of.
        sums: the lengths of the sums in these products, in their order.
        constants: how many entries the constants have that are factors, too.
    """

    makers: frozenset[str] = frozenset()
    sums: tuple[int, ...] = ()
    constants: tuple[int, ...] = ()


Terms = tuple[Term, ...]


def terms_of(name: str, args: Any, found: Sequence[Terms]) -> Terms:
    """The summands of what an operation makes of tensors that depend on no input.

    Args:
        name: of the operation.
        args: what it was called with.
        found: the summands of each tensor among these.

    >>> import torch
    >>> a, b = torch.zeros(2, 3), torch.zeros(3, 4)
    >>> terms_of("mm", (a, b), ((Term(frozenset("a")),), (Term(frozenset("b")),)))[0].sums
    (3,)
    """
    if _LOST.search(name):
        return ()
    if name in PRODUCTS:
        # Biases are added, so they are no part of it: they come first, or last.
        first = 0 if name == "convolution" else -2
        left, right = (
            terms or (Term(constants=(int(arg.numel()),)),)
            for terms, arg in zip(found[first:][:2], args[first:][:2], strict=True)
        )
        return _products(left, right, (summed(name, args),))
    if name.rstrip("_") in ("mul", "einsum") and len(found) == 2 and all(found):
        return _products(found[0], found[1], ())
    if name.rstrip("_") == "div":
        return found[0]
    if name == "sum":  # of products entry by entry, as torch.dot takes it
        count = int(args[0].numel() // max(_left(args), 1))
        return tuple(
            replace(term, sums=(*term.sums, count)) if len(term.makers) > 1 else term
            for term in found[0]
        )
    return tuple(dict.fromkeys(term for terms in found for term in terms))[:_MOST]


def _left(args: Any) -> int:
    """How many entries a sum leaves."""
    axes = range(args[0].ndim) if len(args) < 2 or not args[1] else args[1]
    gone = {axis % max(args[0].ndim, 1) for axis in axes}
    return math.prod(n for axis, n in enumerate(args[0].shape) if axis not in gone)


def summed(name: str, args: Any) -> int:
    """Over how many entries a product of two tensors sums."""
    if name == "convolution":
        weight: Tensor = args[1]
        return int(weight[0].numel())
    return int(args[-2].shape[-1])


def is_generated(terms: Terms) -> bool:
    """Whether one of the summands is a product, as what a layer puts out."""
    return any(term.sums for term in terms)


def _products(left: Terms, right: Terms, sums: tuple[int, ...]) -> Terms:
    """Products of two sums; those of a parameter with itself are lost, as in orthogonal maps."""
    made = [
        Term(
            one.makers | other.makers,
            one.sums + other.sums + sums,
            one.constants + other.constants,
        )
        for one, other in product(left, right)
        if not one.makers & other.makers
    ]
    return tuple(dict.fromkeys(made))[:_MOST]
