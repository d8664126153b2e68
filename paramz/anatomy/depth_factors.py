"""Numbers that modules keep and that move with depth, such as ``scale_depth / sqrt(layers)``.

They multiply residual branches, for which a depth scheme has rules of its own (MiniCPM's has this
root, ESM-C divides by it). With both, branches would fall twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import nn

from paramz.anatomy.branches import Residual
from paramz.anatomy.factors import DeclaredFactor
from paramz.anatomy.paths import join, pattern
from paramz.anatomy.probes import Probes

_POWERS = (-1.0, -0.5, 0.25, 0.5, 1.0)  # a quarter up: the weight of DeepNorm


def find_depth_factors(
    model: nn.Module,
    probes: Probes,
    residual: Residual | None,
    declared: Sequence[DeclaredFactor] = (),
) -> tuple[list[DeclaredFactor], list[str], list[str]]:
    """What is to be held at the base's value, a note on each kind of it, and what cannot be held.

    A number counts if it is one in base and wider probe, and differs in the model by a power of the
    ratio of depths, 1/2 or 1 up or down, or 1/4 up, in all modules that have it. The ratio is that
    of the stack that a module is in or around. Of those that forward code computes, a run shows
    what they multiply branches by, and nothing can hold them.

    Args:
        model: the target.
        probes: base and wider model.
        residual: the model's residual branches; None finds nothing.
        declared: factors that the user declared, which are left out.
    """
    if residual is None or all(r["depth"] == 1 for r in residual.ratios.values()):
        return [], [], []
    spoken = {(each.module, each.attribute) for each in declared}
    found: dict[str, list[tuple[DeclaredFactor, float | None]]] = {}
    for each in _moving(model, probes):
        if (each.module, each.attribute) not in spoken:
            kind = pattern(join(each.module, str(each.attribute)))
            power = _power(each.plain / each.value, _depth_at(each.module, residual))
            found.setdefault(kind, []).append((each, power))
    held, notes = [], []
    for kind, ones in found.items():
        (first, power), *rest = ones
        if power is None or any(other != power for _, other in rest):
            continue
        held += [each for each, _ in ones]
        notes.append(
            f"{join(first.module, str(first.attribute))} is {first.plain:.4g}, {first.value:.4g} "
            f"in the base: it goes like depth^{power:+g} in the model's code, and the plan has the "
            "rule for depth, so it is held at the base's value. "
            f"factors={{r'^{kind}$': None}} leaves it as the code has it"
        )
    return held, notes, _in_code(residual, [*held, *declared])


def _depth_at(path: str, residual: Residual) -> float:
    """The ratio of depths of the blocks that a module is in or around; 1 where these differ."""
    around = f"{path}." if path else ""
    found = {block: ratios["depth"] for block, ratios in residual.ratios.items()}
    near = {
        depth
        for block, depth in found.items()
        if f"{path}.".startswith(f"{block}.") or block.startswith(around)
    }
    depths = near or {*found.values()}
    return depths.pop() if len(depths) == 1 else 1.0


def _in_code(residual: Residual, spoken: Sequence[DeclaredFactor]) -> list[str]:
    """What to say of numbers on branches that no attribute holds, one sentence for each kind."""
    found: dict[str, str] = {}
    for end, (here, there) in residual.numbers.items():
        depth = _depth_at(end, residual)
        power = _power(here / there, depth) if here * there > 0 else None
        if power is None or any(_speaks(each, end, residual) for each in spoken):
            continue
        found.setdefault(
            pattern(end),
            f"{end}: forward code multiplies what it makes by {here:.4g}, by {there:.4g} in the "
            f"base, before it is added: like depth^{power:+g}. The plan has the rule for depth, so "
            "branches are scaled twice. Let the code use the base's number at every depth, or keep "
            "it in an attribute of the block, as in self.scale = layers**-0.5, which the plan holds"
            f" at the base's value; factors={{r'^{pattern(end)}$': None}} says that it is right as "
            "it is",
        )
    return list(found.values())


def _speaks(factor: DeclaredFactor, end: str, residual: Residual) -> bool:
    """Whether a factor is one of the block of an end, or of what is around that."""
    path = f"{factor.module}." if factor.module else ""
    blocks = (f"{block}." for block in residual.ratios if end.startswith(f"{block}."))
    return f"{end}.".startswith(path) or path.startswith(tuple(blocks))


def _moving(model: nn.Module, probes: Probes) -> Iterator[DeclaredFactor]:
    base, wider = probes.modules
    for path, module in model.named_modules():
        floats = {n: v for n, v in vars(module).items() if isinstance(v, float) and n[0] != "_"}
        twin = probes.twin(path) if floats else None
        if twin not in base or twin not in wider:
            continue
        one, other = vars(base[twin]), vars(wider[twin])
        for name, value in floats.items():
            at_base = one.get(name)
            if isinstance(at_base, float) and at_base == other.get(name) and at_base * value > 0:
                yield DeclaredFactor(path, name, "depth", value, at_base)


def held_at_base(value: float, at_base: float, depth: float) -> float:
    """What brings a number that moves with depth to the base's value; 1 for any other.

    A gain on a branch that starts at 1/sqrt(layers) does what a scheme for depth does.

    Args:
        value: the number in the target.
        at_base: that in the base; 0 for what is no number.
        depth: the ratio of depths, target / base.

    >>> held_at_base(0.25, 0.5, 4.0), held_at_base(0.3, 0.5, 4.0)
    (2.0, 1.0)
    """
    moves = value * at_base > 0 and _power(value / at_base, depth) is not None
    return at_base / value if moves else 1.0


def _power(growth: float, ratio: float) -> float | None:
    """The power of the ratio of depths that a number follows; none where that is 1."""
    if math.isclose(ratio, 1.0):
        return None
    return next((p for p in _POWERS if math.isclose(growth, ratio**p, rel_tol=1e-4)), None)
