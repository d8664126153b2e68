"""Optimizers whose parameter groups follow the rules in width, made from bare parameters.

Any other optimizer is passed as ``impl``: to MuAdam if it normalises the gradient entry by entry
(RMSprop, Adagrad, Lion ...), to MuSGD if it is linear in the gradient.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW

from paramz.compat.mup.rows import RULES
from paramz.compat.mup.tensors import row_of
from paramz.plan.ratios import decay_ratio, lr_ratio
from paramz.plan.row import Row
from paramz.theory.families import ADAMW, FAMILIES, Family
from paramz.theory.families import SGD as LINEAR
from paramz.theory.families import family as find_family
from paramz.theory.refused import WITHOUT_RULE, name_of

Group = dict[str, Any]


def process_param_groups(params: Iterable[Any], **kwargs: Any) -> list[Group]:
    """Parameter groups that all have a learning rate and a weight decay.

    Args:
        params: parameters, named parameters, or groups of either; groups are copied.
        **kwargs: ``lr`` and ``weight_decay`` (0 if left out) for groups that lack them.

    Raises:
        ValueError: there are no parameters, or a group has no learning rate.
    """
    groups = list(params)
    if not groups:
        raise ValueError("the optimizer got no parameters")
    if not isinstance(groups[0], dict):
        groups = [{"params": groups}]
    if "lr" not in kwargs and any("lr" not in group for group in groups):
        raise ValueError("lr is missing: the learning rate at the base width, as in lr=1e-3")
    defaults = {"lr": kwargs.get("lr"), "weight_decay": kwargs.get("weight_decay", 0.0)}
    return [{**defaults, **group, "params": _listed(group["params"])} for group in groups]


def MuAdam(
    params: Iterable[Any],
    impl: Callable[..., Any] = Adam,
    decoupled_wd: bool = False,
    as_mup: bool = True,
    **kwargs: Any,
) -> Any:
    """Adam, or another optimizer that normalises entry by entry, with muP's learning rates.

    Args:
        params: parameters (or groups) of models whose base shapes are set.
        impl: the optimizer.
        decoupled_wd: leave weight decay as it is, for an ``impl`` that does not multiply it by the
            learning rate.
        as_mup: mup's one epsilon for all tensors, and its decay of plain Adam. With False both
            follow the size of each tensor's gradient, as Yang et al. 2022 (TP-V, appendix B.3) ask:
            better in wide models, and a plan's own rule, but no longer mup's trajectory.
        **kwargs: for ``impl``; ``lr``, ``weight_decay`` and ``eps`` are those at the base.

    Raises:
        ValueError: a parameter's base shapes are not set, there is no ``lr``, or ``impl`` is linear
            in the gradient or for matrices only.

    >>> from paramz.compat.mup import set_base_shapes
    >>> model = set_base_shapes(torch.nn.Linear(64, 64), torch.nn.Linear(16, 16))
    >>> [(g["lr"], g["eps"]) for g in MuAdam(model.parameters(), lr=0.1).param_groups[:2]]
    [(0.025, 1e-08), (0.1, 1e-08)]
    >>> MuAdam(model.parameters(), lr=0.1, as_mup=False).param_groups[0]["eps"]
    2.5e-09
    """
    family = _family(impl, ADAMW, "adam", "MuAdam", kwargs.get("decoupled_weight_decay"))
    eps = kwargs.get("eps", _default(impl, "eps"))
    scaling = _Scaling(family=family, scales_decay=not decoupled_wd, as_mup=as_mup, eps=eps)
    return impl(_split(process_param_groups(params, **kwargs), scaling), **kwargs)


def MuAdamW(params: Iterable[Any], **kwargs: Any) -> Any:
    """AdamW with muP's learning rates; the arguments are those of `MuAdam`.

    Weight decay is 0 unless it is given, as in mup and not as in torch.
    """
    return MuAdam(params, impl=AdamW, **kwargs)


def MuSGD(
    params: Iterable[Any],
    impl: Callable[..., Any] = SGD,
    decoupled_wd: bool = False,
    **kwargs: Any,
) -> Any:
    """SGD, or another optimizer that is linear in the gradient, with muP's learning rates.

    Args:
        params: parameters (or groups) of models whose base shapes are set.
        impl: the optimizer.
        decoupled_wd: as for `MuAdam`.
        **kwargs: for ``impl``; ``lr`` and ``weight_decay`` are those at the base.

    Raises:
        ValueError: as for `MuAdam`, for an ``impl`` that normalises the gradient.

    >>> from paramz.compat.mup import set_base_shapes
    >>> model = set_base_shapes(torch.nn.Linear(4, 64), torch.nn.Linear(4, 16))
    >>> MuSGD(model.parameters(), lr=0.1).param_groups[0]["lr"]
    0.4
    """
    family = _family(impl, LINEAR, "sgd", "MuSGD", None)
    scaling = _Scaling(family=family, scales_decay=not decoupled_wd, as_mup=False, eps=None)
    return impl(_split(process_param_groups(params, **kwargs), scaling), **kwargs)


def _family(
    impl: Callable[..., Any], unknown: Family, column: str, name: str, decoupled: bool | None
) -> Family:
    """The family of an optimizer; for one that paramz does not know, the one given.

    Args:
        impl: the optimizer.
        unknown: the family to take if paramz does not know the optimizer.
        column: the column of the tables that the family must have.
        name: of the function that the user called, for the message.
        decoupled: the user's option ``decoupled_weight_decay``.

    Raises:
        ValueError: the optimizer has the rules of another column, or none.
    """
    while isinstance(impl, functools.partial):
        decoupled = impl.keywords.get("decoupled_weight_decay") if decoupled is None else decoupled
        impl = impl.func
    called = getattr(impl, "__name__", type(impl).__name__)
    key = name_of(impl if isinstance(impl, type) else called)
    if key in WITHOUT_RULE:
        raise ValueError(
            f"{name}(impl={called}): there is no rule for {called}: {WITHOUT_RULE[key]}. Groups "
            "for what you know it to do: paramz.plan_of(model).param_groups(model, "
            "paramz.Family(...), lr=...), see docs/own_optimizer.md"
        )
    if key not in FAMILIES:
        return replace(unknown, name=called)
    found = find_family(impl if isinstance(impl, type) else called, decoupled=decoupled)
    if found.column != column:
        verb = "split_groups" if found.column == "muon" else "param_groups"
        other = {"adam": "use MuAdam", "sgd": "use MuSGD"}.get(
            found.column, f"use paramz.plan_of(model).{verb}(model, ...)"
        )
        raise ValueError(f"{name}(impl={called}): {called} has other rules; {other}")
    return found


@dataclass(frozen=True, kw_only=True)
class _Scaling:
    """How the groups of one optimizer are scaled.

    Attributes:
        family: the optimizer's.
        scales_decay: weight decay follows its rule; else it stays as it is.
        as_mup: keep mup's one epsilon and its decay.
        eps: for groups that have none of their own.
    """

    family: Family
    scales_decay: bool
    as_mup: bool
    eps: Any

    def factors(self, row: Row) -> tuple[float, float, float]:
        """What lr, weight decay and epsilon of a tensor are multiplied by."""
        family = self.family
        decay_family = replace(family, decay="decoupled") if self.as_mup else family
        return (
            lr_ratio(RULES, row, family),
            decay_ratio(RULES, row, decay_family) if self.scales_decay else 1.0,
            RULES.rule(row, family).eps(row.ratios),
        )

    def scales_eps(self, eps: Any) -> bool:
        """Whether a group's epsilon follows the size of each gradient."""
        return self.family.column == "adam" and not self.as_mup and isinstance(eps, float | int)


