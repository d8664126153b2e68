"""Balance experts by a bias on their scores, without an auxiliary loss.

DeepSeek-V3 and its heirs add a bias to every expert's score, for the choice of experts only. No
gradient reaches it: after each step it moves by a constant towards experts with too few tokens
(Wang et al. 2024, arXiv 2408.15664).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from paramz.anatomy import names
from paramz.anatomy.moe import find_balances
from paramz.anatomy.paths import join


@contextmanager
def counting(model: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Count the tokens that every expert gets, over all forward passes inside.

    Args:
        model: the model. Its routers return the chosen experts, integers of shape (tokens, top_k),
            alone or in a tuple, as those of Hugging Face's DeepSeek-V3 do.

    Yields:
        path of a layer that has a bias -> its loads, integers of shape (experts,). Sum them over
        processes and micro-batches before `balance_`.

    Raises:
        ValueError: no layer of the model has a bias on scores, or a router returns no choice.
    """
    loads = {
        path: torch.zeros(bias.numel(), dtype=torch.int64, device=bias.device)
        for path, bias in _biases(model).items()
    }
    hooks = [
        child.register_forward_hook(partial(_count, loads, path, join(path, name)))
        for path in loads
        for name, child in model.get_submodule(path).named_children()
        if name in names.ROUTERS
    ]
    try:
        yield loads
    finally:
        for hook in hooks:
            hook.remove()


def _count(
    loads: Mapping[str, torch.Tensor],
    path: str,
    shown: str,
    router: nn.Module,
    inputs: Any,
    output: Any,
) -> None:
    parts = output if isinstance(output, tuple | list) else (output,)
    chosen = [p for p in parts if isinstance(p, torch.Tensor) and p.dtype == torch.int64]
    if len(chosen) != 1:
        raise ValueError(
            f"{shown} ({type(router).__name__}) returns {len(chosen)} tensors of integers, so "
            "which experts were chosen is not known: count the tokens of each, and call "
            f"paramz.moe.balance_(model, {{{path!r}: loads}}, rate=...)"
        )
    loads[path].add_(torch.bincount(chosen[0].flatten(), minlength=len(loads[path])))


def _biases(model: nn.Module) -> dict[str, torch.Tensor]:
    found = find_balances(model)
    if not found:
        raise ValueError(
            f"this {type(model).__name__} has no biases on the scores of experts that paramz knows "
            f"(buffers or parameters {' or '.join(names.EXPERT_BALANCES)}, in a layer with experts)"
        )
    return found


@torch.no_grad()
def balance_(
    model: nn.Module, loads: Mapping[str, torch.Tensor], *, rate: float = 1e-3
) -> dict[str, float]:
    """Move the biases after a step of training: b += rate * sign(mean load - load).

    The rate needs no rule over the number of experts or active ones: scores are sigmoids whose
    spread does not move with it, and the best rate moves like (experts / (top_k tokens))^(1/6), if
    at all (docs/balancing.md derives and measures it).

    Args:
        model: the model.
        loads: of the step, by the path of the layer, as `counting` counts them.
        rate: of a score, per step; 0.001 is DeepSeek-V3's.

    Returns:
        maximum load over mean load of every layer, before the move.

    Raises:
        ValueError: a layer has no bias, or loads of another number of experts or all zero; or the
            bias is in so low a precision that the move would be rounded away. No bias has moved.

    >>> layer = nn.Module()
    >>> layer.experts = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    >>> layer.expert_bias = nn.Buffer(torch.zeros(2))
    >>> balance_(layer, {"": torch.tensor([3, 1])}, rate=0.5), layer.expert_bias.tolist()
    ({'': 1.5}, [-0.5, 0.5])
    """
    biases = _biases(model)
    for path, load in loads.items():
        bias = biases.get(path)
        if bias is None:
            raise ValueError(f"{path!r} has no bias on scores; there are {', '.join(biases)}")
        if load.numel() != bias.numel() or not bool(load.any()):
            raise ValueError(
                f"{path or 'the model'}: loads {tuple(load.shape)} with a sum of "
                f"{float(load.sum()):g}, for {bias.numel()} experts: run the model inside "
                "paramz.moe.counting first"
            )
    moved, found = {}, {}
    for path, load in loads.items():
        mean = load.double().mean()
        bias = biases[path]
        wanted = rate * torch.sign(mean - load).to(bias.device).view_as(bias)
        moved[path] = (bias + wanted).to(bias.dtype)
        if bool(((moved[path] - bias.double() - wanted).abs() > rate / 2).any()):
            raise ValueError(
                f"{path or 'the model'}: its bias is {bias.dtype}, which rounds moves of {rate:g} "
                f"from {float(bias.abs().max()):.3g} to nothing or to twice as much. Keep it in "
                "float32 where the model is cast: bias.data = bias.data.float()"
            )
        found[path] = float(load.max() / mean)
    for path, values in moved.items():
        biases[path].copy_(values)
    return found
