"""Settings of an optimizer's parameter groups: what a user asks for, with every name checked."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import torch

from paramz.plan.absolute import refuse_absolute
from paramz.plan.own_factor import OwnFactor, factor_options, own_factor, spelt_out
from paramz.theory.decay import DECAYS, decoupling_options, read_decoupled
from paramz.theory.families import Family, called, epsilon_option
from paramz.theory.families import family as find_family
from paramz.theory.rules import ROLES


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user wants of one optimizer's parameter groups; every number is meant at the base.

    Attributes:
        family: the optimizer's.
        lr: learning rate.
        weight_decay: None for the optimizer's own default (for a scheme whose decay is independent
            of the learning rate: 0).
        eps: None for the optimizer's own default.
        damping: of K-FAC and FOOF; None for the optimizer's own default.
        decay: a policy of `paramz.DECAYS`; None for the scheme's own.
        no_decay: roles without weight decay.
        role_lr: learning rates of roles that are tuned apart from ``lr``.
        options: everything else that the groups are to hold (betas, momentum, ...).
        own: the factor that the optimizer puts on its steps by itself; None for that of torch's own
            optimizer.
        split: ``"shape"`` for groups of tensors of one shape each, as optimizers want that stack
            them; ``"tensor"`` for one group per tensor.
        epsilon: the name under which groups of the optimizer hold eps.

    >>> Settings.of("adamw", lr=0.1, betas=(0.9, 0.95)).options
    {'betas': (0.9, 0.95)}
    """

    family: Family
    lr: float
    weight_decay: float | None = None
    eps: float | None = None
    damping: float | None = None
    decay: str | None = None
    no_decay: tuple[str, ...] = ()
    role_lr: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    own: OwnFactor | None = None
    split: Literal["shape", "tensor"] | None = None
    epsilon: str = "eps"

    def __post_init__(self) -> None:
        if self.split not in (None, *_SPLITS):
            raise ValueError(f"split={self.split!r} is neither of {', '.join(map(repr, _SPLITS))}")
        if self.eps is not None and self.family.eps is None:
            raise ValueError(
                f"eps={self.eps!r}: {self.family.name} has no epsilon that a rule moves, so "
                "groups would not hold it"
            )
        if self.damping is not None and self.family.damping is None:
            raise ValueError(f"damping={self.damping!r}: {self.family.name} has no damping")
        if self.weight_decay and self.family.sphere:
            raise ValueError(
                f"weight_decay={self.weight_decay!r}: {self.family.name} keeps the norm of every "
                "matrix, so decay would only turn its steps; give it to the optimizer beside it"
            )
        for option, roles in (("role_lr", self.role_lr), ("no_decay", self.no_decay)):
            unknown = [role for role in roles if role not in ROLES]
            if unknown:
                raise ValueError(
                    f"{option} has {', '.join(map(repr, unknown))}, but the roles are "
                    f"{', '.join(ROLES)}"
                )
        if self.decay is not None and self.decay not in DECAYS:
            raise ValueError(f"decay={self.decay!r} is no policy; there are {', '.join(DECAYS)}")
        numbers = {name: getattr(self, name) for name in ("lr", "weight_decay", "eps", "damping")}
        numbers |= {f"role_lr[{role!r}]": lr for role, lr in self.role_lr.items()}
        for name, value in numbers.items():
            if isinstance(value, str | tuple | list):
                raise ValueError(f"{name}={value!r} must be a number, and not a {_kind(value)}")
            if value is not None and (not math.isfinite(value) or value < 0):
                raise ValueError(f"{name}={value!r} must be a finite number that is not negative")

    @classmethod
    def of(cls, optimizer: Any, **given: Any) -> Settings:
        """The settings that a caller gave, sorted into those of paramz and those of the optimizer.

        Args:
            optimizer: name, class, instance or `Family`.
            **given: the attributes of `Settings`, and options of the optimizer.

        Raises:
            TypeError: there is no lr, or a name that neither paramz nor the optimizer has: torch
                takes unknown keys of a group without a word and trains without them.
            ValueError: the optimizer is unknown or a value is out of range.
        """
        if "lr" not in given:
            raise TypeError(f"lr is missing: at which learning rate was {optimizer!r} tuned?")
        family = find_family(
            optimizer,
            decoupled=read_decoupled(given, called(optimizer)),
            exponent=given.get("exponent"),
            graft=given.get("graft"),
        )
        epsilon = epsilon_option(optimizer)
        if epsilon != "eps" and epsilon in given:
            if given.get("eps") is not None:
                raise TypeError(f"eps and {epsilon} are one setting of {family.name}: give one")
            given["eps"] = given.pop(epsilon)
        options = {name: value for name, value in given.items() if name not in _OWN}
        _refuse_unknown(options, optimizer, family)
        settings = {name: given[name] for name in _OWN if given.get(name) is not None}
        if family.eps is None and isinstance(given.get("eps"), tuple | list):
            options["eps"] = settings.pop("eps")  # Adafactor's two, which are relative to weights
        refuse_absolute(family, optimizer, options, settings.get("weight_decay"))
        if isinstance(settings.get("no_decay"), str):
            settings["no_decay"] = (settings["no_decay"],)
        own = own_factor(family, optimizer, options)
        options |= spelt_out(family, optimizer, options) | _decay_spelt_out(family, optimizer)
        return cls(family=family, options=options, own=own, epsilon=epsilon, **settings)

    @property
    def base_eps(self) -> float:
        """Epsilon at the base."""
        return (self.family.eps or 0.0) if self.eps is None else self.eps

    @property
    def base_damping(self) -> float:
        """Damping at the base."""
        return (self.family.damping or 0.0) if self.damping is None else self.damping


