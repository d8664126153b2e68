"""Groups of a constructed optimizer that were planned for another one."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from paramz.anatomy.tensors import listed
from paramz.plan.groups import NAMES, PLANNED_DECAY, PLANNED_FACTOR, PLANNED_FOR
from paramz.plan.own_factor import factor_words, keeps_norms, own_factor
from paramz.theory.decay import decoupling_options, read_decoupled
from paramz.theory.families import FAMILIES, WITHOUT_RULE, Family
from paramz.theory.families import family as find_family
from paramz.theory.refused import name_of


@dataclass(frozen=True, eq=False)
class Group:
    """A group of a constructed optimizer, with what it was planned for."""

    optimizer: Any
    values: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Of its tensors in the plan; empty if it was not made by a plan."""
        found: list[str] = self.values.get(NAMES, [])
        return found

    @property
    def shown(self) -> str:
        """What to call it in a message."""
        return f"the group of {listed(self.names, 2)} in {type(self.optimizer).__name__}"


def for_another(group: Group) -> Iterator[str]:
    """The optimizer multiplies its steps by what the groups count on."""
    options = {key: value for key, value in group.values.items() if key != "params"}
    meant = family_of(group.values.get(PLANNED_FOR), options)
    if meant is None:
        return  # a family that the user declared
    optimizer = _stepper(group.optimizer)
    kind, origin = type(optimizer), _origin(type(optimizer))
    actual = _inside(options) or family_of(origin, _read_by(optimizer, options))
    key = name_of(origin)
    if actual is None and key in WITHOUT_RULE:
        yield (
            f"{group.shown} was planned for {meant.name}, and there is no rule for "
            f"{kind.__name__}: {WITHOUT_RULE[key]}. If you know what it does to a gradient, "
            "declare it with paramz.Family(...)"
        )
        return
    if actual is not None and _scaling(actual) != _scaling(meant):
        yield (
            f"{group.shown} was planned for {meant.name}, whose learning rates are other ones than "
            f"those of {kind.__name__}: plan.param_groups(model, {kind.__name__}, lr=...)"
        )
        return
    if actual is not None and (said := _of_another_decay(group, meant, actual)):
        yield said
        return
    if (keeps_norms(group.optimizer) or keeps_norms(optimizer)) != meant.sphere:
        yield (
            f"{group.shown} was planned for {meant.name}, and its optimizer "
            f"{'does not keep' if meant.sphere else 'keeps'} the norms of its matrices, so its "
            "learning rates are right at the base only: "
            + (
                f"paramz.optim.constrained({kind.__name__}(groups))"
                if meant.sphere
                else "make the groups for 'adamh' or 'muonh'"
            )
        )
        return
    if meant.sphere or not (meant.shape_factor or meant.relative):
        return
    try:
        has = own_factor(actual or meant, optimizer, options).name
    except ValueError as error:
        yield f"{group.shown}: {error}"
        return
    counted = group.values[PLANNED_FACTOR]
    if has != counted:
        yield (
            f"{group.shown} counts on the factor {counted!r} that its optimizer puts on its steps, "
            f"and this {kind.__name__} has {has!r}, so its learning rates are right at the base "
            "only. Make the groups for its class, with the options that its constructor gets: "
            f"plan.param_groups(model, {kind.__name__}, lr=..., {factor_words(meant)})"
        )


def _of_another_decay(group: Group, meant: Family, actual: Family) -> str | None:
    """That a group's decay was planned for one that is apart from the gradient, or is not."""
    usual = FAMILIES.get(group.values[PLANNED_FOR], meant).decay
    planned, kind = group.values.get(PLANNED_DECAY, usual), type(group.optimizer)
    both = (planned == "decoupled", actual.decay == "decoupled")
    # SGD's moves alike, apart or in the gradient.
    if (
        not group.values.get("weight_decay")
        or both[0] == both[1]
        or "l2" in (planned, actual.decay)
    ):
        return None
    off, on = "takes it off the weights", "adds it to the gradient"
    this, that = (off, on) if both[0] else (on, off)
    return (
        f"the weight decay of {group.shown} was planned for {meant.name}, which {this}, and "
        f"{kind.__name__} {that}, where it moves otherwise with width: "
        f"plan.param_groups(model, {kind.__name__}, lr=..., weight_decay=...)"
    )


