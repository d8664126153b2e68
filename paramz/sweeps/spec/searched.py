"""Axes that are searched while a sweep runs, by refinement or halving: that they can be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from paramz.sweeps.spec.config import Config, leaves


def check_searched(
    names: Sequence[str], refined: str | None, halved: str | None, configs: Iterator[Config]
) -> None:
    """Refuse what could only be found to be wrong after hours.

    Args:
        names: the axes of the sweep.
        refined: the one that is refined, if any.
        halved: the one over which trials are halved, if any.
        configs: those of the sweep; of a refined axis the first thousand are looked at.

    Raises:
        ValueError: a name is no axis; or a value of the refined one is no positive number, or it
            has one value only.
    """
    for field, name in (("refine.axis", refined), ("halving.over", halved)):
        if name and name not in names:
            raise ValueError(
                f"{field} is {name!r}, which is no axis; the axes are {', '.join(names) or 'none'}"
            )
    values = [leaves(c).get(refined) for c in islice(configs, 1000)] if refined else []
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise ValueError(
                f"refine.axis is {refined!r}, which is {value!r} in a config: optima are looked "
                "for on a log2 scale, so all of its values have to be positive numbers"
            )
    if len(set(values)) == 1:
        raise ValueError(
            f"refine.axis is {refined!r}, which has the one value {values[0]}: an optimum between "
            "values takes two or more"
        )
