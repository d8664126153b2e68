"""What plans know of experts beside their rows: thin ones, and what readers are told of both."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace

from paramz.anatomy.tensors import listed
from paramz.plan.row import Row
from paramz.plan.rulebook import Rulebook
from paramz.theory.families import Family
from paramz.theory.power import ONE
from paramz.theory.rules import Parametrization


def with_thin(rows: Sequence[Row]) -> list[Row]:
    """The rows, with the ratio ``thin`` of those that map back from experts whose size stays."""
    return [
        replace(row, ratios={**row.ratios, "thin": _averaged(row)}) if _is_back(row) else row
        for row in rows
    ]


def _averaged(row: Row) -> float:
    """Of how many more experts a token has a mean: the active ones, where the layer tells them."""
    return row.ratios.get("top_k", row.ratios["experts"])


def router_notes(rows: Sequence[Row], rulebook: Rulebook) -> list[str]:
    """What to know of routers that start smaller in wider models: it moves what they choose."""
    routers = [row for row in rows if row.role == "router" and row.widths]
    power = rulebook.of_role("router").init_std if routers else ONE
    names = [row.name for row in routers if power(row.ratios) < 0.99 * min(row.widths) ** -0.5]
    if not names:
        return []
    return [
        f"{listed(names, 2)}: routers start like readouts, and a choice of the top k follows from "
        "the order of what they put out, not from its size, so in wider models the first steps "
        "change more choices. 'moe' in the place of 'moe-readout-router' starts them like hidden "
        "matrices, under which that stays (docs/parametrizations.md, Bottlenecks)"
    ]


def warn_of_few(rows: Iterable[Row], family: Family) -> None:
    """Warn of steps that follow gradients, where more experts share as many active ones' tokens.

    An expert's mean gradient is the larger the more alike its tokens are, and fewer of more experts
    see those that are. No power of their number makes up for that (benchmarks/experts_fixed.py).
    K-FAC divides by what single tokens send back, of which an expert has fewer.
    """
    few = [
        row.name
        for row in rows
        if row.ratios.get("experts", 1.0) > row.ratios.get("top_k", row.ratios.get("experts", 1.0))
    ]
    if family.lr_shift != 1 and few:
        warnings.warn(
            f"{listed(few, 2)}: there are more experts than in the base and a token goes to a "
            f"smaller share of them, where {family.name}'s learning rates do not transfer: each "
            "expert then sees fewer tokens, which are more alike, and its mean gradient grows, by "
            "a power that depends on the data, and so do steps that are not normalised (first ones "
            "like experts^+0.6 with SGD, +0.4 with FOOF, -0.9 with K-FAC; SGD's best rate fell by "
            "0.65 octave per doubling in a sweep). Use AdamW, keep the share of active experts, or "
            "tune at this number of experts (docs/parametrizations.md, More experts)",
            stacklevel=4,  # param_groups' caller
        )


def _is_back(row: Row) -> bool:
    """Whether it maps back to width from an expert whose own size stays."""
    ratios = row.ratios
    back = row.role == "expert" and "fan_out" in ratios and "fan_in" not in ratios
    return back and "experts" in ratios


def thin_notes(rows: Sequence[Row], scheme: Parametrization) -> list[str]:
    """What to know of thin experts of which there are more: their mean is smaller."""
    names = [row.name for row in rows if _is_back(row) and _averaged(row) > 1.0]
    if not names or "thin" in scheme.scales:
        return []
    return [
        f"{listed(names, 2)}: of experts whose own size stays, more average away as experts^-1/2 "
        "what their maps back put out at first, unless they start at zero. 'moe-bottleneck' in the "
        f"place of {_moe(scheme)} starts these maps larger (docs/parametrizations.md, More experts)"
    ]


def _moe(scheme: Parametrization) -> str:
    """The part of a scheme's name that is about experts, in quotes."""
    return repr(next((p for p in scheme.name.split("+") if p.startswith("moe")), "moe"))
