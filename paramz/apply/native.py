"""The law of a model's own init over width and depth, recognised by what is measured.

Libraries differ in it (torch 1/sqrt(fan_in), Hugging Face none, GPT-2 with depth, too). Known laws
are exact, a measured ratio of two stds is as exact as its tensors are large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from paramz.anatomy.paths import pattern, split
from paramz.anatomy.tensors import module_at
from paramz.apply.measured import measure_init
from paramz.plan.row import Init, Row

_SMALL = 1024  # entries of the base, from which on a tensor tells its law by itself


def init_factor(
    row: Row,
    wanted: float,
    base: Init,
    target: Init,
    known: float | None,
    parameter: torch.Tensor,
    blocks: tuple[Init, Init] | None = None,
) -> float:
    """What to multiply the target's fresh init by, so that its std is ``wanted`` times the base's.

    Args:
        row: the tensor's shapes and ratios.
        wanted: the rule's power at the target's ratios (std target / std base).
        base: the base tensor's init, measured.
        target: the target tensor's own init, measured, if not exactly.
        known: std target / std base of the model's own init, where `torch_law` knows it.
        parameter: the target tensor, measured exactly if no law tells that ratio.
        blocks: base and target, measured over this tensor in all blocks, where it is too small to
            tell its law by itself.

    Returns:
        exactly 1.0 when the target already follows the rule, within what its size can tell.
    """
    if base.kind == "constant" or target.kind == "constant":
        return 1.0
    native = known
    for measured in ((blocks,) if blocks else ()) + ((base, target),):
        native = _nearest_law(row, wanted, *measured) if native is None else native
    if native is None:
        native = _ratio(base, measure_init(parameter))
    factor = wanted / native
    return 1.0 if math.isclose(factor, 1.0, rel_tol=1e-12) else factor


def _ratio(base: Init, target: Init) -> float:
    """Std target / std base, as measured.

    The largest of many uniform draws tells their range far better than their std does.
    """
    if base.kind == target.kind == "uniform":
        return target.bound / base.bound
    return target.std / base.std


def _nearest_law(row: Row, wanted: float, base: Init, target: Init) -> float | None:
    """The usual law that fits the measured ratio best; None if none fits at all."""
    laws = [wanted, 1.0]
    laws += [row.ratios[scale] ** -0.5 for scale in ("fan_in", "fan_out") if scale in row.ratios]
    if base.kind == target.kind == "uniform":
        error = 10 / base.size + 10 / target.size
        if len(row.shape) > 1:
            laws.append(math.sqrt(sum(row.base_shape[:2]) / sum(row.shape[:2])))  # Glorot
    else:
        error = 4.0 * math.sqrt(0.5 / base.size + 0.5 / target.size)
    if "rank" in row.ratios:  # PEFT draws A at 1 / rank or regardless of it, torch B at rank^-1/2
        laws += [law * row.ratios["rank"] ** p for law in laws[1:] for p in (-0.5, -1.0)]
    if "depth" in row.ratios:  # GPT-2 and its heirs start the end of a branch at std / sqrt(2 L)
        laws += [law * row.ratios["depth"] ** -0.5 for law in laws[1:]]
    measured = _ratio(base, target)
    nearest = min(laws, key=lambda law: abs(math.log(measured / law)))
    return nearest if abs(math.log(measured / nearest)) < error else None


def falls_with_depth(row: Row, native: float) -> bool:
    """Whether a model's own init, std target / std base, falls like depth^-1/2, as 1/sqrt(2L) does.

    Args:
        row: the tensor's ratios.
        native: a law that was recognised.
    """
    fall = row.ratios.get("depth", 1.0) ** -0.5
    laws = [1.0, *(row.ratios[s] ** -0.5 for s in ("fan_in", "fan_out") if s in row.ratios)]
    return (
        fall != 1.0
        and any(math.isclose(native, law * fall, rel_tol=1e-6) for law in laws)
        and not any(math.isclose(native, law, rel_tol=1e-6) for law in laws)
    )


def over_blocks(
    rows: Iterable[Row], measured: Callable[[Row], tuple[Init, Init]]
) -> dict[str, tuple[Init, Init]]:
    """Base and target measured over all blocks at once, by the name of each tensor that is small.

    A 2x2 matrix of a base tells its law of init to a factor of four, the same of eight blocks to a
    factor of 1.7. One by one, half of them would get one law and half another. Tensors of which one
    was not drawn like the others are left to themselves, as the first and the last map of
    ``nn.Sequential`` are, where code starts the last smaller.

    Args:
        rows: of the plan.
        measured: what measures a row's tensor, in the base and here.
    """
    alike: dict[object, list[Row]] = {}
    for row in rows:
        if math.prod(row.base_shape) <= _SMALL:
            kind = (pattern(row.name), row.shape, row.base_shape, tuple(row.ratios.items()))
            alike.setdefault(kind, []).append(row)
    out: dict[str, tuple[Init, Init]] = {}
    for some in (some for some in alike.values() if len(some) > 1):
        base, target = zip(*map(measured, some), strict=True)
        if _drawn_alike(base) and _drawn_alike(target):
            out |= dict.fromkeys((row.name for row in some), (_pooled(base), _pooled(target)))
    return out


def _drawn_alike(inits: Sequence[Init]) -> bool:
    """Whether the stds of tensors differ by no more than those of draws of their sizes do.

    The cube root of a mean of n squares of normal draws, over their variance, is nearly normal with
    mean 1 - 2/(9 n) and variance 2/(9 n) (Wilson & Hilferty 1931).
    """
    if "constant" in {init.kind for init in inits}:
        return False
    std = _pooled(inits).std
    spreads = ((2 / (9 * init.size), (init.std / std) ** (2 / 3)) for init in inits)
    return all(abs(root - (1 - spread)) < 4 * math.sqrt(spread) for spread, root in spreads)


def _pooled(inits: Sequence[Init]) -> Init:
    size = sum(init.size for init in inits)
    std = math.sqrt(math.fsum(init.size * init.std**2 for init in inits) / size)
    bound = max(init.bound for init in inits)
    if all(init.kind == "uniform" for init in inits):
        return Init("uniform", std, 0.0, size, bound)
    return Init("normal", std, 0.0, size, bound)


def torch_law(
    base_name: str,
    base: nn.Module,
    base_init: Init,
    name: str,
    target: nn.Module,
    target_init: Init,
) -> float | None:
    """Std target / std base, if both tensors look like torch's default for their layer, else None.

    torch draws weight and bias of linear and conv layers from U(-1/sqrt(fan_in), 1/sqrt(fan_in)) of
    the weight. The largest of n draws almost always lies within 10/n of that bound (all but e^-10
    of the time), so it tells the law where the measured std of a small readout or bias could not.
    Embeddings are N(0, 1).
    """
    fan_ins = []
    for full, model, init in ((base_name, base, base_init), (name, target, target_init)):
        path, local = split(full)
        module = module_at(model, path)
        if isinstance(module, nn.Embedding) and init.kind == "normal":
            if abs(init.std - 1) > 4 * math.sqrt(0.5 / init.size):
                return None
            fan_ins.append(1)
            continue
        if local not in ("weight", "bias") or not isinstance(
            module, nn.Linear | nn.modules.conv._ConvNd
        ):
            return None
        fan_in, _ = nn.init._calculate_fan_in_and_fan_out(module.weight)
        reached = init.bound * math.sqrt(fan_in)
        if init.kind == "constant" or not 1 - 10 / init.size <= reached <= 1 + 1e-6:
            return None
        fan_ins.append(fan_in)
    return math.sqrt(fan_ins[0] / fan_ins[1])
