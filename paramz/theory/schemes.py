"""Every parametrization by name: what it has rules for, what it multiplies with, how sure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from paramz.theory.tables import PARAMETRIZATIONS

_WHOLE = "alone, or times schemes for depth and experts"

# What it is used with, and how far it was measured here (docs/evidence.md has the numbers).
_KNOWN: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "sp": (_WHOLE, "for comparison: fails the coordinate check, its best lr moves"),
        "ntp": (_WHOLE, "for comparison: no table of trials"),
        "mup": (_WHOLE, "coordinate checks pass; best lr stays from width 64 on (AdamW)"),
        "mean-field": (_WHOLE, "equal to mup to rounding"),
        "depth-mup": (
            "times a width scheme",
            "checks pass under SGD, undecided under AdamW; best lr moves by +0.15 octave",
        ),
        "completep": (
            "times a width scheme",
            "checks pass; best lr stays over 2 to 32 blocks (AdamW, width 64)",
        ),
        "moe": (
            "times a width scheme",
            "checks pass at a fixed share of active experts, and best lr stays from 8 to 64 "
            "(AdamW, width 64); at a fixed number under AdamW with a teacher's labels (undecided "
            "with random ones), not under SGD",
        ),
        "moe-readout-router": (
            "times a width scheme, in place of moe",
            "another policy: best lr as under moe, checks of thin experts undecided",
        ),
        "moe-bottleneck": (
            "times a width scheme, in place of moe, for experts of a fixed size",
            "another policy: a layer of experts puts out as much at init in wider models",
        ),
        "bottleneck-hidden": ("times mup", "another policy: checks of Llama and Qwen3 fail"),
        "bottleneck-readout": ("times mup", "another policy: checks of latents fail"),
        "embed": (
            "times sp",
            "published ablation; here best lr moves by -0.79, as under sp, and loss gains",
        ),
        "full-align": ("times sp", "published, not measured here"),
        "no-align": ("times sp", "published, not measured here"),
        "large-vocab": ("times mup", "published; here best lr moves by -0.16, and loss is worse"),
        "lora": (
            "alone, or times a width scheme, on models with adapters",
            "checks pass where A starts at random; best lr then stays on a small network, and on a "
            "GPT rises by 0.07 to 0.28",
        ),
        "rslora": (
            "alone, or times a width scheme, on models with adapters, in place of lora",
            "best lr stays on a GPT where A starts at random (LoRA +0.03, MoS +0.04; ShareLoRA "
            "+0.04, open), and falls where B does (-0.20); other kinds not measured",
        ),
        "s-mup": (
            "times a width scheme, on models with static masks",
            "checks pass under SGD and AdamW; best lr stays from density 1 to 1/8",
        ),
        "u-mup": (
            "alone, without a base",
            "beta: no layers for experts; embedding moves as published",
        ),
    }
)


@dataclass(frozen=True)
class Scheme:
    """A parametrization as a reader chooses it.

    Attributes:
        name: as `parametrize_` takes it; names multiply with ``+``.
        axes: the sizes that may differ from the base: width, depth, runs of a block (loops),
            experts, rank, density.
        use: what it is used with.
        optimizers: the columns of its table.
        status: how far it was measured here.
        source: papers and tables.
    """

    name: str
    axes: tuple[str, ...]
    use: str
    optimizers: tuple[str, ...]
    status: str
    source: str


class Schemes(tuple[Scheme, ...]):
    """Schemes in the order of their tables; they print as a table."""

    def __repr__(self) -> str:
        cells = [(each.name, ", ".join(each.axes), each.use, each.status) for each in self]
        wide = [max(len(row[i]) for row in cells) for i in range(3)] if cells else []
        lines = [
            "  ".join([*(c.ljust(w) for c, w in zip(row, wide, strict=False)), row[3]])
            for row in cells
        ]
        return "\n".join(lines)


def schemes() -> Schemes:
    """Every named parametrization, in the order of the tables.

    >>> [scheme.axes for scheme in schemes() if scheme.name in ("mup", "completep")]
    [('width',), ('depth', 'loops')]
    >>> print(str(schemes()).splitlines()[0])
    sp  ...
    """
    found = []
    for name, table in PARAMETRIZATIONS.items():
        scales = table.scales
        axes = ["width"] if scales & {"fan_in", "fan_out"} else []
        axes += [
            scale for scale in ("depth", "loops", "experts", "rank", "density") if scale in scales
        ]
        use, status = _KNOWN[name]
        found.append(Scheme(name, tuple(axes), use, table.columns, status, table.source))
    return Schemes(found)