def of_unknown_classes(optimizers: Sequence[Any]) -> Iterator[str]:
    """Classes that paramz does not know, with groups for one that it knows, one sentence each.

    What is around another optimizer is left out: of that, its own class counts.
    """
    for optimizer in optimizers:
        kind = type(_stepper(optimizer))
        planned = {group.get(PLANNED_FOR) for group in getattr(optimizer, "param_groups", ())}
        names = sorted(str(name) for name in planned if family_of(name, {}) is not None)
        key, origin = name_of(kind), name_of(_origin(kind))
        if not names or origin in WITHOUT_RULE or origin in FAMILIES:
            continue
        yield (
            f"paramz does not know {kind.__name__}, whose groups were made for {names[0]}: their "
            f"learning rates hold if its steps answer to gradients as those of {names[0]} do. "
            "paramz.coord_check shows whether they do (docs/own_optimizer.md). "
            f"plan.param_groups(model, dataclasses.replace(paramz.family({names[0]!r}), "
            f"name={key!r}), lr=...) says that they do"
        )


# Where wrappers keep the optimizer whose steps they take: ZeroRedundancyOptimizer, timm's Lookahead
# and others. (`Plan.check` looks at what is in an ``optimizer`` in the wrapper's place.)
_HELD = ("optim", "base_optimizer", "_base_optimizer")


def _stepper(optimizer: Any) -> Any:
    """The optimizer whose steps are taken: that inside a wrapper which nobody knows."""
    while name_of(_origin(type(optimizer))) not in (*FAMILIES, *WITHOUT_RULE):
        held = (getattr(optimizer, name, None) for name in _HELD)
        inside = next((each for each in held if hasattr(each, "param_groups")), None)
        if inside is None:
            break
        optimizer = inside
    return optimizer


def _origin(kind: type) -> type:
    """The class that tells what an optimizer's steps are: one with a name of the tables, if any.

    It is a base of the class, unless a class before it has a step of its own.
    """
    known = (*FAMILIES, *WITHOUT_RULE)
    return next((c for c in kind.__mro__ if name_of(c) in known or _steps_itself(c)), kind)


def _steps_itself(kind: type) -> bool:
    """Whether a class defines a step that does not hand on to another one (super().step())."""
    code = getattr(inspect.unwrap(vars(kind).get("step", None)), "__code__", None)
    return code is not None and not {"step", "super"} & {*code.co_names}


def family_of(name: Any, options: dict[str, Any]) -> Family | None:
    """The family that a class or name has, with a group's options; None if paramz knows none."""
    called = name.__name__ if isinstance(name, type) else str(name)
    if name_of(called) not in FAMILIES:
        return None
    read = {name: options.get(name) for name in ("exponent", "graft")}
    apart = read_decoupled(options, name_of(called))
    return find_family(name if isinstance(name, type) else called, decoupled=apart, **read)


def _inside(options: dict[str, Any]) -> Family | None:
    """What takes a group that is not for the matrices of a Muon with an optimizer for the rest.

    pytorch_optimizer's and Jordan's say it by ``use_muon``, timm's by ``use_fallback``, too, and
    theirs is AdamW; dion's by the name of an algorithm.
    """
    if options.get("use_muon") is False or options.get("use_fallback"):
        return FAMILIES["adamw"]
    return family_of(options.get("algorithm", ""), options)


def _read_by(optimizer: Any, options: dict[str, Any]) -> dict[str, Any]:
    """A group's options without other libraries' words for a kind of decay, which go unread.

    Apex and DeepSpeed keep theirs as an attribute of the optimizer.
    """
    words = decoupling_options("")
    known = {*getattr(optimizer, "defaults", {}), *inspect.signature(type(optimizer)).parameters}
    chosen = {word: getattr(optimizer, word, None) for word in words}
    read = {key: value for key, value in options.items() if key not in words or key in known}
    return {**{w: bool(x) for w, x in chosen.items() if isinstance(x, int)}, **read}


def _scaling(family: Family) -> tuple[Any, ...]:
    """What the rules of a family follow from; K-FAC's class makes FOOF, too."""
    if family.column in ("kfac", "foof"):
        return ("kfac",)
    steps = (family.column, family.lr_shift, family.rotated, family.exponent, family.graft)
    # AdaMuon reads Adam's column, with a factor of its own.
    return (*steps, family.shape_factor)
