"""Sizes of a Hugging Face model that its own code rounds, so that they do not follow the width.

LFM2 makes its feed-forward a multiple of 256, Mamba the rank of its steps a whole number. The
config moves in proportion, and what is built of it does not.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache
from typing import Any

from torch import nn

from paramz.anatomy.hf_sizes import main_width, parts
from paramz.anatomy.paths import join, pattern
from paramz.anatomy.tensors import listed

_ROUNDS = re.compile(r"multiple_of|round")


def rounded_notes(model: nn.Module, base: nn.Module, wider: nn.Module) -> list[str]:
    """What to know of sizes that grow with the width, but not in proportion, one note.

    Args:
        model: the target, with a config.
        base: built of its config at another width.
        wider: the same at a larger one.

    Raises:
        ValueError: a size is the same in base and wider model, and another one in the target.
    """
    found: dict[str, str] = {}
    stuck: dict[str, str] = {}
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (base, wider)]
    widths = [main_width(m.config) for m in (model, base, wider)]
    across = Fraction(widths[0] - widths[1], widths[2] - widths[1])

    @cache
    def follows(size: int, b: int, w: int) -> bool:
        # What is far from the line is no rounded size: a table of pairs grows like its square.
        near = size <= 2 * b * Fraction(widths[0], widths[1]) <= 4 * size
        return size == b + (w - b) * across or not (near or b == w)

    for name, parameter in model.named_parameters():
        sizes = (shape.get(name, ()) for shape in shapes)
        for axis, (size, b, w) in enumerate(zip(parameter.shape, *sizes, strict=False)):
            if follows(size, b, w):
                continue
            said = f"{name} (axis {axis}: {b}, {w} and {size})"
            (stuck if b == w else found).setdefault(f"{pattern(name)} {axis}", said)
    if not found and not stuck:
        return []
    at = f"width {widths[1]}, {widths[2]} and {widths[0]}"
    fields = [
        f"{join(path, name)} = {value}"
        for path, part in parts(model.config)
        for name, value in vars(part).items()
        if _ROUNDS.search(name) and _is_size(value)
    ]
    by = f" ({', '.join(fields)})" if fields else ""
    named = fields[0].partition(" = ")[0] if fields else ""
    if stuck:
        ways = f"Set a smaller {named} in the model's config, or t" if named else "T"
        raise ValueError(
            f"{listed(list(stuck.values()), 2)} at {at}: the model's own code rounds these sizes"
            f"{by}, so that they are the same in the base and in the wider model. {ways}ake a "
            "wider base"
        )
    ways = f"smaller {named} in the config, or with a " if named else ""
    return [
        f"{listed(list(found.values()), 2)} at {at}: the model's own code rounds these sizes{by}, "
        "so that they do not follow the width. Each tensor's rules count its own size, but the "
        f"base has other proportions than the model. With a {ways}base whose sizes need no "
        "rounding, it has the same"
    ]


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 1
