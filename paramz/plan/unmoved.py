"""What to say of the ratios of depth and experts, above all where a scheme's rules do nothing.

A base that is a width has the model's own depth and experts, so nobody would see that a base of
fewer was meant.
"""

from __future__ import annotations

from collections.abc import Iterable

from paramz.anatomy.branches import Residual
from paramz.plan.row import Row
from paramz.theory.power import Power

FEWER_BLOCKS = (
    "If you tuned with fewer blocks, let the base have as many: base=lambda width: Net(width, "
    "depth=2), base_width=...; or, for a Hugging Face model, "
    "base=paramz.hf.config_factory(model, depth=2), base_width=..."
)
FEWER_EXPERTS = (
    "If you tuned with fewer experts, let the base have as many: base=lambda width: Net(width, "
    "experts=4), base_width=...; or, for a Hugging Face model, "
    "base=paramz.hf.config_factory(model, experts=4), base_width=..."
)
NOTHING_DIFFERS = (
    "the base has the model's width and its numbers of blocks and experts. "
    f"{FEWER_BLOCKS} (with fewer experts, likewise experts= in the place of depth=)"
)
_SAME_DEPTH = (
    "depth times 1: the base has the model's number of blocks, so the rules for depth do nothing "
    f"here. {FEWER_BLOCKS}"
)


def depth_notes(residual: Residual, power: Power) -> list[str]:
    """The depth of every stack, or that of all of them, where it is one.

    Args:
        residual: the model's branches.
        power: the scheme's factor on a branch.
    """
    if all(set(ratios.values()) == {1.0} for ratios in residual.ratios.values()):
        return [_SAME_DEPTH]
    stacks: dict[tuple[tuple[str, float], ...], list[str]] = {}
    for block, ratios in residual.ratios.items():
        stacks.setdefault(tuple(ratios.items()), []).append(block)
    said = {}
    for key in stacks:
        ratios = dict(key)
        shared = (
            f" (a block runs {ratios['loops']:.4g} times as often)" if "loops" in ratios else ""
        )
        said[key] = (
            f"times {ratios['depth']:.4g}{shared}: residual branches times {power(ratios):.4g}"
        )
    if len(stacks) == 1:
        return [f"depth {text}" for text in said.values()]
    return [
        f"depth of the stack of {blocks[0]} to {blocks[-1]} {said[key]}"
        for key, blocks in stacks.items()
    ]


def experts_notes(rows: Iterable[Row]) -> list[str]:
    """That the rules for experts do nothing, where there are experts, and as many in the base."""
    ratios = [row.ratios["experts"] for row in rows if "experts" in row.ratios]
    if not ratios or any(ratio != 1.0 for ratio in ratios):
        return []
    return [
        "experts times 1: the base has the model's number of experts, so the rules for their "
        f"number do nothing here. {FEWER_EXPERTS}"
    ]
