"""The answer in plain words: which value to use, for what, and where that was found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from paramz.analysis.columns import numbers

# How the columns of the two settings are called that a best value holds for.
STEPS = ("steps", "train_steps", "max_steps", "num_steps")
BATCHES = ("batch_size", "batch", "global_batch_size", "train_batch_size")
# And those of the two sizes of which one may grow along with the other.
_WIDTHS = ("width", "d_model", "hidden_size", "n_embd")
_DEPTHS = ("depth", "layers", "n_layer", "n_layers", "num_layers", "num_hidden_layers")


@dataclass(frozen=True)
class Answer:
    """The value of a hyperparameter to use.

    Attributes:
        hp: name of the hyperparameter.
        value: the value; the last of the grid where the loss still falls there.
        lo: lower end of its 95 % interval; 0 where the grid ends before the loss rises.
        hi: upper end; inf likewise.
        scale: name of the scale.
        use_at: the scale that it is for.
        and_above: whether larger scales may use it, too.
        tuned_at: the scales whose runs it comes from.
        steps: the number of training steps of those runs; None where it is not known or not one.
        batch: their batch size, likewise.
    """

    hp: str
    value: float
    lo: float
    hi: float
    scale: str
    use_at: float
    and_above: bool
    tuned_at: tuple[float, ...]
    steps: float | None = None
    batch: float | None = None

    @property
    def sentence(self) -> str:
        """The answer as a sentence.

        >>> Answer("lr", 0.03, 0.022, 0.041, "width", 512, True, (64, 128, 512), 300, 32).sentence
        'Use lr = 0.030 (0.022 to 0.041) at width 512 and above, tuned at width 64 to 512 with
        300 steps of batch 32.'
        """
        return f"Use {self.what}."

    @property
    def what(self) -> str:
        """What to use: the sentence without its first word and its full stop."""
        above = " and above" if self.and_above else ""
        first, last = self.tuned_at[0], self.tuned_at[-1]
        tuned = f"{first:g}" if first == last else f"{first:g} to {last:g}"
        return (
            f"{self.hp} {self._value()} at {self.scale} {self.use_at:g}{above}, tuned at "
            f"{self.scale} {tuned}{self._settings()}"
        )

    def _value(self) -> str:
        value = _digits(self.value)
        if self.lo > 0 and math.isfinite(self.hi):
            return f"= {value} ({_digits(self.lo)} to {_digits(self.hi)})"
        if self.lo > 0:
            return f"= {value} ({_digits(self.lo)} or more: the grid ends before the loss rises)"
        if math.isfinite(self.hi):
            return f"= {value} ({_digits(self.hi)} or less: the grid ends before the loss rises)"
        return f"= {value} (a guess: the grid ends on both sides before the loss rises)"

    def _settings(self) -> str:
        if self.steps is not None and self.batch is not None:
            return f" with {self.steps:g} steps of batch {self.batch:g}"
        if self.steps is not None:
            return f" with {self.steps:g} steps"
        return f" with batch {self.batch:g}" if self.batch is not None else ""

    def to_json(self) -> dict[str, Any]:
        """The fields and the sentence, with None for what is not finite."""
        fields = asdict(self) | {"sentence": self.sentence}
        fields["tuned_at"] = list(self.tuned_at)
        return {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in fields.items()
        }


def setting(df: pd.DataFrame, names: tuple[str, ...]) -> float | None:
    """The value of the first of these columns that the table has, if all rows agree."""
    for name in names:
        if name in df.columns:
            try:
                values = set(numbers(df, name))
            except ValueError:
                return None
            value = values.pop()
            return float(value) if not values and math.isfinite(value) else None
    return None


def mixed_in(df: pd.DataFrame, scale: str) -> list[str]:
    """In what else than a scale rows differ that moves the best value, and by how much.

    That is steps and batch, depth where the scale is a width, and width where it is a depth. Of
    another scale, such as parameters, both are parts.

    >>> mixed_in(pd.DataFrame({"width": [64, 128], "depth": [2, 4], "batch": 8}), "width")
    ['depth (2 to 4)']
    """
    sizes = [b for a, b in ((_WIDTHS, _DEPTHS), (_DEPTHS, _WIDTHS)) if scale in a]
    return [text for names in (STEPS, BATCHES, *sizes) if (text := differing(df, names))]


def differing(df: pd.DataFrame, names: tuple[str, ...]) -> str:
    """In which of these columns rows differ and by how much; empty where they agree or have none.

    >>> differing(pd.DataFrame({"steps": [100, 400, None]}), STEPS)
    'steps (100 to 400)'
    """
    for name in names:
        if name in df.columns:
            try:
                values = numbers(df, name)
            except ValueError:
                return ""
            values = values[np.isfinite(values)]
            if not len(values) or values.min() == values.max():
                return ""
            return f"{name} ({values.min():g} to {values.max():g})"
    return ""


def _digits(value: float) -> str:
    """Two significant digits, zeros kept.

    >>> _digits(0.03), _digits(0.00035), _digits(12.3), _digits(345.6), _digits(2e-7)
    ('0.030', '0.00035', '12', '346', '2.0e-07')
    """
    if value >= 100:
        return f"{value:.0f}" if value < 1e5 else f"{value:.1e}"
    return f"{value:#.2g}".rstrip(".")
