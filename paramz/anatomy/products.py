"""Products of two activations whose sum runs over an axis that grows: attention, and dot products.

Sums of one activation that the model puts out count, too, and its length.

What attention computes does not depend on what its class is called. So both probes run once, and
every product of two tensors that are no parameters is noted: which matrices made its factors, over
how many entries it sums, and whether a softmax or the model's output takes it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from paramz.anatomy.inputs import of_hugging_face, possible_inputs
from paramz.anatomy.multiplied import Seen, products_of
from paramz.anatomy.paths import join, split, unnumbered
from paramz.anatomy.probes import Probes

# Blocks of one kind that run first, as in `paramz.anatomy.bottlenecks`.
_KEPT_BLOCKS = 2


@dataclass(frozen=True, slots=True)
class Product:
    """Products of two activations in one module, alike in every run.

    Attributes:
        module: the path of the module that holds the matrices before both factors.
        left: a layer whose output is one of the factors.
        growth: over how many times more entries the sum runs in the wider probe than in the base;
            1 for the cosine of two vectors of length one, and for averages.
        settled: the numbers that multiply it fall as fast as it grows.
        attention: a softmax takes it.
        at_output: it reaches the model's output, and no matrix comes after it.
        inside: it is of two activations, and stays within the network as it is, without a softmax
            or a norm: as what a computed weight makes.
        scalable: ``left`` is a layer that a factor on width can be declared for.
        alone: it is no product but a sum of what ``left`` puts out, or its length.
        average: one of its factors is a softmax over the axis of the sum.
        factor: the numbers that multiply it, wider / base.
        unit: it is one of vectors of length one, but for numbers and gains.
        gains: the parameters that multiply its factors.
        generated: what one factor is the sum of, where the model computes it from its parameters
            alone, as a hypernetwork's weight: the parameters, and how many sums over an axis that
            grows are in it and over it.
        held: the parameter that is one factor, through a norm, and that grows along that sum alone.
    """

    module: str
    left: str
    growth: float
    settled: bool
    attention: bool
    at_output: bool
    inside: bool = False
    scalable: bool = False
    alone: bool = False
    average: bool = False
    factor: float = 1.0
    unit: bool = False
    gains: tuple[str, ...] = ()
    generated: tuple[tuple[frozenset[str], int], ...] = ()
    held: str = ""
    entry: bool = False

    @property
    def grows(self) -> bool:
        """It grows with width, and nothing in the code makes up for it."""
        return self.growth > 1 and not self.settled

    @property
    def drifts(self) -> bool:
        """These are logits of attention times a number that moves, over a sum that does not grow.

        Gains of vectors of length one may start at what makes up for a number that falls.
        """
        alone = self.attention and self.growth <= 1 and not self.average and self.factor > 0
        made_up = self.unit and bool(self.gains) and self.factor < 1
        return alone and not made_up and not math.isclose(self.factor, 1.0, rel_tol=1e-3)

    @property
    def moves(self) -> bool:
        """Numbers in the code that move with width multiply what a computed matrix makes."""
        return bool(self.generated) and not math.isclose(self.factor, 1.0, rel_tol=1e-3)

    @property
    def stays(self) -> bool:
        """Nothing takes its size off that a plan sets or that code does for it."""
        return self.at_output or self.inside or bool(self.generated)

    @property
    def fades(self) -> bool:
        """It is an average, which keeps its size, times a number that falls."""
        return self.average and 0 < self.factor < 1 - 1e-3

    @property
    def matters(self) -> bool:
        """A plan may have something to say of it."""
        return self.fades or self.drifts or self.moves or (self.grows and self.stays)


def find_products(probes: Probes, example: Any = None) -> tuple[Product, ...]:
    """The products of two activations in a model; empty where no run shows them.

    Args:
        probes: base and wider model; both run once.
        example: what to call the model with; inputs are guessed if it is left out.

    >>> class Towers(nn.Module):
    ...     def __init__(self, width):
    ...         super().__init__()
    ...         self.a, self.b = nn.Linear(3, width), nn.Linear(3, width)
    ...     def forward(self, x):
    ...         return self.a(x) @ self.b(x).T
    >>> (found,) = find_products(Probes(Towers(4), Towers(8)))
    >>> found.left, found.growth, found.attention, found.at_output
    ('a', 2.0, False, True)
    """
    base, wider = _watched(probes.base, example), _watched(probes.wider, example)
    modules = dict(probes.base.named_modules())
    found: dict[tuple[Any, ...], Product] = {}
    for key, ones in base.items():
        others = wider.get(key, [])
        if len(ones) != len(others):  # some were left out, or computed in more steps
            ones, others = _by_size(ones), _by_size(others)
        for one, other in zip(ones, others, strict=True) if len(ones) == len(others) else ():
            left, right = (sorted(factor) for factor in one.made)
            path, layers = _owner(modules, [*left, *right]), (split(left[0])[0], split(right[0])[0])
            # The one that a factor can be declared for is named, if only one can.
            able = [x for x in layers if _scalable(modules.get(x), probes.wider, x)]
            layer, scalable = [*able, layers[0]][0], bool(able) and not one.alone
            product = _product(path, layer, one, other, scalable=scalable)
            told = product.grows, product.fades, product.drifts, product.generated
            kind = (path, *told, one.softmax, one.at_output, one.alone, one.held, one.entry)
            found.setdefault(kind, product)
    return tuple(found.values())


def _product(path: str, layer: str, one: Seen, other: Seen, *, scalable: bool) -> Product:
    """A product of the base and the same one of the wider probe."""
    average = one.average and other.average
    growth = 1.0 if average or (one.unit and other.unit) else other.size / one.size
    factor = other.factor / one.factor if one.factor else 0.0
    return Product(
        path,
        layer,
        growth,
        settled=math.isclose(growth * factor, 1.0, rel_tol=1e-3),
        attention=one.softmax,
        at_output=one.at_output,
        inside=one.data and not (one.softmax or one.at_output or one.normed),
        scalable=scalable,
        alone=one.alone,
        average=average,
        factor=factor,
        unit=one.unit and other.unit,
        gains=one.gains,
        generated=_generated(one, other) if growth > 1 and not one.softmax else (),
        held=one.held,
        entry=one.entry,
    )


def _generated(one: Seen, other: Seen) -> tuple[tuple[frozenset[str], int], ...]:
    """The parameters of each summand of a computed factor, and the sums that grow.

    A constant that grows has a size of its own, and of its axes nothing is known.
    """
    return tuple(
        (
            term.makers,
            (not one.entry) + sum(b != w for b, w in zip(term.sums, wider.sums, strict=False)),
        )
        for term, wider in zip(one.terms, other.terms, strict=False)
        if term.sums and term.constants == wider.constants
    )


def _by_size(seen: list[Seen]) -> list[Seen]:
    """One of every size, in the order of sizes."""
    return [*{one.size: one for one in sorted(seen, key=lambda one: one.size)}.values()]


def names_tell(model: nn.Module) -> bool:
    """Whether names show all products of a model: one of Hugging Face without tables in its blocks.

    Rows of such a table may be weights that tokens choose, as experts of one unit are.
    """
    tables = (path for path, m in model.named_modules() if isinstance(m, nn.Embedding))
    inside = any(part.isdigit() for path in tables for part in path.split("."))
    return of_hugging_face(model) and not inside


def _scalable(layer: nn.Module | None, wider: nn.Module, path: str) -> bool:
    """Whether all that a layer puts out follows a factor of the width of its weight's columns."""
    if not isinstance(layer, nn.Linear | nn.Embedding) or getattr(layer, "bias", None) is not None:
        return False
    return bool(layer.weight.shape[1] != wider.get_parameter(join(path, "weight")).shape[1])


