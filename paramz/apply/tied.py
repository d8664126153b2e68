"""Fold the factors of a tied table: into the table, and into the gain in front of the readout.

An embedding and a readout that share a tensor want different factors, so neither goes into it. But
what goes into the readout comes from a norm with a gain (or a linear map), and a factor c on it is
a factor c on that gain. Which one it is, is measured: its gain is halved, and what reaches the
readout must be halved with it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from paramz.anatomy import names
from paramz.anatomy.embeddings import table_of
from paramz.plan.plan import Plan
from paramz.plan.row import ModuleScale, Row


@dataclass(frozen=True)
class Gain:
    """Parameters that the input of a readout is linear in.

    Attributes:
        module: their module's path.
        parameters: the weight, and the bias if there is one.
        offset: what the module's code adds to its weight: 1 in Gemma's norms.
    """

    module: str
    parameters: tuple[torch.Tensor, ...]
    offset: float = 0.0

    def scale_(self, factor: float) -> None:
        """Multiply the module's output."""
        weight, *bias = self.parameters
        with torch.no_grad():
            weight.add_(self.offset).mul_(factor).sub_(self.offset)
            for each in bias:
                each.mul_(factor)


@dataclass(frozen=True)
class TiedFold:
    """What becomes of the factors of one tied table.

    Attributes:
        table: the tensor that the embedding and the readout share.
        onto_table: the embedding's factor.
        gain: what the readout's factor goes into.
        onto_gain: the readout's factor, over that of the table.
        paths: modules whose multipliers this takes care of.
        scales: the same of scales on embeddings.
    """

    table: torch.Tensor
    onto_table: float
    gain: Gain
    onto_gain: float
    paths: tuple[str, ...]
    scales: tuple[ModuleScale, ...]

    def apply_(self) -> None:
        """Fold."""
        with torch.no_grad():
            self.table.mul_(self.onto_table)
        self.gain.scale_(self.onto_gain)


def tied_folds(model: nn.Module, plan: Plan, example: Any = None) -> list[TiedFold]:
    """The folds of all tied tables that have factors; the model stays as it is.

    Args:
        model: the model, under the plan.
        plan: the plan.
        example: what to call the model with, or None for a few token ids.

    Raises:
        ValueError: there is nothing to fold a factor into.
    """
    found = []
    for row in plan.rows:
        if row.readouts:
            table = model.get_parameter(row.name)
            scales = tuple(s for s in plan.attention if _scaled_table(model, s) is table)
            changed = tuple(scale for scale in scales if scale.value != scale.plain)
            uses = [name.rpartition(".")[0] for name in (row.name, *row.aliases)]
            paths = tuple(path for path in uses if path in plan.multipliers)
            if paths or changed:
                found.append(_fold(model, plan, row, paths, changed, example))
    return found


def _fold(
    model: nn.Module,
    plan: Plan,
    row: Row,
    paths: tuple[str, ...],
    scales: tuple[ModuleScale, ...],
    example: Any,
) -> TiedFold:
    readout = row.readouts[0]
    factor = plan.multipliers.get(readout, 1.0)
    tables = {plan.multipliers[path] for path in paths if path not in row.readouts}
    tables |= {scale.value / scale.plain for scale in scales}
    gain = None
    if len(row.readouts) == 1 and len(tables) <= 1:
        gain = _find_gain(model, readout, example)
    if gain is None:
        raise ValueError(
            f"{readout} shares {row.name} {row.shape} with the embedding and multiplies its input "
            f"by {factor:.4g}, and paramz finds no norm with a gain (or linear map) right in front "
            "of it that could take the factor up. If the model cannot be called with a few token "
            "ids, pass fold_(model, example=a batch). Else give the readout its own copy of the "
            "weight before folding, or keep the hook: no plain tied model computes this."
        )
    onto_table = tables.pop() if tables else 1.0
    table = model.get_parameter(row.name)
    return TiedFold(table, onto_table, gain, factor / onto_table, paths, scales)


def _scaled_table(model: nn.Module, scale: ModuleScale) -> torch.Tensor | None:
    """The table that a scale on embeddings multiplies."""
    if scale.kind != "embedding" and scale.attribute != names.EMBED_SCALE:
        return None
    found = table_of(model.get_submodule(scale.module))
    return None if found is None else found.weight


def _find_gain(model: nn.Module, readout: str, example: Any) -> Gain | None:
    """The gain in front of a readout, found by halving it; None if there is none."""
    try:
        calls, before = _called(model, readout, example)
    except Exception:  # whatever a model raises that wants other inputs
        return None
    owners = [id(p) for m in model.modules() for p in m._parameters.values() if p is not None]
    for path in reversed(calls):
        module = model.get_submodule(path)
        own = [module._parameters.get(local) for local in ("weight", "bias")]
        parameters = tuple(p for p in own if p is not None)
        if not parameters or own[0] is None or any(owners.count(id(p)) > 1 for p in parameters):
            return None  # what comes before is not linear in anything of its own
        kept = [p.detach().clone() for p in parameters]
        for offset in (0.0, 1.0):
            gain = Gain(path, parameters, offset)
            gain.scale_(0.5)
            _, after = _called(model, readout, example)
            with torch.no_grad():
                for parameter, value in zip(parameters, kept, strict=True):
                    parameter.copy_(value)
            exact = 1e-5 if before.dtype in (torch.float32, torch.float64) else 2e-2
            if torch.allclose(
                after, 0.5 * before, rtol=exact, atol=exact * float(before.abs().max())
            ):
                return gain
        return None
    return None


def _called(model: nn.Module, readout: str, example: Any) -> tuple[list[str], torch.Tensor]:
    """The modules with parameters that run before a readout, in order, and what goes into it."""
    order: list[str] = []
    seen: list[torch.Tensor] = []
    handles = []
    head = model.get_submodule(readout)
    training = model.training
    for path, module in model.named_modules():
        if module is not head and module._parameters:
            handles.append(
                module.register_forward_hook(
                    lambda *_, path=path: None if seen else order.append(path)
                )
            )
    handles.append(
        head.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()), prepend=True)
    )
    try:
        model.eval()
        with torch.no_grad():
            _call(model, example)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return order, seen[0]


def _call(model: nn.Module, example: Any) -> None:
    """Call a model with a batch or its inputs, or with a few token ids."""
    if example is None:
        device = next(model.parameters()).device
        # transformers' models say what they can be called with.
        dummy = getattr(model, "dummy_inputs", torch.arange(4)[None])
        example = copy.copy(dummy)
        if isinstance(example, Mapping):
            example = {key: value.to(device) for key, value in example.items()}
        else:
            example = example.to(device)
    if isinstance(example, Mapping):
        model(**example)
    elif isinstance(example, tuple | list):
        model(example[0])
    else:
        model(example)
