"""Masked tensors in a plan: the ratio of their densities, and their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from paramz.anatomy.masks import Densities, close
from paramz.anatomy.probes import Probes
from paramz.plan.row import Row
from paramz.theory.rules import Parametrization

# Roles of matrices that sum over inputs, and whose outputs are many. What a mask does to the few
# outputs of a readout reaches the gradients of all that is before it, in another way for SGD than
# for Adam, so no init is right for both.
SPARSE = ("hidden", "input", "expert", "latent", "outward")


def with_densities(
    rows: Sequence[Row], scheme: Parametrization, densities: Densities, probes: Probes
) -> list[Row]:
    """The rows with densities and, where the scheme has rules for them, their ratios.

    Args:
        rows: of tensors by their names without masks.
        scheme: the parametrization.
        densities: of the model and its base.
        probes: which tensor of the base is whose twin.

    Raises:
        ValueError: a tensor is as sparse as no rule covers; the message says what would be right.
    """
    return [_with_density(row, scheme, densities, probes) for row in rows]


def _with_density(row: Row, scheme: Parametrization, densities: Densities, probes: Probes) -> Row:
    own = densities.model.get(row.name, 1.0)
    base = densities.base.get(probes.twin_name(row.name) or row.name, 1.0)
    if own == base == 1.0:
        return row
    row = replace(row, density=own)
    if close(own, base):
        return row
    what = f"{row.name} {row.shape} has the density {own:.4g}, and {base:.4g} in the base"
    if "density" not in scheme.scales:
        raise ValueError(
            f"{what}, but {scheme.name} has no rule for that. Multiply it with one that has: "
            f"'{scheme.name}+s-mup'; or give the base masks of the same density"
        )
    roles = (row.role, *(part.role for part in row.slices))
    without = next((role for role in roles if role not in SPARSE), None)
    if without is not None:
        whose = "its role" if without == row.role else "the role of rows that stay"
        raise ValueError(
            f"{what}, and there is no rule over density for {whose}, {without}: only for "
            f"{', '.join(SPARSE)}. Leave it dense, or as dense as in the base"
        )
    return replace(row, ratios={**row.ratios, "density": own / base})


def named_under_masks(rows: Sequence[Row], densities: Densities) -> list[Row]:
    """The rows with the names that their tensors have under masks."""
    names = densities.names
    return [
        replace(row, name=names.get(row.name, row.name), aliases=_renamed(row.aliases, densities))
        for row in rows
    ]


def _renamed(names: Sequence[str], densities: Densities) -> tuple[str, ...]:
    return tuple(densities.names.get(name, name) for name in names)
