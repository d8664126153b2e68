"""The factor that an optimizer puts on its steps by itself, which the groups' lr must not repeat.

Muon multiplies by a factor of a matrix's shape, and there are four of them; Adafactor multiplies by
the size of the weights, or does not. Which it is follows from an option that each library names in
its own way, so it is read from the optimizer's class and options. Where it cannot be read it is
asked for: a wrong guess is a wrong learning rate at every width but the base's.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from paramz.theory.families import Family

# Of a matrix with so many rows and columns.
SHAPE_FACTORS = {
    "original": lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
    "rms_to_rms": lambda rows, columns: math.sqrt(rows / columns),
    # The entries of a step of norm sqrt(min(rows, columns)) times the first factor.
    "entries": lambda rows, columns: math.sqrt(max(1.0, rows / columns) / max(rows, columns)),
    "none": lambda rows, columns: 1.0,
}

# The words of torch and timm.
_WORDS = {name: name for name in ("original", "match_rms_adamw", "rms_to_rms")}
# The option by which a library chooses the factor, and what its values mean: torch and timm,
# pytorch_optimizer, and dion. The first is also how a user declares the factor of any other Muon.
_MUON_OPTIONS: Mapping[str, Mapping[Any, str]] = {
    "adjust_lr_fn": {None: "original", **{name: name for name in SHAPE_FACTORS}},
    "use_adjusted_lr": {False: "original", True: "match_rms_adamw"},
    "adjust_lr": {None: "none", "spectral_norm": "rms_to_rms", "rms_norm": "match_rms_adamw"},
}
# Steps that read Adam's column (AdaMuon's) are compared with Adam's, entry by entry: with the usual
# adjustment they are of one size.
_ENTRYWISE_OPTIONS: Mapping[str, Mapping[Any, str]] = {
    "adjust_lr_fn": _MUON_OPTIONS["adjust_lr_fn"],
    "use_adjusted_lr": {False: "entries", True: "none"},
}
_DECLARE = "adjust_lr_fn"
_TORCHS = (None, "original", "match_rms_adamw")
_RELATIVE = "scale_parameter"
_STEP_COUNT = "relative_step"
_ADAFACTOR_OPTIONS = (_RELATIVE, _STEP_COUNT, "warmup_init")


@dataclass(frozen=True)
class OwnFactor:
    """What an optimizer multiplies its steps by, beside the lr of their group.

    Attributes:
        shape: a name of `SHAPE_FACTORS`.
        relative: the step is multiplied by the root mean square of the weight, too.
        decays: the weight decay is multiplied by the same.
    """

    shape: str = "none"
    relative: bool = False
    decays: bool = False

    @property
    def name(self) -> str:
        """One word for it."""
        return "size of the weights" if self.relative else self.shape

    def of_shape(self, shape: tuple[int, ...]) -> float:
        """The factor of a tensor's shape; what follows the weight's size is not in it."""
        if self.shape == "none":
            return 1.0
        return SHAPE_FACTORS[self.shape](shape[0], math.prod(shape[1:]))


def usual_factor(family: Family) -> OwnFactor:
    """The factor of torch's own optimizer of a family.

    >>> from paramz.theory.families import ADAMW, MUON
    >>> usual_factor(MUON).shape, usual_factor(ADAMW).shape
    ('original', 'none')
    """
    usual = family.only_factor or ("none" if family.column == "adam" else "original")
    return OwnFactor(usual if family.shape_factor else "none", relative=family.relative)


def own_factor(family: Family, optimizer: Any, options: Mapping[str, Any]) -> OwnFactor:
    """The factor of an optimizer with these options.

    Args:
        family: the optimizer's.
        optimizer: its class or an instance; anything else (a name) means torch's own, unless the
            options speak of another one.
        options: those of a group, or what a user gave; they go before what the class does by
            default.

    Raises:
        ValueError: it cannot be read, or it leaves no learning rate to set.

    >>> from paramz.theory.families import MUON
    >>> own_factor(MUON, torch.optim.Muon, {"adjust_lr_fn": "match_rms_adamw"}).shape
    'match_rms_adamw'
    """
    if family.sphere:
        # A step has the size of the whole weight, lr R: entries of lr times their root mean square
        # under Adam; under Muon, over sqrt(min(rows, columns)) singular values of one size.
        return OwnFactor("match_rms_adamw" if family.shape_factor else "none", relative=True)
    if family.shape_factor:
        return _of_muon(family, optimizer, options)
    if family.relative:
        return _of_adafactor(optimizer, options)
    return OwnFactor()


def spelt_out(family: Family, optimizer: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by which a group states the factor that its lr counts on, whatever a class does.

    Args:
        family: the optimizer's.
        optimizer: its class, an instance or a name, as the user gave it.
        options: what the user gave.
    """
    if family.sphere:
        return {}
    if family.shape_factor:
        found = own_factor(family, optimizer, options).shape
        kind = _class(optimizer)
        known = (
            class_defaults(kind, optimizer)
            if kind
            else {"adjust_lr_fn": None, "use_adjusted_lr": 0}
        )
        stated = {
            option: value
            for option, meanings in _options_of(family, kind).items()
            if option in known
            for value, meaning in meanings.items()
            if meaning == found
        }
        # By which others know the matrices among groups of both kinds.
        return {**stated, "use_muon": True}
    if family.relative and _class(optimizer) is not torch.optim.Adafactor:
        relative = own_factor(family, optimizer, options).relative
        return {_RELATIVE: relative, _STEP_COUNT: False, "warmup_init": False}
    return {}


