"""Which scheme fits a model: what differs from its base, and what the optimizer has rules for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from paramz.anatomy.adapters import adapter_kinds, find_adapters
from paramz.anatomy.masks import find_masked
from paramz.anatomy.sound import require_model
from paramz.anatomy.stacks import NO_RULE_FOR_RUNS
from paramz.apply.parametrize import make_plan
from paramz.plan.plan import Plan
from paramz.plan.unmoved import NOTHING_DIFFERS
from paramz.theory.families import Family
from paramz.theory.families import family as find_family

# From the fewest rules to the most: the first that can plan the model says what differs.
_CANDIDATES = ("mup", "mup+completep", "mup+moe", "mup+completep+moe")
# With rules for runs of the same blocks, too, which no tensor shows.
_DEEPER = {"mup": "mup+completep", "mup+moe": "mup+completep+moe"}
_LARGE_VOCABULARY = 16
# Adapters s B A x, whose best learning rates over the rank were measured on a language model.
_PAIRS = ("PEFT's LORA", "paramz.adapters.ShareLoRA", "paramz.adapters.MoS")
_WHY_RSLORA = (
    "it is a language model: on one the best lr of LoRA moved over 1000 steps of AdamW by +0.03 "
    "octave per doubling of the rank under rslora, by +0.28 under lora (in 300 steps by 0.07 under "
    "lora)"
)


@dataclass(frozen=True)
class Suggestion:
    """A scheme for a model, with the reasons.

    Attributes:
        scheme: as `parametrize_` takes it.
        plan: what it would do to the model.
        because: what differs from the base, one sentence each.
        warnings: what stands against it or needs a decision.
        code: the two lines to write; what was given and is no number or name stands as ``...``, and
            a `paramz.Family` as ``family``.
    """

    scheme: str
    plan: Plan
    because: tuple[str, ...]
    warnings: tuple[str, ...]
    code: str

    def __str__(self) -> str:
        lines = [f"{self.scheme}: {'; '.join(self.because)}", "", self.code]
        return "\n".join(lines + [f"\nmind: {warning}" for warning in self.warnings])


def suggest(model: nn.Module, optimizer: Any = "adamw", **base: Any) -> Suggestion:
    """The scheme with the fewest rules that covers what differs between a model and its base.

    Args:
        model: the target; it stays as it is, and may be on the meta device.
        optimizer: name, class or instance.
        **base: ``base``, ``base_width`` and all else that `make_plan` takes.

    Raises:
        ValueError: no scheme can plan the model, as `make_plan` says; or paramz has no rule for the
            optimizer.
        TypeError: as for `make_plan`.

    >>> net = lambda w: nn.Sequential(nn.Linear(4, w), nn.ReLU(), nn.Linear(w, w), nn.Linear(w, 2))
    >>> found = suggest(net(32), "adamw", base=net, base_width=8)
    >>> found.scheme, found.because
    ('mup', ('width times 4',))
    """
    require_model(model)
    family = find_family(optimizer)
    scheme, plan, said = _first_that_plans(model, base)
    ratios = {
        scale: _farthest_from_one(row.ratios.get(scale, 1.0) for row in plan.rows)
        for scale in (
            "fan_in", "fan_out", "depth", "loops", "experts", "top_k", "rank", "entries", "density"
        )
    }  # fmt: skip
    width = _farthest_from_one((ratios["fan_in"], ratios["fan_out"]))
    named = ("depth", "loops", "experts", "rank")
    differs = {"width": width, **{name: ratios[name] for name in named}}
    differs["entries in a row of an adapter"] = ratios["entries"]
    differs["density"] = ratios["density"]
    because = [f"adapters: {kind}" for kind in adapter_kinds(model)]
    because += [f"{name} times {ratio:.4g}" for name, ratio in differs.items() if ratio != 1.0]
    if scheme.endswith("rslora"):
        because.append(_WHY_RSLORA)
        if family.column != "adam":
            said.append(f"rslora was chosen by what AdamW showed; {family.name} was not measured")
    if not because:
        said.append(NOTHING_DIFFERS)
    if ratios["experts"] != 1.0 and ratios["top_k"] == 1.0:
        said.append(
            "the number of active experts stays while that of experts grows, so every expert sees "
            "fewer tokens, which are more alike: experimental with AdamW (its checks pass with a "
            "teacher's labels, are undecided with labels drawn at random, and fail for MoEUT on "
            "tokens drawn at random), and SGD's learning rates do not transfer"
        )
    said += _of_vocabulary(plan)
    lonely = sorted({row.role for row in plan.rows if _lacks_rule(plan, row, family)})
    name, own = family.name, isinstance(optimizer, Family)
    groups = f"plan.param_groups(model, {'family' if own else repr(name)}, lr=...)"
    if lonely:
        ours = f"{name}=dict({'optimizer=family, ' if own else ''}lr=...)"
        groups = f"plan.split_groups(model, {ours}, adamw=dict(lr=...))"
        said.append(f"{name} has no rule for {', '.join(lonely)}: give those to AdamW, as above")
    given = "".join(
        f", {key}={value!r}" if isinstance(value, int | float | str) else f", {key}=..."
        for key, value in base.items()
    )
    code = f"plan = paramz.parametrize_(model, {scheme!r}{given})\ngroups = {groups}"
    return Suggestion(scheme, plan, tuple(because) or ("nothing differs",), tuple(said), code)


def _first_that_plans(model: nn.Module, base: dict[str, Any]) -> tuple[str, Plan, list[str]]:
    """A scheme, its plan, and what the plan warned of."""
    candidates: tuple[str, ...] = _CANDIDATES
    number, own = None, "rslora" if _adds_to_words(model) else "lora"
    if find_adapters(model):
        number = base["base"] if isinstance(base.get("base"), int) else None
        # A number is the base's width, as everywhere but under lora alone, where it is its rank.
        candidates = (*_CANDIDATES, f"mup+{own}")
        candidates = (own, *candidates) if number is None else (*candidates, own)
    if find_masked(model):
        candidates = (*candidates, *(f"{scheme}+s-mup" for scheme in _CANDIDATES))
    errors: dict[str, Exception] = {}
    for scheme in candidates:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                plan = make_plan(model, scheme, **base)
            except (TypeError, ValueError) as error:
                errors[scheme] = error
                if isinstance(error, TypeError) and len(errors) == 1 and number is None:
                    break  # something is missing, whatever the scheme
                continue
        if scheme in _DEEPER and any(note.endswith(NO_RULE_FOR_RUNS) for note in plan.notes):
            deeper = _looped(model, _DEEPER[scheme], base)
            scheme, plan = (scheme, plan) if deeper is None else (_DEEPER[scheme], deeper)
        said = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
        if number is not None and scheme != own:
            said.append(
                f"base={number} was read as a width; for adapters of rank {number} at the same "
                f"width: paramz.make_plan(model, {own!r}, base={number})"
            )
        return scheme, plan, list(dict.fromkeys([*said, *plan.notes]))
    first = next(iter(errors.values()))
    if number is not None and own in errors:
        raise ValueError(f"base={number} as a width: {first}\nAs a rank: {errors[own]}")
    raise first


def _adds_to_words(model: nn.Module) -> bool:
    """Whether a model puts out the words that it reads, with adapters s B A x."""
    if not set(adapter_kinds(model)) <= set(_PAIRS):
        return False
    tables = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    words = max(tables, default=0)
    return any(m.out_features == words for m in model.modules() if isinstance(m, nn.Linear))


def _looped(model: nn.Module, scheme: str, base: dict[str, Any]) -> Plan | None:
    """A plan that has rules for runs; None if these are not those of residual blocks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return make_plan(model, scheme, **base)
        except ValueError:
            return None


def _farthest_from_one(ratios: Iterable[float]) -> float:
    """A target may be smaller than its base, too."""
    return max(ratios, key=lambda ratio: max(ratio, 1 / ratio), default=1.0)


def _lacks_rule(plan: Plan, row: Any, family: Family) -> bool:
    try:
        plan.rule(row, family)
    except KeyError:
        return True
    return False


def _of_vocabulary(plan: Plan) -> list[str]:
    tables = [row for row in plan.rows if row.role == "input" and len(row.shape) == 2]
    for row in tables:
        if len(row.growing) != 1:
            continue
        width, many = row.shape[row.growing[0]], row.shape[1 - row.growing[0]]
        if many >= _LARGE_VOCABULARY * width:
            return [
                f"{row.name} has {many} rows at a width of {width}: 'mup+large-vocab' is the "
                "published rule for vocabularies much larger than width; with 4096 words and "
                "widths 16 to 128 it held the best lr a little better than mup and ended 0.03 "
                "higher in loss"
            ]
    return []
