"""What about a batch makes the coordinate check of a right plan look wrong, seen beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

# A mean over n targets is off by 1/sqrt(n), here by 18 % at most.
FEW = 32

_IGNORED = -100  # torch's and Hugging Face's index of targets without a loss
_TARGETS = ("labels", "label", "targets", "target", "y")
_NO_TOKENS = ("mask", "position", "label", "target", "type")


def concerns(batch: Any) -> list[str]:
    """One sentence for each reason to distrust a check on a batch; none for a good one.

    >>> concerns((torch.randn(64, 4), torch.arange(64) % 3))
    []
    >>> concerns((torch.randn(8, 4), torch.arange(8) % 3))[0]
    'the loss is a mean over 8 targets ...
    """
    found = []
    number = _targets(batch)
    if number is not None and number < FEW:
        found.append(
            f"the loss is a mean over {number} targets only: its gradient is off by "
            f"1/sqrt({number}) = {100 / math.sqrt(max(number, 1)):.0f} %, so a right plan may look "
            f"wrong or stay undecided; give a batch of {FEW} or more"
        )
    for name, ids in _tokens(batch):
        if (seen := _random(ids)) is not None:
            found.append(
                f"the token ids in {name} look drawn at random ({seen}): they share nothing that "
                "could be learned, so gradients average out differently at each width, and a right "
                "plan may look wrong; give a batch of real data"
            )
    return found


def _targets(batch: Any) -> int | None:
    """How many targets the loss is a mean over, as far as the batch shows it."""
    y = None
    if isinstance(batch, Mapping):
        y = next((batch[name] for name in _TARGETS if name in batch), None)
    elif isinstance(batch, tuple | list) and len(batch) == 2:
        y = batch[1]
    if not isinstance(y, torch.Tensor) or not y.dim():
        return None
    return len(y) if y.is_floating_point() else int((y != _IGNORED).sum())


def _tokens(batch: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of the batch that may hold token ids, with what to call them."""
    if isinstance(batch, Mapping):
        named = [
            (f"{k!r}", v) for k, v in batch.items() if not any(n in str(k) for n in _NO_TOKENS)
        ]
    elif isinstance(batch, tuple | list) and batch:
        named = [("the inputs", batch[0])]
    else:
        named = []
    for name, value in named:
        if isinstance(value, torch.Tensor) and value.dtype in (torch.int64, torch.int32):
            yield name, value


def _random(ids: torch.Tensor) -> str | None:
    """How many ids are equal, if neither they nor neighbours recur more than by chance; else None.

    In text some tokens are frequent, and in a sequence with a rule some follow each other.
    """
    number, span = ids.numel(), int(ids.max() - ids.min()) + 1 if ids.numel() else 0
    if number < 64 or span < 16 or ids.dim() < 2:
        return None
    ids = ids.reshape(-1, ids.shape[-1]).long() - ids.min()
    equal, chance = _pairs(ids, span)
    follow, chance_of_two = _pairs(ids[:, :-1] * span + ids[:, 1:], span**2)
    if _beyond(equal, chance) or _beyond(follow, chance_of_two):
        return None
    return f"{equal} pairs of {number} are equal, by chance it would be {chance:.0f}"


def _pairs(values: torch.Tensor, span: int) -> tuple[int, float]:
    """Pairs of equal values, and how many uniform draws from ``span`` values have on average."""
    _, counts = torch.unique(values, return_counts=True)
    number = values.numel()
    return int((counts * (counts - 1)).sum()) // 2, number * (number - 1) / 2 / span


def _beyond(equal: int, chance: float) -> bool:
    return equal > chance + 4 * math.sqrt(chance) + 4