def keeps_norms(optimizer: Any) -> bool:
    """Whether an optimizer is under `paramz.optim.constrained`."""
    # torch has no public list of an optimizer's hooks.
    hooks = getattr(optimizer, "_optimizer_step_post_hooks", {}).values()
    return any(hasattr(getattr(hook, "__self__", None), "keeps_norms") for hook in hooks)


def factor_words(family: Family) -> str:
    """The option to pass, as it stands in a call.

    >>> from paramz.theory.families import MUON
    >>> factor_words(MUON)
    'adjust_lr_fn=...'
    """
    return f"{_DECLARE if family.shape_factor else _RELATIVE}=..."


def factor_options(family: Family) -> frozenset[str]:
    """Names of the options by which a factor is chosen or declared."""
    if family.sphere:
        return frozenset()
    if family.shape_factor:
        return frozenset({_DECLARE})
    return frozenset(_ADAFACTOR_OPTIONS if family.relative else ())


def _options_of(family: Family, kind: type | None) -> Mapping[str, Mapping[Any, str]]:
    found = _ENTRYWISE_OPTIONS if family.column == "adam" else _MUON_OPTIONS
    usual = None if kind is None else class_defaults(kind, kind).get(_DECLARE)
    # Where a class has a word for its own factor, None is no factor (timm's), not the usual one.
    return found if usual is None else {**found, _DECLARE: {**_WORDS, None: "none"}}


def _of_muon(family: Family, optimizer: Any, options: Mapping[str, Any]) -> OwnFactor:
    kind = _class(optimizer)
    defaults = {} if kind is None else class_defaults(kind, optimizer)
    meanings = _options_of(family, kind)
    read = [option for option in meanings if option in defaults]
    stated = {**defaults, **options}
    if stated.get("algo") == "adamuon":
        raise ValueError(
            "algo='adamuon' divides every entry of a step by its size over time, so its learning "
            "rates are other ones, and paramz does not read this class's: use 'muon', or "
            "pytorch_optimizer's AdaMuon by its class"
        )
    if stated.get("update_scale") == "match_rms":
        raise ValueError(
            "update_scale='match_rms' gives steps whose entries are of one size, as AdaMuon's are: "
            "take the groups for those, paramz.families.ADAMUON with adjust_lr_fn='none', or "
            "update_scale='preserve_norm'"
        )
    if not read:
        declared = options.get(_DECLARE)
        if declared is None and (kind is None or family.only_factor is not None):
            return usual_factor(family)
        if kind is not None and declared is None:
            raise ValueError(
                f"{kind.__module__}.{kind.__name__} does not say which factor of a matrix's shape "
                "it puts on its steps, and the learning rates depend on it. Say it: "
                "adjust_lr_fn='original' for sqrt(max(1, rows/columns)), 'match_rms_adamw' for 0.2 "
                "sqrt(max(rows, columns)), 'rms_to_rms' for sqrt(rows/columns), or 'none'"
            )
        read, defaults = [_DECLARE], {_DECLARE: None}
    option = read[0]
    value = options.get(option, defaults[option])
    torchs = family.name == "muon" and (kind is None or issubclass(kind, torch.optim.Muon))
    if torchs and value not in _TORCHS:
        raise ValueError(
            f"{option}={value!r} is no factor of torch.optim.Muon's, which takes "
            f"{', '.join(map(repr, _TORCHS))}. For the Muon of another library pass its class "
            "instead of a name (in split_groups: muon=dict(optimizer=its class, lr=...))"
        )
    try:
        return OwnFactor(meanings[option][value])
    except (KeyError, TypeError):
        known = ", ".join(map(repr, meanings[option]))
        raise ValueError(
            f"{option}={value!r} is no factor of {family.name}'s that paramz knows; there are "
            f"{known}"
        ) from None


def _of_adafactor(optimizer: Any, options: Mapping[str, Any]) -> OwnFactor:
    kind = _class(optimizer)
    if options.get(_STEP_COUNT):
        raise ValueError(
            "relative_step=True takes the learning rate from the number of steps and leaves those "
            "of the groups unread, so nothing could transfer: pass relative_step=False (and "
            "warmup_init=False) with an lr"
        )
    if kind is torch.optim.Adafactor:
        if not options.get(_RELATIVE, True):
            raise ValueError(
                "torch.optim.Adafactor always multiplies its steps by the size of the weights and "
                "has no scale_parameter=False. transformers' Adafactor has: pass its class, "
                "transformers.optimization.Adafactor, instead of torch's or a name"
            )
        return OwnFactor(relative=True)
    # In transformers and pytorch_optimizer decay uses the rate that was multiplied already.
    given = options.get(_RELATIVE, True)
    return OwnFactor(relative=bool(given), decays=kind is not None and bool(given))


def _class(optimizer: Any) -> type | None:
    if isinstance(optimizer, type):
        return optimizer
    return type(optimizer) if isinstance(optimizer, torch.optim.Optimizer) else None


def class_defaults(kind: type, optimizer: Any) -> Mapping[str, Any]:
    """What a class or, if there is one, an instance takes for the options that are not given.

    Args:
        kind: the class; what it hands on to those that it is derived from counts, too.
        optimizer: the instance, or anything else.
    """
    found = {
        name: parameter.default
        for each in reversed(kind.__mro__)
        for name, parameter in inspect.signature(each.__init__).parameters.items()  # type: ignore[misc]
        if parameter.default is not parameter.empty
    }
    return (
        {**found, **getattr(optimizer, "defaults", {})}
        if not isinstance(optimizer, type)
        else found
    )
