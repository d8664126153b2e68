"""What is asked: the run to decide, and what may be spent on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

# Names of a target, and the config leaf that each stands for.
_SIZES = ("width", "depth")
_NAMES = (*_SIZES, "steps", "batch_size", "tokens")
# Config leaves that say how many tokens one example has.
_LENGTHS = ("context", "context_length", "block_size", "seq_len", "sequence_length", "max_seq_len")

_SECONDS = {"hour": 3600.0, "minute": 60.0, "second": 1.0}
_BUDGET = re.compile(r"\s*([0-9.eE+-]+)\s*(?:(cpu|gpu)[- ]?)?(hour|minute|second)s?\s*")


@dataclass(frozen=True)
class Target:
    """The run that is to be decided.

    Attributes:
        width: of the model.
        depth: number of blocks; None where it is that of the config.
        steps: number of training steps; None where it is that of the config.
        batch_size: None where it is that of the config.
        tokens: tokens to train on, in place of steps.
    """

    width: int
    depth: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    tokens: float | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """The target in a text.

        Raises:
            ValueError: it has another form; the message says what it may hold.

        >>> Target.parse("width=4096,tokens=20e9")
        Target(width=4096, depth=None, steps=None, batch_size=None, tokens=20000000000.0)
        """
        found: dict[str, float] = {}
        for pair in text.split(","):
            name, _, number = (part.strip() for part in pair.partition("="))
            name = {"batch": "batch_size"}.get(name, name)
            try:
                size = float(number)
            except ValueError:
                size = -1.0
            if name not in _NAMES or not 0 < size < float("inf"):
                raise ValueError(
                    f"--target {text}: {pair.strip()!r} is none of {', '.join(_NAMES)} with a "
                    "number above zero; write width=4096,tokens=20e9"
                )
            if name in found:
                raise ValueError(f"--target {text}: {name} is given twice")
            if name != "tokens" and not size.is_integer():
                raise ValueError(f"--target {text}: {name} is a whole number")
            found[name] = size
        if "width" not in found:
            raise ValueError(
                f"--target {text}: width is missing, which the smaller models are made by; write "
                "width=4096"
            )
        if "tokens" in found and "steps" in found:
            raise ValueError(
                f"--target {text}: give tokens or steps; one follows from the other, the batch "
                "size and the context"
            )
        whole = {name: int(size) for name, size in found.items() if name != "tokens"}
        return cls(**whole, tokens=found.get("tokens"))

    @property
    def text(self) -> str:
        """The target as `parse` reads it."""
        given = ((name, getattr(self, name)) for name in _NAMES)
        return ",".join(f"{name}={_exact(size)}" for name, size in given if size is not None)


def _exact(size: float) -> str:
    """A number with all its digits, short where it has few.

    >>> _exact(1048576), _exact(2e10)
    ('1048576', '2e+10')
    """
    short = f"{size:g}"
    return short if isinstance(size, float) and float(short) == size else f"{size!r}"


@dataclass(frozen=True)
class Budget:
    """What tuning may use.

    Attributes:
        seconds: so many.
        of: of what: a CPU, a GPU, or of the clock on the wall.
    """

    seconds: float
    of: Literal["cpu", "gpu", "wall"]

    @classmethod
    def parse(cls, text: str) -> Budget:
        """The budget in a text.

        Raises:
            ValueError: it has another form.

        >>> Budget.parse("8gpu-hours"), Budget.parse("10 minutes")
        (Budget(seconds=28800.0, of='gpu'), Budget(seconds=600.0, of='wall'))
        """
        match = _BUDGET.fullmatch(text)
        try:
            amount = float(match[1]) if match else 0.0
        except ValueError:
            amount = 0.0
        if not match or not 0 < amount < float("inf"):
            raise ValueError(
                f"--budget {text}: write a number and hours or minutes of a GPU, of a CPU or of "
                "the clock, such as 8gpu-hours, 10cpu-minutes or 2hours"
            )
        return cls(amount * _SECONDS[match[3]], match[2] or "wall")  # type: ignore[arg-type]

    def trial_seconds(self, cpus: int, gpus: float, at_once: int) -> float:
        """For how many seconds of trials it pays, one after the other.

        >>> Budget.parse("1cpu-hour").trial_seconds(cpus=4, gpus=0, at_once=2)
        900.0
        """
        share = {"cpu": float(cpus), "gpu": gpus or 1.0, "wall": 1.0 / at_once}[self.of]
        return self.seconds / share

    def say(self, seconds: float) -> str:
        """Seconds in its unit, for people.

        >>> Budget.parse("8gpu-hours").say(5400)
        '1.5 GPU-hours'
        """
        unit = {"cpu": "CPU-", "gpu": "GPU-", "wall": ""}[self.of]
        for name in ("hour", "minute"):
            if seconds >= _SECONDS[name]:
                return f"{seconds / _SECONDS[name]:.3g} {unit}{name}s"
        return f"{seconds:.2g} {unit}seconds"


def tokens_per_step(config: Mapping[str, Any], seen: int | None) -> tuple[float | None, str]:
    """How many tokens a step takes by the config, and where that is from.

    Args:
        config: the config.
        seen: how many targets a batch of the task holds; None where no task is at hand.
    """
    if seen is not None:
        return float(seen), "counted in a batch of the task"
    batch = config.get("batch_size")
    for name in _LENGTHS:
        if name in config and batch is not None:
            return float(batch * config[name]), f"batch_size x {name}"
    return None, ""