def settings_of_two(optimizers: Mapping[str, Any]) -> tuple[Settings, Settings]:
    """The settings of an optimizer for hidden matrices and of one for all the rest.

    Args:
        optimizers: the options of each by its name, with ``optimizer`` for its class.

    Raises:
        ValueError: not exactly two optimizers, or as for `Settings.of`.
        TypeError: as for `Settings.of`.
    """
    if len(optimizers) != 2 or not all(isinstance(o, Mapping) for o in optimizers.values()):
        raise ValueError(
            "a split of the tensors takes two optimizers, one for hidden matrices and one for "
            f"the rest, as in muon=dict(lr=0.02), adamw=dict(lr=3e-3); got {list(optimizers)}"
        )
    first, second = (
        Settings.of(
            given.get("optimizer", name), **{k: given[k] for k in given if k != "optimizer"}
        )
        for name, given in optimizers.items()
    )
    return first, second


def _kind(value: Any) -> str:
    return type(value).__name__


_OWN = ("lr", "weight_decay", "eps", "damping", "decay", "no_decay", "role_lr", "split")
_SPLITS = ("shape", "tensor")


def _refuse_unknown(options: Mapping[str, Any], optimizer: Any, family: Family) -> None:
    known, anything_goes = _known_options(optimizer, family)
    for name, value in options.items():
        if name in known or (anything_goes and not _looks_misspelt(name, known)):
            continue
        close = difflib.get_close_matches(name, [*_OWN, *known], n=1, cutoff=0.75)
        hint = f" Did you mean {close[0]}?" if close else ""
        way_out = (
            f"If your optimizer does have {name}, pass its class instead of its name."
            if isinstance(optimizer, str)
            else f"If groups of it do hold {name}, set it there: group[{name!r}] = ..."
        )
        raise TypeError(
            f"{name}={value!r} is no option of {family.name}, so training would run without it."
            f"{hint} paramz takes {', '.join(_OWN)}; {family.name} takes "
            f"{', '.join(sorted(known)) or 'nothing else'}. {way_out}"
        )


def _decay_spelt_out(family: Family, optimizer: Any) -> dict[str, Any]:
    """The option by which groups state their kind of decay, whatever the constructor gets."""
    kind = optimizer if isinstance(optimizer, type) else torch_optimizers().get(family.name)
    known = _parameters(kind)[0] if kind is not None else frozenset[str]()
    read = family.column in ("adam", "sgd")
    names = decoupling_options(family.name) if read else ()
    return {name: family.decay == "decoupled" for name in names if name in known}


def _looks_misspelt(name: str, known: Collection[str]) -> bool:
    """Whether a name is that of a known option but for a letter or two (weigth_decay)."""
    return bool(difflib.get_close_matches(name, [*_OWN, *known], n=1, cutoff=0.85)) and (
        len(name) > 4
    )


def _known_options(optimizer: Any, family: Family) -> tuple[frozenset[str], bool]:
    """Names of the options that the optimizer has, and whether it may have others, too."""
    if isinstance(optimizer, torch.optim.Optimizer):
        return frozenset(optimizer.defaults) - frozenset(_OWN) | _read_by_rules(family), False
    # Of another library's class the signature is all there is. The constructors of paramz's own
    # have options that are no settings of groups, so for them their family says which are.
    if isinstance(optimizer, type) and not optimizer.__module__.startswith("paramz."):
        names, more = _parameters(optimizer)
        return names | _read_by_rules(family), more
    if family.options is not None:
        return frozenset(family.options), False
    found = torch_optimizers().get(family.name)
    if found is not None:
        names, more = _parameters(found)
        return names | factor_options(family), more
    # An optimizer of another library, by its name (or declared by the user, who knows it): whatever
    # one of torch's has.
    common = [_parameters(kind)[0] for kind in torch_optimizers().values()]
    return _read_by_rules(family).union(*common), isinstance(optimizer, Family)


def _read_by_rules(family: Family) -> frozenset[str]:
    """Options by which the rules of a family are chosen, whether or not a class names them."""
    read = {"decoupled_weight_decay"} if family.column == "adam" else set[str]()
    if family.exponent is not None:
        read |= {"exponent", "graft"}
    return frozenset(read) | factor_options(family)


@cache
def _parameters(kind: Any) -> tuple[frozenset[str], bool]:
    """Names of the arguments of a class, and whether it takes others, too.

    A constructor that hands unknown arguments on (``**kwargs``) has those of its base classes.
    """
    names: set[str] = set()
    for each in kind.__mro__:
        parameters = inspect.signature(each).parameters.values()
        names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return frozenset(names - {"params", *_OWN}), each is not kind
    return frozenset(names - {"params", *_OWN}), True


@cache
def torch_optimizers() -> Mapping[str, Any]:
    """Torch's optimizers by their name in lower case.

    >>> torch_optimizers()["adamw"].__name__
    'AdamW'
    """
    return {
        name.lower(): kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type)
        and issubclass(kind, torch.optim.Optimizer)
        and kind is not torch.optim.Optimizer
    }
