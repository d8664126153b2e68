"""The common table behind every export: one entry per tensor of the framework's model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from paramz.plan.groups import row_values
from paramz.plan.row import ModuleScale, Row
from paramz.plan.rulebook import Rulebook
from paramz.plan.settings import Settings

Names = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Start:
    """How a tensor starts.

    Attributes:
        kind: ``normal`` or ``uniform`` around zero, ``constant``, or ``own``: as the model's code
            fills it, which is no draw around zero.
        number: the standard deviation, the constant, or what to multiply the model's own by.
        size: number of entries that it was measured on; 0 for constants.
        rule: equal for tensors that have the same rule, so that their measured stds can be pooled.
    """

    kind: str
    number: float
    size: int = 0
    rule: tuple[Any, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor of the framework's model.

    Attributes:
        name: in the framework.
        others: its other names there, where it is tied.
        tensors: the tensors of the plan that it consists of, usually one.
        role: of the plan's tables.
        shape: of the plan's tensor, the first if there are several.
        settings: those of the optimizer that trains it.
        values: lr, weight_decay and (if the optimizer has one) eps.
        start: None where the plan did not measure it.
    """

    name: str
    others: tuple[str, ...] = ()
    tensors: tuple[str, ...]
    role: str
    shape: tuple[int, ...]
    settings: Settings
    values: Mapping[str, float]
    start: Start | None


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a framework's file makes its settings of.

    Attributes:
        title: the scheme and the optimizers, for people.
        entries: one per tensor.
        settings: of the optimizers; of two, the first is that of hidden matrices.
        unheld: what the plan changes in modules, which no framework has a setting for.
        attention: factors that the plan sets in modules' own code.
    """

    title: str
    entries: tuple[Entry, ...]
    settings: tuple[Settings, ...]
    unheld: tuple[str, ...]
    attention: tuple[ModuleScale, ...] = ()


def make_entries(
    rulebook: Rulebook, rows: Iterable[Row], settings: Settings, names: Names
) -> list[Entry]:
    """The entries of the tensors that one optimizer trains.

    Args:
        rulebook: the plan's.
        rows: the tensors'.
        settings: the optimizer's.
        names: patterns and replacements, from the plan's names to the framework's.

    Raises:
        ValueError: the optimizer has a damping, which none of the frameworks knows.
        KeyError: the table has no rule for the optimizer and a tensor's role.
    """
    if settings.family.damping is not None:
        raise ValueError(
            f"{settings.family.name} is an optimizer of paramz.optim, which no framework has: take "
            "plan.param_groups(model, ...) into your own training loop"
        )
    made = []
    for row in rows:
        lr = settings.role_lr.get(row.role, settings.lr)
        values = row_values(rulebook, row, settings, lr)
        entry = Entry(
            name=renamed(row.name, names),
            others=tuple(renamed(alias, names) for alias in row.aliases),
            tensors=(row.name,),
            role=row.role,
            shape=row.shape,
            settings=settings,
            # Twelve digits: groups that differ by rounding only are one group.
            values={key: float(f"{value:.12g}") for key, value in values.items()},
            start=_start(rulebook, row),
        )
        made.append(entry)
    return made


def renamed(name: str, names: Names) -> str:
    r"""A tensor's name in the framework: all replacements, one after the other.

    >>> renamed("model.layers.3.mlp.up_proj.weight", [(r"^model\.layers", "decoder.layers")])
    'decoder.layers.3.mlp.up_proj.weight'
    """
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    return name


def check_names(rows: Iterable[Row], names: Names) -> None:
    """Raise if a pattern of ``names`` finds nothing, which would leave a name as it is."""
    left = {row.name for row in rows} | {alias for row in rows for alias in row.aliases}
    for pattern, replacement in names:
        try:
            found = {name for name in left if re.search(pattern, name)}
            left = {re.sub(pattern, replacement, name) for name in left}
        except (re.error, IndexError) as error:
            raise ValueError(f"names: ({pattern!r}, {replacement!r}): {error}") from None
        if not found:
            raise ValueError(
                f"names: the pattern {pattern!r} is found in no name. After the patterns before it "
                f"the names are {', '.join(sorted(left)[:6])}{', ...' if len(left) > 6 else ''}"
            )


def fused(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """One entry per name: tensors that a framework keeps as one (q, k and v) become one.

    Raises:
        ValueError: they have other values or starts, and one tensor can have one of each only.
    """
    by_name: dict[str, Entry] = {}
    for entry in entries:
        first = by_name.setdefault(entry.name, entry)
        if first is entry:
            continue
        for key, value in entry.values.items():
            if first.values.get(key) != value:
                raise ValueError(_torn(first, entry, key, first.values.get(key), value))
        if not _alike(first.start, entry.start):
            a, b = (None if each is None else each.number for each in (first.start, entry.start))
            raise ValueError(_torn(first, entry, "init", a, b))
        by_name[entry.name] = replace(first, tensors=(*first.tensors, *entry.tensors))
    return tuple(by_name.values())


def _torn(first: Entry, other: Entry, what: str, a: object, b: object) -> str:
    return (
        f"names= makes one tensor {first.name} of {first.tensors[0]} and {other.tensors[0]}, whose "
        f"{what} under the plan is {a} and {b}, and one tensor has one {what}: leave them apart in "
        "the framework, or plan the model with the tensors fused"
    )


def _alike(a: Start | None, b: Start | None) -> bool:
    """Whether two starts may be one: stds are measured on samples of known sizes."""
    if a is None or b is None:
        return a is b
    if a.kind != b.kind or not (a.size and b.size):
        return (a.kind, a.number) == (b.kind, b.number)
    error = (a.number**2 / (2 * a.size) + b.number**2 / (2 * b.size)) ** 0.5
    return bool(abs(a.number - b.number) <= 5 * error)


def _start(rulebook: Rulebook, row: Row) -> Start | None:
    std = rulebook.init_std(row)
    if row.base_init is None or std is None:
        return None
    if row.base_init.kind == "constant":
        value = row.base_init.value * rulebook.branch_factor(row)
        return Start("constant", float(f"{value:.12g}"))
    factor = rulebook.weight(row).init_std(row.ratios)
    if row.base_init.mean:
        return Start("own", float(f"{factor:.12g}"))
    return Start(row.base_init.kind, std, row.base_init.size, (row.role, row.shape[1:], factor))
