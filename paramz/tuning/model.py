"""The target's model on torch's meta device: its plan in numbers, its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes a while to import, and `paramz tune` of a command needs none
    from paramz.apply.task import Task


@dataclass(frozen=True)
class Values:
    """What some tensors of the target get; those of equal values share a row.

    Attributes:
        roles: theirs.
        tensors: their names.
        init: factor on the std of their initial values, over that of the base.
        settings: learning rate, epsilon and the like; weight decay where it is set at the base.
    """

    roles: tuple[str, ...]
    tensors: tuple[str, ...]
    init: float
    settings: Mapping[str, float]


@dataclass(frozen=True)
class Model:
    """What a scheme means for the target.

    Attributes:
        parameters: number of them.
        groups: what each group of tensors gets.
        factors: what else changes: multipliers and attention scales, each in words.
    """

    parameters: int
    groups: tuple[Values, ...]
    factors: tuple[str, ...]


def task_of(name: str, config: Mapping[str, Any]) -> Task:
    """The task of a config.

    Raises:
        TypeError: the function returns something else.
        ImportError: there is no such function.
    """
    from paramz.apply.task import Task
    from paramz.sweeps.spec.target import load_target

    made = load_target(name)(dict(config), None)
    if not isinstance(made, Task):
        raise TypeError(f"{name} returned {type(made).__name__}, which is no paramz.Task")
    return made


def tokens_in(task: Task) -> int | None:
    """How many targets a batch holds: whole numbers that are predicted; None if it has none."""
    import torch

    batch = task.batch(0)
    if isinstance(batch, Mapping):
        batch = [batch.get("labels", batch.get("input_ids"))]
    parts = batch if isinstance(batch, list | tuple) else [batch]
    whole = [p for p in parts if isinstance(p, torch.Tensor) and not p.is_floating_point()]
    return int(whole[-1].numel()) if whole else None


def planned(
    task: Task,
    scheme: str,
    sizes: Mapping[str, int],
    base_sizes: Mapping[str, int],
    optimizer: str,
    settings: Mapping[str, Any],
) -> Model:
    """The values of every tensor at the target.

    Args:
        task: gives the model.
        scheme: name of the parametrization.
        sizes: width, and depth where the task's build takes it.
        base_sizes: those of the base.
        optimizer: its name.
        settings: lr, and what else is set at the base.

    Raises:
        ValueError: as for `paramz.make_plan`.
        TypeError: as for `paramz.make_plan`.
        KeyError: the scheme has no rule for the optimizer.
    """
    import torch

    rest = {name: size for name, size in sizes.items() if name != "width"}
    with torch.device("meta"):
        model = task.build(sizes["width"], **rest)
    others = {name: size for name, size in base_sizes.items() if name != "width"}
    plan = task.make_plan(model, scheme, base_width=base_sizes["width"], base_sizes=others or None)
    inits = {row.name: plan.rulebook.weight(row).init_std(row.ratios) for row in plan.rows}
    groups = []
    for group in plan.param_groups(model, optimizer, **settings):
        numbers = {
            name: float(value)
            for name, value in group.items()
            if isinstance(value, float | int)
            and not isinstance(value, bool)
            and not name.startswith(("planned", "base_"))
            and (name != "weight_decay" or name in settings)
        }
        by_init: dict[float, list[str]] = {}
        for name in group["names"]:
            by_init.setdefault(float(inits[name]), []).append(name)
        for init, names in by_init.items():
            roles = dict.fromkeys(row.role for row in plan.rows if row.name in names)
            groups.append(Values(tuple(roles), tuple(names), init, numbers))
    factors = [f"{path}: input times {factor:.4g}" for path, factor in plan.multipliers.items()]
    factors += [f"{path}: output times {factor:.4g}" for path, factor in plan.branches.items()]
    summary = plan.summary(optimizer)
    notes = [note for note in summary.notes if note not in factors]
    parameters = sum(p.numel() for p in model.parameters())
    return Model(parameters, tuple(groups), (*factors, *notes))
