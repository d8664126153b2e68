"""The batch of a coordinate check: what makes right plans look wrong, and how much is enough."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from paramz.apply.task import Task, default_loss

# A mean over n targets is off by 1/sqrt(n), here by 18 % at most.
FEW = 32

# More targets than these tell no more: what is left is the noise of the initial weights.
ENOUGH = 256
_LEAST_ROWS = 4

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


def batch_of(task: Task, *, experts: bool = False) -> Any:
    """The batch that a task's models are checked on: `thinned`, unless all of it may be needed.

    Args:
        task: a loss of its own may take rows together, as a contrastive one does.
        experts: the check is over experts, of which each should get tokens.
    """
    batch = task.batch(0)
    return batch if experts or task.loss is not default_loss else thinned(batch)


def thinned(batch: Any) -> Any:
    """Rows with about 256 targets of a larger batch, drawn at random but always the same.

    On the byte-level GPT from width 64 to 512 a slope is known to +-0.055 from 1024 targets and to
    +-0.052 from 256, with two seeds each. More seeds narrow that, more targets do not.

    Args:
        batch: a pair of inputs and targets, or a mapping with targets. Where not all of it is
            tensors with as many rows, it is left as it is.

    >>> x, y = thinned((torch.randn(1024, 4), torch.arange(1024) % 3))
    >>> x.shape, y.unique()
    (torch.Size([256, 4]), tensor([0, 1, 2]))
    """
    number = _targets(batch)
    values = list(batch.values()) if isinstance(batch, Mapping) else batch
    if not number or not all(isinstance(value, torch.Tensor) and value.dim() for value in values):
        return batch
    whole = len(values[0])
    rows = max(_LEAST_ROWS, math.ceil(whole * ENOUGH / number))
    if whole < 2 * rows or any(len(value) != whole for value in values):
        return batch
    if len({value.shape[:2] == (whole, whole) for value in values}) > 1:
        return batch  # such as which nodes of a graph are neighbours
    # Not every k-th: batches may be in an order of their own, such as classes by turns.
    drawn = torch.randperm(whole, generator=torch.Generator().manual_seed(0))[:rows].sort().values
    if isinstance(batch, Mapping):
        return {name: value[drawn.to(value.device)] for name, value in batch.items()}
    return tuple(value[drawn.to(value.device)] for value in batch)


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
