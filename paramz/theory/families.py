"""Optimizer families: which column of the tables an optimizer reads, and how it rescales.

Each row states the optimizer's column, its abc exponents (how its learning rate and epsilon answer
to a factor moved out of the weight), what it does with weight decay, and what is special about it.
Longer than other files, as the declaration and all its rows are read together.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal, get_args

from paramz.theory.decay import read_decoupled
from paramz.theory.refused import WITHOUT_RULE as WITHOUT_RULE
from paramz.theory.refused import name_of

COLUMN_NAMES = ("sgd", "adam", "muon", "kfac", "foof")
Decay = Literal["none", "decoupled", "l2", "l2-normalised"]


@dataclass(frozen=True, slots=True)
class Family:
    """What an optimizer does to a gradient, as far as scaling is concerned.

    Attributes:
        name: the optimizer, lower case.
        column: the column of the tables that holds its rules.
        lr_shift: k in ``lr_raw = lr / a^k`` when the weight is written as ``W = a w``: 1 plus the
            degree of the update in the gradient (SGD 2, normalised updates 1).
        eps_shift: j in ``eps_raw = eps * a^j``: eps is added to something of degree j in the
            gradient.
        decay: how the optimizer uses its ``weight_decay``: ``decoupled`` (p -= lr wd p), ``l2`` (in
            the gradient of a plain optimizer), ``l2-normalised`` (in the gradient of an optimizer
            that then divides by its size, where decay must follow the gradient's scale), ``none``.
        eps: the optimizer's own default epsilon, None when it has none that scales.
        weight_decay: the optimizer's own default decay.
        relative: the step is multiplied by the weight's own RMS (Adafactor), so the table's lr is
            divided by the init std.
        shape_factor: the step of a matrix is multiplied by a factor of its shape, such as that of
            torch.optim.Muon, which is divided out of the table's lr.
        only_factor: the name of that factor, for an optimizer that has one only (Dion).
        exponent: e of ``L^-eL G R^-eR``, e = eL + eR (Shampoo): its rules lie between the columns
            muon (e = 1/2) and kfac (e = 1), see `Parametrization.entry`.
        sphere: for an optimizer that keeps every matrix at its first norm R, with steps of norm
            lr R (`paramz.optim.constrained`).
        graft: the column whose learning rates it has, where another optimizer gives its steps
            their size (Shampoo).
        rotated: Adam in the eigenbasis of Shampoo's factors (SOAP), see `Parametrization.entry`.
        behind: lr_shift for a factor behind the weight, y = a (w x), where it is another than for
            one in front of it, y = w (a x): an optimizer that divides by the inputs only (FOOF).
        damping: the optimizer's own default damping of its factors of inputs and output gradients,
            None when it has none.
        whole: its steps depend on means over the tensor, in which the zeros of a mask count, so
            rules over the density of masks do not hold for it.
        options: what else a parameter group of the optimizer may hold, for optimizers that torch
            does not have; None: torch's class says it.

    Raises:
        ValueError: there is no such column or kind of decay.
        TypeError: options are no tuple of names.
    """

    name: str
    column: str
    lr_shift: Fraction
    eps_shift: Fraction = Fraction(1)
    decay: Decay = "decoupled"
    eps: float | None = 1e-8
    weight_decay: float = 0.0
    relative: bool = False
    shape_factor: bool = False
    only_factor: str | None = None
    sphere: bool = False
    exponent: Fraction | None = None
    graft: str | None = None
    rotated: bool = False
    behind: Fraction | None = None
    damping: float | None = None
    whole: bool = False
    options: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for what, given in (("column", self.column), ("graft", self.graft)):
            if given not in COLUMN_NAMES and not (what == "graft" and given is None):
                raise ValueError(
                    f"{self.name}: {what}={given!r} is no column of the tables; there are "
                    f"{', '.join(COLUMN_NAMES)} (AdamW's is adam, Lion's too)"
                )
        if self.decay not in get_args(Decay):
            raise ValueError(
                f"{self.name}: decay={self.decay!r} is none of {', '.join(get_args(Decay))}"
            )
        if self.options is not None and (
            isinstance(self.options, str) or not all(isinstance(each, str) for each in self.options)
        ):
            raise TypeError(
                f"{self.name}: options={self.options!r} is to be a tuple of names, as "
                'options=("momentum",)'
            )


_0, _1, _2 = Fraction(0), Fraction(1), Fraction(2)

SGD = Family("sgd", "sgd", lr_shift=_2, eps_shift=_0, decay="l2", eps=None)
ADAM = Family("adam", "adam", lr_shift=_1, decay="l2-normalised")
ADAMW = Family("adamw", "adam", lr_shift=_1, decay="decoupled", weight_decay=0.01)
LION = Family("lion", "adam", lr_shift=_1, eps_shift=_0, decay="decoupled", eps=None)
MUON = Family("muon", "muon", lr_shift=_1, eps=1e-7, weight_decay=0.1, shape_factor=True)
# Rows of an orthogonalised step divided by their sizes over time, and the step's norm kept, so its
# singular values stay of one size; and an orthonormal step of low rank. No gradient's size is left
# where their epsilons are added.
NORMUON = replace(MUON, name="normuon", eps_shift=_0, eps=None, weight_decay=0.0)
DION = replace(
    MUON, name="dion", eps_shift=_0, eps=None, weight_decay=0.01, only_factor="rms_to_rms"
)
# Every entry divided by its size over time: what was orthogonal is no longer, and a step of few
# directions has a spectral norm like Adam's (Qiu et al. 2025, arXiv 2512.05620, table 1). One of
# many directions has one between both: docs/parametrizations.md, Optimizers.
ADAMUON = replace(NORMUON, name="adamuon", column="adam")
# Adam in the eigenbasis of Shampoo's factors: eps is added to rotated gradients.
_SOAP_OPTIONS = (
    "betas", "shampoo_beta", "precondition_frequency", "max_precondition_dim", "merge_dims",
    "precondition_1d", "correct_bias", "normalize_gradient",
)  # fmt: skip
SOAP = Family("soap", "muon", lr_shift=_1, weight_decay=0.01, rotated=True, options=_SOAP_OPTIONS)
# Both factors divide, so a constant in front of a weight or behind it changes nothing but damping.
KFAC = Family(
    "kfac", "kfac", lr_shift=_0, eps_shift=_0, eps=None, damping=0.1, options=("momentum",)
)
# Only the factor of the inputs: linear in what comes from behind.
FOOF = Family(
    "foof", "foof", lr_shift=_0, eps_shift=_0, eps=None, behind=_2, damping=0.1,
    options=("momentum",),
)  # fmt: skip
# The step is relative to the weight's RMS. `relative` takes that out again, and what is left shifts
# like Adam's.
ADAFACTOR = Family(
    "adafactor", "adam", lr_shift=_1, eps_shift=_0, eps=None, relative=True, whole=True
)

# Adam and Muon on the spheres of their matrices' first norms. Their steps are relative to the
# weight's RMS, as Adafactor's are, and decay has nothing to do.
ADAMH = replace(
    ADAMW, name="adamh", decay="none", weight_decay=0.0, relative=True, sphere=True,
    whole=True, options=("betas", "amsgrad"),
)  # fmt: skip
MUONH = replace(
    MUON, name="muonh", decay="none", weight_decay=0.0, relative=True, sphere=True,
    options=("momentum", "nesterov", "ns_coefficients", "ns_steps"),
)  # fmt: skip

# muLO: its features are normalised, so its steps have the size of lr whatever the gradient's size.
LEARNED = Family("learned", "adam", lr_shift=_1, eps_shift=_0, eps=None, whole=True, options=())


_SHAMPOO_OPTIONS = (
    "exponent", "betas", "relative_eps", "statistics", "graft", "block_size", "update_every",
    "statistics_every", "root",
)  # fmt: skip


def shampoo(e: Fraction) -> Family:
    """Shampoo with the update ``L^-eL G R^-eR``, where e = eL + eR: 1/2 as in Gupta et al. 2018.

    Its eps is added to L = G G^T and R = G^T G.

    Raises:
        ValueError: e is not between 0 (SGD) and 1 (K-FAC's degree), without 0.

    >>> shampoo(Fraction(1, 2)).lr_shift, shampoo(Fraction(1)).lr_shift
    (Fraction(1, 1), Fraction(0, 1))
    """
    if not 0 < e <= 1:
        raise ValueError(
            f"Shampoo's exponents sum to {e}: there are rules for sums over 0 and up to 1, such as "
            "1/2 (1/4 on each side) and 1 (1/2 on each side)"
        )
    return Family(
        "shampoo", "muon", lr_shift=2 - 2 * e, eps_shift=_2, eps=1e-12, exponent=e,
        options=_SHAMPOO_OPTIONS,
    )  # fmt: skip


SHAMPOO = shampoo(Fraction(1, 2))


def _named(family: Family, names: str) -> dict[str, Family]:
    return {name: replace(family, name=name) for name in names.split()}


# Optimizer class names, lower case, of torch and of the libraries that people use with it.
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        **{name: SGD for name in ("sgd", "momentum", "nesterov", "sgd8bit", "fusedsgd")},
        **_named(ADAM, "adam nadam radam adamax rmsprop adam8bit adam4bit adamfp8"),
        **_named(ADAM, "rmsprop8bit rmsprop32bit"),
        # Of bitsandbytes alone, whose Adam takes decay off the weights as its AdamW does.
        **_named(
            replace(ADAM, decay="decoupled"), "adam32bit pagedadam pagedadam8bit pagedadam32bit"
        ),
        "adagrad": replace(ADAM, name="adagrad", eps=1e-10),
        **_named(ADAMW, "adamw adamw8bit adamw4bit adamwfp8 adamw32bit stableadamw"),
        **_named(ADAMW, "pagedadamw pagedadamw8bit pagedadamw32bit"),
        **_named(replace(ADAMW, weight_decay=0.0), "fusedadam deepspeedcpuadam"),
        **_named(LION, "lion sign signsgd lion8bit pagedlion pagedlion8bit fusedlion"),
        # Steps of the size of lr in every entry, whatever the gradient's, as their steps show.
        **_named(
            replace(ADAMW, weight_decay=0.0),
            "adan ademamix simplifiedademamix qhadam adamc ano schedulefreeadamw adamwschedulefree",
        ),
        **{
            name: replace(ADAMW, name=name, eps=eps, weight_decay=0.0)
            for name, eps in (("adopt", 1e-6), ("grams", 1e-6), ("laprop", 1e-15))
        },
        **_named(replace(LION, weight_decay=0.01), "tiger"),
        **_named(replace(LION, whole=True), "came"),
        # Averages of the iterates are linear in them.
        **_named(replace(SGD, decay="decoupled"), "sgdw schedulefreesgd sgdschedulefree"),
        **{known.name: known for known in (ADAFACTOR, MUON, ADAMH, MUONH, NORMUON, DION, ADAMUON)},
        "shampoo": SHAMPOO,
        "distributedshampoo": replace(SHAMPOO, name="distributedshampoo", options=None),
        **{known.name: known for known in (SOAP, KFAC, FOOF)},
        **dict.fromkeys(("learned", "learnedoptimizer"), LEARNED),
    }
)

# One family per column, to shift a whole table.
COLUMNS: Mapping[str, Family] = MappingProxyType(
    {"sgd": SGD, "adam": ADAMW, "muon": MUON, "kfac": KFAC, "foof": FOOF}
)


# Options that are the epsilon of an optimizer as a whole.
_EPSILONS = ("eps", "epsilon", "matrix_eps")
# What decay is in a column's optimizers that add it to the gradient.
_COUPLED: Mapping[str, Decay] = {"adam": "l2-normalised", "sgd": "l2"}


def _stated(optimizer: Any) -> Mapping[str, Any]:
    """The options of an instance, or a class's defaults; nothing of a name."""
    if isinstance(optimizer, str):
        return {}
    if isinstance(optimizer, type):
        parameters = inspect.signature(optimizer).parameters.items()
        return {name: p.default for name, p in parameters if p.default is not p.empty}
    return dict(getattr(optimizer, "defaults", {}))


def _with_own_defaults(known: Family, own: Mapping[str, Any]) -> Family:
    """The family with the decay and epsilon that an instance has, or a class by default."""
    decay, eps = own.get("weight_decay"), next((own[n] for n in _EPSILONS if n in own), None)
    if isinstance(decay, int | float) and known.decay != "none":
        known = replace(known, weight_decay=decay)
    return replace(known, eps=eps) if isinstance(eps, float) and known.eps is not None else known


def epsilon_option(optimizer: Any) -> str:
    """The name under which an optimizer's groups hold its epsilon.

    dion's classes and Meta's Shampoo have ``epsilon``, pytorch_optimizer's Shampoo ``matrix_eps``.

    Args:
        optimizer: as for `family`; of a name, and a class that has none, it is ``eps``.

    >>> epsilon_option("shampoo")
    'eps'
    """
    stated = _stated(optimizer)
    return next((name for name in _EPSILONS if name in stated), "eps")


def called(optimizer: Any) -> str:
    """The name by which the tables know an optimizer, given as for `family`.

    >>> called("AdamW"), called(ADAMW)
    ('adamw', 'adamw')
    """
    if isinstance(optimizer, Family):
        return optimizer.name
    return name_of(optimizer if isinstance(optimizer, str | type) else type(optimizer))


def _of_bitsandbytes(kind: Any) -> bool:
    return any(c.__module__.startswith("bitsandbytes.") for c in getattr(kind, "__mro__", ()))


def family(
    optimizer: Any,
    *,
    decoupled: bool | None = None,
    exponent: float | Sequence[float] | None = None,
    graft: str | None = None,
) -> Family:
    """The family of an optimizer given by name, class, instance, or as a `Family` itself.

    Args:
        optimizer: such as ``"adamw"``, ``torch.optim.AdamW``, an optimizer instance, or a `Family`
            for an optimizer that paramz does not know. What is left out below is an instance's own
            or the class's default.
        decoupled: overrides the decay kind of Adam's relatives (``decoupled_weight_decay`` of
            torch, ``weight_decouple`` of pytorch_optimizer, ``adam_w_mode`` of apex ...) and SGD's.
        exponent: Shampoo's, of each side or of the left and right one.
        graft: the optimizer from which Shampoo's steps get their size, and so its learning rates.

    Raises:
        ValueError: paramz does not know it; the message says which known one is closest and how to
            declare it. Or the exponent is none that Shampoo has rules for.

    >>> family("AdamW").decay, family("nadam", decoupled=True).decay
    ('decoupled', 'decoupled')
    """
    if isinstance(optimizer, Family):
        found = optimizer
    else:
        kind = optimizer if isinstance(optimizer, str | type) else type(optimizer)
        name = kind if isinstance(kind, str) else kind.__name__
        key = name_of(kind)
        if key in WITHOUT_RULE:
            raise ValueError(
                f"there is no rule for {name}: {WITHOUT_RULE[key]}. If you know what it does to a "
                "gradient, declare it: paramz.Family(...) says what such a declaration holds, and "
                "docs/own_optimizer.md how to check it"
            )
        if key not in FAMILIES:
            close = difflib.get_close_matches(key, FAMILIES, n=1, cutoff=0.5)
            hint = f"the closest name is {close[0]!r}; " if close else ""
            raise ValueError(
                f"paramz does not know the optimizer {name!r}: {hint}known are "
                f"{', '.join(FAMILIES)}. If its update is normalised entry by entry like Adam's, "
                f"pass dataclasses.replace(paramz.families.ADAMW, name={key!r}); if it is linear "
                f"in the gradient, the same with SGD."
            )
        own = _stated(optimizer)
        found = _with_own_defaults(FAMILIES[key], own)
        if found.decay == "l2-normalised" and "adam" in key and _of_bitsandbytes(kind):
            found = replace(found, decay="decoupled")  # one kernel for Adam and AdamW
        exponent = own.get("exponent") if exponent is None else exponent
        graft = own.get("graft") if graft is None else graft
        decoupled = read_decoupled(own, found.name) if decoupled is None else decoupled
    if exponent is not None and found.exponent is not None:
        sides = (exponent, exponent) if isinstance(exponent, int | float) else exponent
        e = sum((Fraction(side).limit_denominator(1000) for side in sides), _0)
        kept = {name: getattr(found, name) for name in ("name", "weight_decay", "eps", "options")}
        found = replace(shampoo(e), **kept)
    if graft is not None and found.exponent is not None:
        size = family(graft)
        return replace(found, lr_shift=size.lr_shift, graft=size.column)
    coupled = _COUPLED.get(found.column)
    if decoupled is None or coupled is None:
        return found
    return replace(found, decay="decoupled" if decoupled else coupled)
