"""Factors in a model's code that a user declares, and those that move with width and nobody claims.

What paramz finds by itself is in `paramz.anatomy.attention` and `paramz.anatomy.embeddings`. A
declaration adds to it, overrides it or refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from paramz.anatomy import names
from paramz.anatomy.attention import head_size
from paramz.anatomy.paths import join
from paramz.anatomy.paths import pattern as as_pattern
from paramz.anatomy.probes import Probes

# Ordered {regex of "module.attribute" or of a module: "attention", "constant", "width^-1/2", a
# number, or None}; what each means is told at `paramz.parametrize_`.
Factors = Mapping[str, str | float | None]

_POWER = re.compile(r"^width\^([+-]?\d+(?:/\d+)?)$")
_TAKE_FACTORS = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding)


@dataclass(frozen=True, slots=True)
class DeclaredFactor:
    """One factor that a user declared, with the values that it has.

    Attributes:
        module: the path of the module.
        attribute: where the module keeps the factor; None for one on what goes into the module (or
            out of it, if it is an embedding).
        kind: "attention" for a factor on attention logits, "set" for a value, "leave" for None;
            "depth" for the base's value of one that moves with depth, which nobody declared.
        plain: the factor in the model, as built; 1 without an attribute.
        value: what it is set to; of attention, the base's value.
        head: size of a head, target / base, for attention; base / target of what divides logits.
    """

    module: str
    attribute: str | None
    kind: str
    plain: float = 1.0
    value: float = 1.0
    head: float = 1.0


def find_declared(model: nn.Module, probes: Probes, declared: Factors) -> list[DeclaredFactor]:
    """The factors that a declaration names, each by the first pattern that matches it.

    Args:
        model: the target.
        probes: base and wider model.
        declared: as for `paramz.parametrize_`.

    Raises:
        ValueError: a pattern matches nothing, or its value has no meaning there.
    """
    base, _ = probes.modules
    found: dict[tuple[str, str | None], DeclaredFactor] = {}
    for regex, value in declared.items():
        # A pattern of a number that modules keep is none of the modules themselves.
        named = list(_named(model, probes, base, regex, numbers=True))
        named = named or list(_named(model, probes, base, regex, numbers=False))
        for path, attribute, module, twin in named:
            # The model itself can only be left as it is.
            if (path, attribute) not in found and (path or attribute or value is None):
                found[path, attribute] = _declared(regex, value, path, attribute, module, twin)
        if not named:
            moving = ", ".join(join(p, a) for p, a, _, _ in moving_numbers(model, probes)[:8])
            raise ValueError(
                f"factors[{regex!r}] matches no module and no number that one keeps; numbers that "
                f"move with width are {moving or 'none'}"
            )
    return list(found.values())


def _named(
    model: nn.Module, probes: Probes, base: Mapping[str, nn.Module], regex: str, *, numbers: bool
) -> Iterator[tuple[str, str | None, nn.Module, nn.Module]]:
    """The modules that a pattern names, or numbers that modules keep: path, attribute, twins."""
    for path, module in model.named_modules():
        twin = base.get(probes.twin(path) or "")
        for attribute in _numbers(module) if numbers else [None]:
            name = path if attribute is None else join(path, attribute)
            if twin is not None and re.search(regex, name):
                yield path, attribute, module, twin


def _declared(
    regex: str, value: str | float | None, path: str, attribute: str | None, module: Any, twin: Any
) -> DeclaredFactor:
    where = f"factors[{regex!r}] = {value!r}"
    if value is None:
        return DeclaredFactor(path, attribute, "leave")
    power = _POWER.match(value) if isinstance(value, str) else None
    if attribute is None:
        if not isinstance(module, _TAKE_FACTORS):
            raise ValueError(
                f"{where}: {path} ({type(module).__name__}) keeps no such number, and only a "
                "linear, conv or embedding layer can be multiplied as a whole. Name an attribute, "
                f"as in {as_pattern(path)}[.]scale"
            )
        if power is not None:
            growth = _growth(module, twin) ** float(Fraction(power[1]))
            return DeclaredFactor(path, None, "set", value=growth)
        if isinstance(value, str):
            raise ValueError(
                f"{where}: {path} keeps no number that could be {value}. Say by what to multiply "
                "what goes into it (out of it, if it is an embedding): a number, or 'width^-1/2' "
                "for (width / width of the base)^-1/2"
            )
        return DeclaredFactor(path, None, "set", value=float(value))
    plain, at_base = float(getattr(module, attribute)), float(getattr(twin, attribute))
    if value == "constant":
        return DeclaredFactor(path, attribute, "set", plain, at_base)
    if value == "attention":
        sizes = [head_size(m) for m in (module, twin)]
        known = sizes[0] is not None and sizes[1] is not None
        head = float(sizes[0] or 1) / float(sizes[1] or 1) if known else (at_base / plain) ** 2
        if known and (plain / at_base - 1) * (head - 1) > 0:
            head = 1 / head  # logits are divided by it
        return DeclaredFactor(path, attribute, "attention", plain, at_base, head)
    if isinstance(value, str):
        raise ValueError(
            f"{where}: write 'attention' for a factor on attention logits, 'constant' to hold it "
            "at the base's value, a number to set it, or None to leave it as the code has it"
        )
    return DeclaredFactor(path, attribute, "set", plain, float(value))


def _growth(module: Any, twin: Any) -> float:
    """How much wider what goes into a layer is than in the base; of an embedding, what comes out.

    Of a convolution that is all its channels, also where each group sums over a few.
    """
    sizes = [
        float(m.in_channels if isinstance(m, nn.modules.conv._ConvNd) else m.weight.shape[1])
        for m in (module, twin)
    ]
    return sizes[0] / sizes[1]


def moving_numbers(model: nn.Module, probes: Probes) -> list[tuple[str, str, float, float]]:
    """Floats called a scale or the like that differ between the probes: path, name, value, base's.

    Those of norms are left out: a norm divides by a size that moves as well.
    """
    base, wider = probes.modules
    found = []
    for path, module in model.named_modules():
        floats = {n: v for n, v in vars(module).items() if isinstance(v, float)}
        twin = probes.twin(path) if floats else None
        if twin not in base or twin not in wider or names.NORM_CLASS.search(type(module).__name__):
            continue
        b, w = vars(base[twin]), vars(wider[twin])
        for name, value in floats.items():
            values = b.get(name), w.get(name)
            if not all(isinstance(each, float) for each in values) or values[0] == values[1]:
                continue
            if names.EMBED_FACTORS.search(name) and not name.startswith("_"):
                found.append((path, name, value, b[name]))
    return found


def loose_notes(
    model: nn.Module,
    moving: Sequence[tuple[str, str, float, float]],
    claimed: Set[tuple[str, str | None]],
    weighted: Set[str] = frozenset(),
) -> list[str]:
    """What to say of numbers that move with width and that no plan sets, one sentence each.

    Args:
        model: the target.
        moving: as `moving_numbers` finds them.
        claimed: (module, attribute) of those that were found to be something or declared.
        weighted: paths of modules with a matrix of their own, which the number may multiply.
    """
    notes: dict[str, str] = {}
    for path, name, value, at_base in moving:
        if (path, name) in claimed:
            continue
        key = as_pattern(join(path, name))
        said = f"{join(path, name)} is {value:.4g} and {at_base:.4g} in the base"
        held = f"factors={{r'^{key}$': 'constant'}} holds it at the base's value"
        if path not in weighted:
            text = (
                f"{said}: no attention or embedding there, so it is left as the code has it. {held}"
            )
        elif isinstance(model.get_submodule(path), _TAKE_FACTORS):
            text = (
                f"{said}: left as the code has it, which is right where it follows a weight that "
                "is standardised (as in NFNets). If it multiplies the weight as it was drawn, "
                f"{held}"
            )
        else:
            text = (
                f"{said}: left as the code has it. Where it multiplies a parameter of that module, "
                "or a product with one (as the logits of learned queries), that has a rule for "
                f"width already, and both together fall too fast: {held}"
            )
        notes.setdefault(key, text)
    return list(notes.values())


def _numbers(module: nn.Module) -> Iterator[str]:
    for name, value in vars(module).items():
        if isinstance(value, float) and not name.startswith("_"):
            yield name
    for name, buffer in module._buffers.items():
        if isinstance(buffer, torch.Tensor) and hasattr(module, f"scalar_{name}"):
            yield name
