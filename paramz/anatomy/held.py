"""Numbers in forward code that move with width: what each is a factor of, and what holds it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from paramz.anatomy.paths import split
from paramz.anatomy.probes import Probes

_TAKE_FACTORS = (nn.Linear, nn.modules.conv._ConvNd)


@dataclass(frozen=True, slots=True)
class WrittenFactor:
    """A number in forward code that moves with width.

    Attributes:
        module: the path of the layer whose output or weight it multiplies (of a readout: or whose
            input).
        base: its value in the base.
        wider: its value in the wider probe.
        power: its exponent in width.
        place: of what it is a factor: an embedding, the readout, a layer, or a layer's weight.
        ratio: its value, target / base.
        attribute: where the layer keeps it, if it does.
        held: what the layer's input (an embedding's output) is to be multiplied by, so that the
            factor is the base's; None where that layer takes none.
        behind: it stands behind the layer, so that what the layer puts out is not yet its own.
    """

    module: str
    base: float
    wider: float
    power: float
    place: str
    ratio: float
    held: float | None
    behind: bool = False
    attribute: str | None = None


@dataclass
class Seen:
    """One multiplication by a number: its value, the matrix before it, and what is behind it.

    Of vectors with a length of one that go into a layer, too: the size of their entries is one.
    ``over`` is the length of the sums, of no layer, that it makes up for.
    """

    value: float
    made_by: str | None
    kind: str
    into: str | None = None
    at_output: bool = False
    summed: bool = False
    softmax: bool = False
    over: int = 1


def place_of(seen: Seen) -> tuple[str, str] | None:
    """The matrix that a number is a factor of, and as what."""
    if seen.kind == "embedding" and seen.made_by is not None:
        return seen.made_by, "embedding"
    if seen.kind == "weight":
        return (seen.into, "weight") if seen.into and seen.into == seen.made_by else None
    if seen.softmax:
        return None
    if seen.at_output and ((seen.into and not seen.summed) or seen.kind == "linear"):
        return seen.into or seen.made_by or "", "readout"
    if seen.kind == "linear" and seen.made_by is not None and (seen.into or seen.summed):
        return seen.made_by, "layer"
    goes_in = seen.made_by is None and not seen.kind
    return (seen.into, "layer") if goes_in and seen.into else None


def factors_of(
    model: nn.Module,
    probes: Probes,
    pair: tuple[Seen, Seen],
    names: Mapping[str, Sequence[str]],
) -> list[WrittenFactor]:
    """What a number that moves is a factor of; empty for logits of attention and the like.

    Args:
        model: the target; only shapes are looked at.
        probes: base and wider model.
        pair: the multiplication in both.
        names: the name of a parameter in the base -> those in the target that it stands for.
    """
    one, other = pair
    found = place_of(one)
    if found is None:
        return []
    name, place = found
    base, wider = (m.get_parameter(name).shape for m in (probes.base, probes.wider))
    # What goes into the layer grows, or else (first layers) what comes out.
    axis = 0 if place == "layer" and base[1] == wider[1] else 1
    if base[axis] == wider[axis]:
        return []
    power = math.log(other.value / one.value) / math.log(wider[axis] / base[axis])
    kept = vars(probes.base.get_submodule(split(name)[0])) if place == "weight" else {}
    same = (n for n, v in kept.items() if isinstance(v, float) and abs(v / one.value - 1) < 1e-6)
    attribute = next(same, None)
    behind = place == "readout" and not one.into
    made = []
    for own in names.get(name, ()):
        ratio = (model.get_parameter(own).shape[axis] / base[axis]) ** power
        path, held = _holder(model, own, one, place, ratio)
        made.append(
            WrittenFactor(
                path, one.value, other.value, power, place, ratio, held, behind, attribute
            )
        )
    return made


def _holder(
    model: nn.Module, name: str, one: Seen, place: str, ratio: float
) -> tuple[str, float | None]:
    """The layer that can hold a number at the base's value, and what its input is multiplied by."""
    weight = model.get_parameter(name)
    takes: Any = nn.Embedding if place == "embedding" else _TAKE_FACTORS
    for path, module in model.named_modules():  # a tied weight is in two
        if isinstance(module, takes) and module.weight is weight:
            # A bias is not multiplied with what goes in.
            comes_out = place == "layer" and (one.made_by is not None or bool(one.kind))
            biased = comes_out and module.bias is not None
            return path, None if biased else 1 / ratio
    return split(name)[0], None