def _split(groups: list[Group], scaling: _Scaling) -> list[Group]:
    """Split each group by the factors of its tensors, in mup's order: matrices first.

    The last group of each is that of tensors which nothing scales; it may be empty, as in mup.
    """
    known: dict[tuple[Any, ...], tuple[float, float, float]] = {}  # most tensors share a few
    found = []
    for group in groups:
        options = {key: value for key, value in group.items() if key != "params"}
        eps = options.get("eps", scaling.eps)
        scales_eps = scaling.scales_eps(eps)
        parts: dict[tuple[Any, ...], list[Any]] = {}
        rest: list[Any] = []
        for entry in group["params"]:
            row = row_of(entry[1] if isinstance(entry, tuple) else entry)
            kind = (row.role, *row.ratios.items())
            if kind not in known:
                known[kind] = scaling.factors(row)
            factors = known[kind] if scales_eps else (*known[kind][:2], 1.0)
            linear = scaling.family.column == "sgd"
            same = not row.growing if linear else factors == (1.0, 1.0, 1.0)
            if row.role != "hidden" and same:
                rest.append(entry)
            else:
                parts.setdefault((row.role != "hidden", *factors), []).append(entry)
        for (_, lr, decay, more), params in sorted(parts.items(), key=lambda part: part[0][0]):
            values = {"lr": options["lr"] * lr, "weight_decay": options["weight_decay"] * decay}
            if scales_eps:
                values["eps"] = eps * more
            found.append({**options, **values, "params": params})
        found.append({**options, "params": rest})
    return found


def _default(impl: Callable[..., Any], option: str) -> Any:
    try:
        return inspect.signature(impl).parameters[option].default
    except (KeyError, TypeError, ValueError):
        return None


def _listed(params: Any) -> list[Any]:
    return [params] if isinstance(params, torch.Tensor) else list(params)
