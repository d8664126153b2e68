"""What plans know of experts beside their rows: thin ones, and what readers are told of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from paramz.anatomy.tensors import listed
from paramz.plan.row import Row
from paramz.plan.rulebook import Rulebook
from paramz.theory.power import ONE
from paramz.theory.rules import Parametrization


def with_thin(rows: Sequence[Row]) -> list[Row]:
    """The rows, with the ratio ``thin`` of those that map back from experts whose size stays."""
    return [
        replace(row, ratios={**row.ratios, "thin": row.ratios["experts"]}) if _is_back(row) else row
        for row in rows
    ]


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


def _is_back(row: Row) -> bool:
    """Whether it maps back to width from an expert whose own size stays."""
    ratios = row.ratios
    back = row.role == "expert" and "fan_out" in ratios and "fan_in" not in ratios
    return back and "experts" in ratios


def thin_notes(rows: Sequence[Row], scheme: Parametrization) -> list[str]:
    """What to know of thin experts of which there are more: their mean is smaller."""
    names = [row.name for row in rows if _is_back(row) and row.ratios["experts"] > 1.0]
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
