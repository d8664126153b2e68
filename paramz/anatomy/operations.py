"""What torch's operations do with a matrix or with what it made, by the names of the operations."""

from __future__ import annotations

import math
from typing import Any

# Operations in which a table of parameters is looked up in, or stands beside what else goes in.
JOINS = frozenset(
    """add add_ sub sub_ cat stack copy_ where embedding _embedding_bag index index_select gather
    masked_fill masked_scatter index_put index_put_ slice_scatter select_scatter""".split()
)

# Of these, what a parameter goes through that stands beside the data, entry by entry or as a token.
BESIDE = frozenset({"add", "add_", "cat", "stack", "copy_", "where"})

# Operations by which a parameter multiplies data entry by entry; and those that then sum it up.
GAINS = frozenset({"mul", "mul_", "div", "div_", "addcmul", "addcmul_"})
SUMS = frozenset({"sum", "mean", "nansum", "cumsum", "logsumexp"})

# What a softmax is made of where code writes it out, as over the edges of a graph.
EXPONENTIALS = frozenset({"exp", "exp2"})

# What leaves the numbers of a tensor as they are, or nearly so.
SAME = frozenset(
    """clone _to_copy copy cat stack _reshape_copy index index_select gather where masked_fill
    _unsafe_view expand view_copy native_dropout add clamp clamp_min maximum""".split()
)

# What multiplies by a kernel, or looks up in a table.
LAYERS = frozenset({"convolution", "embedding", "_embedding_bag"})

# Softmaxes: those whose result adds up to one, and all.
SHARES = frozenset({"_softmax", "_safe_softmax"})
SOFTMAXES = SHARES | {"_log_softmax"}

# Behind these a sum that grows is at an end of their range, or a phase: a gate that stays open.
GATES = frozenset(
    """sigmoid hardsigmoid log_sigmoid_forward tanh hardtanh atan erf exp exp2 expm1 sin
    cos""".split()
)

# Operations that take the size off.
SIZE_TAKEN = frozenset(
    """native_layer_norm native_group_norm native_batch_norm _fused_rms_norm rsqrt
    linalg_vector_norm""".split()
)

# Operations behind which a sum that grows divides, or has all but lost its growth.
UNGROWN = SIZE_TAKEN | frozenset({"reciprocal", "log", "log2", "log10", "log1p", "sign"})

# Operations behind which a sum of one activation is as large as before, or is a logit's.
KEEP_SUMS = frozenset({"add", "sub", "cat", "stack", "where", "maximum", "minimum"})

# Operations that take rows of their first argument by numbers in others.
LOOKS = frozenset({"embedding", "_embedding_bag", "index", "index_select", "gather"})

# Operations whose result has the axes of their first argument: a matrix as it is used, copied in
# another order, rounded, scaled, or another number for each of its own.
COPIES = frozenset("clone _to_copy mul div add sub neg exp sigmoid softplus tanh clamp".split())

# Products that sum over the last axis of one factor and the last but one of the other.
PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm", "mv", "addmv"})

# What every norm is made of, fused or written out.
NORMS = frozenset(
    """native_layer_norm native_group_norm native_batch_norm _fused_rms_norm rsqrt
    linalg_vector_norm norm std var var_mean""".split()
)

# Lengths of vectors, and of what is between two.
LENGTHS = frozenset({"linalg_vector_norm", "norm"})
DISTANCES = frozenset({"_cdist_forward", "_euclidean_dist"})


def number_of(name: str, args: Any) -> float:
    """The number that an operation multiplies a tensor by."""
    number = next((float(x) for x in args[1:] if isinstance(x, int | float)), 0.0)
    if number and name in ("mul", "mul_"):
        return number
    return 1 / number if number and name in ("div", "div_") else 1.0


def summed_over(name: str, args: Any, kwargs: Any) -> float:
    """Over how many entries a sum runs; of a length, the root of that."""
    shape = args[0].shape
    if name in DISTANCES:
        return float(shape[-1] ** 0.5)
    at = {"linalg_vector_norm": 2, "norm": 2}.get(name, 1)
    axes = (kwargs or {}).get("dim", args[at] if len(args) > at else None)
    axes = [axes] if isinstance(axes, int) else axes or range(len(shape))
    size = math.prod(shape[axis] for axis in axes)
    return float(size if name == "sum" else size**0.5)


def contracted(name: str, args: Any) -> int:
    """Over how many entries a product of two tensors sums, by the name of torch's function.

    >>> import torch
    >>> contracted("einsum", ("bij,bj->bi", torch.zeros(2, 3, 4), torch.zeros(2, 4)))
    4
    """
    if name == "einsum":
        equation, *given = args
        before, _, after = equation.replace(" ", "").replace("...", "").partition("->")
        factors = given[0] if isinstance(given[0], list | tuple) else given
        sizes = {
            letter: size
            for letters, x in zip(before.split(","), factors, strict=True)
            for letter, size in zip(reversed(letters), reversed(x.shape), strict=False)
        }
        return math.prod(size for letter, size in sizes.items() if letter not in after)
    if name.startswith("conv"):
        return int(args[1][0].numel())
    return int(args[name in ("addmm", "baddbmm")].shape[-1])
