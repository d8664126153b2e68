"""Matrices that forward code computes from parameters alone, as a hypernetwork's, in a plan.

A role is of what a parameter makes: entries of what a generator puts out keep their size. Used as a
matrix that sums over width, that would have to be a hidden one, with entries and rates that fall.
Products of factors (a low rank's ``U @ V``) are right: their sum is over the ``fan_in`` of one.
"""

from __future__ import annotations

from collections.abc import Sequence

from paramz.anatomy.facts import Facts
from paramz.anatomy.paths import pattern, split
from paramz.anatomy.tensors import listed
from paramz.plan.row import Row


def generated_matrices(facts: Facts, rows: Sequence[Row]) -> list[str]:
    """What to say of computed matrices of which no role speaks, one sentence each.

    Each sum over width, while such a matrix is made and where it is used, needs a parameter that
    has width as its ``fan_in``: its init and rate keep the sum in size.

    Args:
        facts: of the model.
        rows: of its tensors.
    """
    summed = {row.name for row in rows if "fan_in" in row.ratios}
    known = {tensor.name for tensor in facts.tensors if tensor.growing}
    spoken = {each.module for each in facts.declared if each.kind != "depth"}
    found: dict[tuple[str, str], str] = {}
    for product in facts.dots:
        for makers, sums in product.generated:
            growing = sorted(makers & known)
            if not growing or {split(name)[0] for name in growing} & spoken:
                continue
            key = pattern(split(growing[-1])[0])
            if len(makers & summed) < sums and product.grows:
                say = _summed if product.entry else _said
                found.setdefault((key, say.__name__), say(key, growing))
            elif len(makers & summed) >= sums and product.moves:
                found.setdefault((key, "moves"), _moves(key, growing, product.factor))
    return [*found.values()]


def _said(key: str, makers: Sequence[str]) -> str:
    return (
        f"{listed([*makers], 2)}: forward code computes a matrix from this and no input, and "
        "multiplies data by it with a sum over width. Its role is that of a layer that puts out "
        "activations: entries keep their size, and so do their steps, so what the matrix makes "
        "grows like width^1/2 as drawn and like width while it is trained. Divide the matrix in "
        "the code by the length of that sum over its length in the base: what it makes then keeps "
        "its size while it is trained, and starts small in wide models, as a readout does. "
        f"factors={{r'^{key}$': None}} says that it is right as it is"
    )


def _moves(key: str, makers: Sequence[str], factor: float) -> str:
    return (
        f"{listed([*makers], 2)}: forward code multiplies these with each other, data by that, and "
        f"the product by a number that is {factor:.3g} times as large in the wider probe as in the "
        "base. Their roles keep that product in size at every width, so with the number it "
        f"{'fades' if factor < 1 else 'grows'}. Let the code use a number that stays. "
        f"factors={{r'^{key}$': None}} says that it is right as it is"
    )


def _summed(key: str, makers: Sequence[str]) -> str:
    return (
        f"{listed([*makers], 4)}: forward code multiplies these with each other and no input, and "
        "sums over an axis that grows. Their entries keep their size, and so do their steps, so the"
        " sum grows like width^1/2 as drawn and like width while it is trained (as lambda of "
        "differential attention where the size of a head grows). Divide it in the code by the "
        "length of that axis over its length in the base. "
        f"factors={{r'^{key}$': None}} says that it is right as it is"
    )
