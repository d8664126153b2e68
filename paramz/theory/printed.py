"""Read tables as papers print them: a row per role, a column per quantity, into rules.

The symbols are explained in `tables.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from paramz.theory.power import ONE, Power
from paramz.theory.rules import USUAL_DECAY, Parametrization, Rule

HALF = Fraction(1, 2)
IN = Power(fan_in=1)
OUT = Power(fan_out=1)
HEAD = Power(head=1)
DEPTH = Power(depth=1)
LOOPS = Power(loops=1)
EXPERTS = Power(experts=1)
RANK = Power(rank=1)
SCALING = Power(scaling=1)
CODE = Power(code=1)
ENTRIES = Power(entries=1)
USES = Power(uses=1)
MIXED = Power(mixed=1)
THIN = Power(thin=1)
DENSITY = Power(density=1)
NONE = None  # the theory has no rule here

SECOND = ("kfac.lr", "kfac.damping_a", "kfac.damping_b", "foof.lr", "foof.damping_a")
USUAL = ("input", "hidden", "output", "vector", "scalar")


def tabulate(
    name: str,
    source: str,
    *,
    attention: Power,
    branch: Power = ONE,
    unit_scaled: bool = False,
    decay: str = USUAL_DECAY,
    columns: tuple[str, ...],
    **rows: tuple[Power | None, ...],
) -> Parametrization:
    """Read a printed table: ``columns`` name the entries of each role's row.

    An optimizer is in the table if a column starts with its name (``adam.lr``). An lr of None
    leaves the entry out.

    Raises:
        ValueError: a row has another number of entries than there are columns.
    """
    return Parametrization(
        name=name,
        source=source,
        rules=_rules(name, columns, rows),
        attention=attention,
        branch=branch,
        unit_scaled=unit_scaled,
        decay=decay,
    )


def _rules(
    name: str, columns: tuple[str, ...], rows: Mapping[str, tuple[Power | None, ...]]
) -> dict[tuple[str, str], Rule]:
    families = dict.fromkeys(c.split(".")[0] for c in columns if "." in c)
    rules: dict[tuple[str, str], Rule] = {}
    for role, row in rows.items():
        if len(row) != len(columns):
            raise ValueError(f"{name}, row {role}: {len(row)} entries for {len(columns)} columns")
        cells = dict(zip(columns, row, strict=True))
        for family in families:
            lr = cells[f"{family}.lr"]
            if lr is None:
                continue
            rules[family, role] = Rule(
                init_std=cells["init"] or ONE,
                multiplier=cells["mult"] or ONE,
                lr=lr,
                eps=cells.get(f"{family}.eps") or ONE,
                weight_decay=1 / lr,
                damping_a=cells.get(f"{family}.damping_a") or ONE,
                damping_b=cells.get(f"{family}.damping_b") or ONE,
            )
    return rules


def with_columns(
    table: Parametrization, *, columns: tuple[str, ...], **rows: tuple[Power | None, ...]
) -> Parametrization:
    """More columns for a table whose rows would be too long to read; init and mult are its own.

    Raises:
        ValueError: a row has another number of entries than there are columns.
    """
    weights: dict[str, tuple[Power, Power]] = {}
    for (_, role), rule in table.rules.items():
        weights[role] = (rule.init_std, rule.multiplier)
    whole = {role: (*weights[role], *row) for role, row in rows.items()}
    more = _rules(table.name, ("init", "mult", *columns), whole)
    return replace(table, rules={**table.rules, **more})
