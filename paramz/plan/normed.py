"""Parameters that forward code normalises and multiplies data by, in a plan.

A norm holds the size of what it takes. So neither the start of the parameter nor its learning rate
say how large a product with it is, as they do for a readout or a router. A sum over width then
grows, unless both are vectors of length one (a cosine), or the code divides it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from paramz.anatomy.facts import Facts
from paramz.anatomy.paths import pattern
from paramz.plan.row import Row


def normed_weights(facts: Facts, rows: Sequence[Row]) -> list[str]:
    """What to say of products with normalised parameters that move with width, one sentence each.

    Matrices that grow on both sides are left out: of these the relative step falls with width.

    Args:
        facts: of the model.
        rows: of its tensors.
    """
    sizes = {t.name: (t.base_shape, t.wider_shape, t.growing) for t in facts.tensors}
    said = {row.name for row in rows if row.told}
    found: dict[str, str] = {}
    for product in facts.normed:
        base, wider, growing = sizes.get(product.held, ((), (), ()))
        if len(growing) != 1 or product.held in said or product.factor <= 0:
            continue
        (axis,) = growing
        moves = math.log(product.growth * product.factor) / math.log(wider[axis] / base[axis])
        if abs(moves) > 1e-2:
            role = next((row.role for row in rows if row.name == product.held), "output")
            found.setdefault(pattern(product.held), _said(product.held, moves, role))
    return list(found.values())


def _said(name: str, moves: float, role: str) -> str:
    return (
        f"{name}: forward code normalises it and multiplies data by it in a sum over width. A norm "
        "holds its size, so neither its start nor its learning rate do what they do for other "
        f"{role} weights, and what the product becomes in training goes like width^{moves:+.2g}. "
        f"Multiply the product in the code by (width / width of the base)^{-moves:.2g}, or take "
        "the cosine of both, times a number that stays. "
        f"roles={{r'^{pattern(name)}$': {role!r}}} says that it is right as it is"
    )
