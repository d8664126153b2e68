"""Trained numbers whose start moves with width, and whose learning rate does not.

Some code starts a gain at sqrt(width), as ScaleNorm does (Nguyen & Salazar 2019), or at
d_head^1/4, as cosine attention with gains does. A gain has one learning rate at all widths, so an
update is then another share of it at each. A readout that starts as a mean, at 1/width, has a
learning rate that falls like 1/width, too, so of that nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import nn

from paramz.anatomy.paths import pattern
from paramz.plan.row import Row
from paramz.plan.rulebook import Rulebook
from paramz.theory.families import ADAM

# Of a quarter; none is a sum of logarithms, as an exponent that starts at log(sqrt(d)) would be.
_QUARTERS = [n / 4 for n in (*range(-8, 0), *range(1, 9))]


def moving_starts(model: nn.Module, rows: Sequence[Row], rulebook: Rulebook) -> list[str]:
    """What to say of equal entries whose start is a power of width, one sentence for each kind.

    Args:
        model: the target, under its initial values.
        rows: the plan's, with what was measured.
        rulebook: the plan's, which knows of factors on branches.

    >>> import paramz, torch
    >>> from paramz.plan.row import Init
    >>> one = Row(name="g", shape=(), base_shape=(), role="scalar", why="",
    ...           base_init=Init("constant", 0.0, 2.0, 1, 2.0), factor=1.0)
    >>> wide = Row(name="weight", shape=(16, 2), base_shape=(4, 2), role="input", why="",
    ...            ratios={"fan_out": 4.0})
    >>> net = torch.nn.Linear(2, 16, bias=False)
    >>> net.g = torch.nn.Parameter(torch.tensor(4.0))
    >>> moving_starts(net, [one, wide], Rulebook(paramz.MUP))[0][:50]
    'g starts like width^+0.5, while its learning rate '
    """
    widths = {ratio for row in rows for ratio in row.widths if ratio != 1.0}
    parameters = dict(model.named_parameters())
    found: dict[str, str] = {}
    for row in rows if widths else ():
        if row.told or not parameters[row.name].requires_grad:
            continue
        growth = _growth(row, parameters[row.name], rulebook)
        power = None if growth is None else _power(growth, widths)
        if power is not None:
            found.setdefault(pattern(row.name), _said(row, power))
    return list(found.values())


def _growth(row: Row, parameter: nn.Parameter, rulebook: Rulebook) -> float | None:
    """At how many times the base's value equal entries start, apart from a factor on their branch.

    None where they are not known, change their sign, or start as large as their steps are.
    """
    init = row.base_init
    if init is None or init.kind != "constant" or init.value == 0.0 or parameter.is_meta:
        return None
    values = parameter.detach()
    if values.is_complex() or not values.numel():
        return None
    low, high = float(values.min()), float(values.max())
    growth = low / init.value
    if low != high or growth <= 0 or math.isclose(growth, _step(row, rulebook), rel_tol=1e-4):
        return None
    return growth / rulebook.branch_factor(row)


def _step(row: Row, rulebook: Rulebook) -> float:
    """How an update of Adam, whose entries have the learning rate's size, moves from the base."""
    try:
        return rulebook.rule(row, ADAM).lr(row.ratios)
    except KeyError:
        return 1.0


def _power(growth: float, widths: Iterable[float]) -> float | None:
    """The power of a ratio of widths that a start follows, in quarters."""
    fits = (p for w in widths for p in _QUARTERS if math.isclose(growth, w**p, rel_tol=1e-4))
    return next(fits, None)


def _said(row: Row, power: float) -> str:
    """Without the values, so that models of many widths have one warning."""
    share = "smaller" if power > 0 else "larger"
    return (
        f"{row.name} starts like width^{power:+g}, while its learning rate is that of any "
        f"{row.role}, so an update is a {share} share of it in a wider model, and the best learning"
        " rate moves. Start it at the same number at every width and let the code multiply by what "
        f"moves (self.scale = width**{power:g} beside it). "
        f"roles={{r'^{pattern(row.name)}$': {row.role!r}}} says that it is right as it is"
    )
