"""What a reader of a plan should know of its adapters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from paramz.anatomy.adapter_part import AdapterPart


def adapter_notes(parts: Iterable[tuple[AdapterPart | None, Mapping[str, float]]]) -> list[str]:
    """What a reader of the plan should know of ranks and scalings, one sentence for each case.

    Args:
        parts: each with its ratios.
    """
    parts = list(parts)
    found = dict.fromkeys(
        (r["rank"], r["scaling"], part.scaling / r["scaling"])
        for part, r in parts
        if part is not None and part.sizes is None and "scaling" in r
    )
    said = [_moved(*each) for each in found]
    # Of kinds that are no plain pair one sentence: not every tensor has each of the sizes.
    ratios: dict[str, dict[str, None]] = {}
    for part, r in parts:
        own_sizes = part is not None and part.sizes is not None and part.kind != "gain"
        if part is not None and (own_sizes or part.kind == "entry"):
            for scale in _SIZES.keys() & r.keys():
                ratios.setdefault(scale, {})[f"times {r[scale]:.4g}"] = None
    own = [f"{_SIZES[s]} {' or '.join(ratios[s])}" for s in _SIZES if s in ratios]
    drawn = [p for p, r in parts if p is not None and p.kind == "down" and p.zero and _moves(r)]
    return [*said, *([f"adapters: {', '.join(own)}"] if own else []), *[_RANDOM_B][: len(drawn)]]


def _moves(ratios: Mapping[str, float]) -> bool:
    return ratios.get("rank", 1.0) != 1.0


def _moved(rank: float, scaling: float, was: float) -> str:
    asks = f" (from {was:.4g}: if you tuned with another alpha, give that model as base)"
    return f"adapters: rank times {rank:.4g}, scaling times {scaling:.4g}{asks * (scaling != 1)}"


_RANDOM_B = (
    "adapters whose B starts at random, and A at zero: on a language model their best learning "
    "rate moved with the rank under every rule that was tried (docs/adapters.md, Random B), so "
    "tune them at the rank that you use"
)


_SIZES = {
    "rank": "rank",
    "entries": "entries in a row",
    "scaling": "the rule's s",
}
