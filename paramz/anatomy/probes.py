"""Probes: the base model and a wider one, built to see which dimensions grow with width.

Comparing base and target would find that nothing grows when the target *is* the base. So the base
is always compared with a wider probe, which is built for this purpose only.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from paramz.anatomy.adapters import find_adapters
from paramz.anatomy.built import Factory as Factory
from paramz.anatomy.built import build_at, build_multiple
from paramz.anatomy.drawn import Laws, build_drawn
from paramz.anatomy.hf_config import config_factory, config_notes
from paramz.anatomy.hf_rounded import rounded_notes
from paramz.anatomy.paths import join, split
from paramz.anatomy.ranks import at_rank
from paramz.anatomy.tensors import OTHER_NUMBERS
from paramz.anatomy.twins import match_modules

_NUMBER = (numbers.Integral, float)


@dataclass(frozen=True)
class Probes:
    """The base model and a wider one.

    Attributes:
        base: real when its init is to be measured, else on meta.
        wider: on meta where that works.
        twins: target module -> base module where their numbers may differ; None: the same paths.
        notes: what a reader of the plan should know of how they were built.
        laws: how the tensors of a base on meta would be drawn, where that is wanted and known.
        build: builds the base for real, where it is on meta in place of a real one.
        at: builds it on meta at a multiple of its width, where a factory can; None if it cannot.
    """

    base: nn.Module
    wider: nn.Module
    twins: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()
    laws: Laws | None = None
    build: Callable[[], nn.Module] | None = None
    at: Callable[[int], nn.Module | None] | None = None

    @cached_property
    def modules(self) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
        """The modules of the base and of the wider model by path."""
        return dict(self.base.named_modules()), dict(self.wider.named_modules())

    def matched(self, model: nn.Module, scales: Set[str]) -> Probes:
        """With twins, if the scales are those of a scheme that lets numbers of modules differ."""
        if not scales & {"depth", "experts"}:
            return self
        return replace(self, twins=match_modules(model, self.base))

    def twin(self, path: str) -> str | None:
        """The path in the probes of a module of the target: its own, unless numbers differ."""
        return path if self.twins is None else self.twins.get(path)

    def twin_name(self, parameter: str) -> str | None:
        """The name in the probes of a parameter of the target."""
        path, local = split(parameter)
        twin = self.twin(path)
        return None if twin is None else join(twin, local)


def build_probes(
    model: nn.Module,
    base: nn.Module | Factory | int | None,
    *,
    base_width: int | None = None,
    wider: nn.Module | int | None = None,
    measure: bool = True,
    scales: Set[str] = frozenset({"fan_in", "fan_out"}),
) -> Probes:
    """Build both probes from whatever the user gave.

    Args:
        model: the target; only its Hugging Face config is looked at, when ``base`` is a width, and
            whether it is on meta.
        base: a factory ``width -> model``; or the base model itself, together with ``wider``; or,
            for a Hugging Face model, the base width.
        base_width: the width at which to call a factory; its parameter's default if left out.
        wider: a wider model, or the width to build it at (default twice the base width).
        measure: build the base for real, so that its init can be measured; else on meta. For a
            target on meta, whose values cannot be scaled, it is enough to know how the base's would
            be drawn, so it is built on meta where that shows it.
        scales: what the scheme scales. Where only ranks may differ from the base's, nothing grows
            with width, so the base is its own wider probe, and a number as base is its rank.

    Raises:
        TypeError: something is missing or of the wrong kind; the message says what to pass.
        ValueError: the wider width is the base width, a width is below one, or as for
            `rounded_notes` or `paramz.anatomy.ranks.at_rank`.
    """
    if isinstance(base, nn.Module) and base_width is not None:
        raise TypeError(
            f"base is a module, which has the width that it has, so base_width={base_width} would "
            "do nothing: leave it out. To build the base at that width: base=build, where "
            "build(width) returns the model"
        )
    if "rank" in scales and not scales & {"fan_in", "fan_out"} and base is not None:
        base = _of_one_width(model, base, base_width)
        return Probes(base, base)
    if base is None and "rank" in scales and not scales & {"fan_in", "fan_out"}:
        raise TypeError(f"base is missing: the adapters at which you tuned. {_OF_RANK}")
    if base is None:
        raise TypeError(
            "base is missing. A parametrization says how hyperparameters move from a base model, "
            "and without one it would silently mean SP. Pass base=build with base_width=..., where "
            "build(width) returns the model; or base=small_model, wider=wider_model; or, for a "
            "Hugging Face model, base=256."
        )
    if isinstance(base, nn.Module):
        if not isinstance(wider, nn.Module):
            raise TypeError(
                "base is a module, so a second, wider module must show which dimensions grow: pass "
                "wider=, the base at a larger width and as deep (it may be on the meta device). Or "
                "pass base=build with base_width=..., where build(width) returns the base, as in "
                "base=lambda width: Net(width, depth=2); or, for a Hugging Face model, its base's "
                f"width: base=256. {OTHER_NUMBERS}"
            )
        return Probes(base, wider)
    if not callable(base):
        base, base_width = _as_width(base, base_width), None
    factory = config_factory(model) if isinstance(base, int) else base
    width = base if isinstance(base, int) else _width_of(base, base_width)
    wider_width = 2 * width if wider is None else wider
    if not isinstance(wider_width, nn.Module):
        _require_size("wider", wider_width, whole=isinstance(base, int))
    if wider_width == width:
        raise ValueError(f"wider={wider_width} is the base width itself: nothing would grow")
    notes = config_notes(model, base)
    try:
        made = _build_base(model, factory, width, measure)
        if "rank" in scales and isinstance(base, int):
            _require_wider_than_ranks(made.base, base)
    except (TypeError, ValueError) as error:
        if "rank" not in scales or not isinstance(base, int):
            raise
        raise ValueError(f"{error}. {_NO_RANK.format(base=base)}") from error
    if not isinstance(wider_width, nn.Module):
        wider_width = build_at(factory, wider_width, on_meta=True)
    if isinstance(base, int):
        notes += rounded_notes(model, made.base, wider_width)
    # Nothing is built off the meta device at a width that nobody asked for.
    there = (*wider_width.parameters(), *wider_width.buffers())
    on_meta = all(tensor.is_meta for tensor in there)
    at = partial(build_multiple, factory, width) if on_meta else None
    return replace(made, wider=wider_width, notes=tuple(notes), at=at)


def _require_wider_than_ranks(model: nn.Module, width: int) -> None:
    """Raise if adapters have a rank that the width does not exceed: then it is taken for a rank."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    for name, part in find_adapters(model).items():
        if part.kind == "down" and part.rank is not None:
            rank = tensors[name].shape[part.rank]
            if rank >= width:
                raise ValueError(f"{name} has rank {rank} and would be on layers of width {width}")