def _owner(modules: Mapping[str, nn.Module], names: list[str]) -> str:
    """The path of the module that holds some matrices: above a layer that is one of them alone."""
    paths = sorted({split(name)[0] for name in names})
    if len(paths) == 1:
        only = modules.get(paths[0])
        leaf = only is None or not (only._modules or len(set(names)) > 1)
        return _holder(modules, split(paths[0])[0] if leaf else paths[0])
    parts = [path.split(".") for path in paths]
    common = []
    for step in zip(*parts, strict=False):
        if len(set(step)) > 1:
            break
        common.append(step[0])
    return _holder(modules, ".".join(common))


def _holder(modules: Mapping[str, nn.Module], path: str) -> str:
    """The first module above a list or dictionary of modules, which compute nothing themselves."""
    while path and type(modules.get(path)) in (nn.ModuleList, nn.ModuleDict):
        path = split(path)[0]
    return path


def _watched(model: nn.Module, example: Any) -> dict[tuple[Any, ...], list[Seen]]:
    """The products of a run by what they are, without numbers of blocks."""
    for inputs in possible_inputs(model, example):
        for kept in (_KEPT_BLOCKS, None):  # code that counts its blocks needs all of them
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of code that meets a guess
                    seen = products_of(model, inputs, kept)
            except Exception:  # any model's own code, on inputs that it may not like
                continue
            found: dict[tuple[Any, ...], list[Seen]] = {}
            for one in seen:
                made = (" ".join(sorted({*map(unnumbered, each)})) for each in one.made)
                kind = (*made, one.softmax, one.at_output, one.alone, bool(one.held), one.entry)
                found.setdefault(kind, []).append(one)
            return found
    return {}