# Beside a width scheme a number is a width, and under one for adapters alone it is a rank.
_NO_RANK = (
    "As the scheme has rules for width, base={base} is a width. If it is the adapters' rank: "
    "base={base} under 'lora' or 'rslora' alone where the width is the base's, or base="
    "paramz.hf.config_factory(model, rank={base}), base_width=... where that differs, too"
)


_OF_RANK = (
    "base=8, the rank at which you tuned; or base=get_peft_model(other, config), the model that "
    "you tuned, where more than the rank differs; or a function that returns it"
)


def _as_width(base: Any, base_width: Any) -> int:
    """A base that is a width.

    Raises:
        TypeError: it is none, or there are two.
        ValueError: it is below one.
    """
    if not isinstance(base, _NUMBER):
        raise TypeError(
            f"base must be a factory, a module or a width, not {type(base).__name__}: base=build "
            "with base_width=..., where build(width) returns the model; or base=small_model, "
            "wider=wider_model; or, for a Hugging Face model, base=256"
        )
    _require_size("base", base, whole=True)
    if base_width not in (None, base):
        raise TypeError(
            f"base={base} is a width, and base_width={base_width} another: give the first alone"
        )
    return int(base)


def _require_size(what: str, value: Any, *, whole: bool = False) -> None:
    """Raise unless a value may be a width; some factories take a factor, as 0.25.

    Raises:
        TypeError: it is no number, or no whole one.
        ValueError: it is not above zero.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral if whole else _NUMBER):
        said = "whole number" if whole else "number"
        raise TypeError(f"{what}={value!r} is no width: a width is a {said}, such as 256")
    if not float(value) > 0:  # nan is none either
        raise ValueError(f"{what}={value!r} is no width: it has to be above zero")


def _build_base(model: nn.Module, factory: Factory, width: int, measure: bool) -> Probes:
    """Probes with the base in both places."""
    if measure and all(parameter.is_meta for parameter in model.parameters()):
        with torch.random.fork_rng(devices=[]):
            found = build_drawn(factory, width)
        if found is not None:
            drawn, laws = found
            build = partial(build_at, factory, width, on_meta=False)
            return Probes(drawn, drawn, laws=laws, build=build)
    base = build_at(factory, width, on_meta=not measure)
    return Probes(base, base)


def _of_one_width(model: nn.Module, base: Any, width: int | None) -> nn.Module:
    """The base whose adapters may have another rank than the model's, and nothing else."""
    if isinstance(base, nn.Module):
        return base
    if isinstance(base, int):
        if width is not None:
            raise TypeError(
                f"base={base} is a rank, as the scheme has no rule for width, and base_width="
                f"{width} would do nothing: leave it out. Where the width differs, too, put 'mup+' "
                f"before the scheme, with base=paramz.hf.config_factory(model, rank={base}), "
                f"base_width={width}"
            )
        return at_rank(model, base)
    if not callable(base):
        raise TypeError(
            "base must be a rank, a model or a function that builds one, not "
            f"{type(base).__name__}: {_OF_RANK}"
        )
    if width is None and callable(base) and _takes_nothing(base):
        return build_at(lambda _: base(), 1, on_meta=False)  # where the width stays it need not ask
    return build_at(base, _width_of(base, width), on_meta=False)


def _takes_nothing(factory: Callable[..., Any]) -> bool:
    try:
        return not inspect.signature(factory).parameters
    except ValueError:
        return False


def _width_of(factory: Callable[..., Any], width: Any) -> int:
    """The width at which to call a factory: what was given, or its parameter's default."""
    if width is not None:
        _require_size("base_width", width)
        return int(width) if isinstance(width, numbers.Integral) else width
    try:
        first = next(iter(inspect.signature(factory).parameters.values()), None)
    except ValueError:
        first = None
    if first is not None and isinstance(first.default, int) and first.default is not True:
        _require_size(f"base_width (the default of {first.name})", first.default)
        return first.default
    name = getattr(factory, "__name__", repr(factory))
    raise TypeError(
        f"base={name} is a factory and paramz must know the base width: pass base_width=, the "
        "width at which you tuned (or will tune) the hyperparameters."
    )
