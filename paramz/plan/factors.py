"""Factors in modules' own code: which of them a plan sets, and to what."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from paramz.anatomy import names
from paramz.anatomy.attention import KEY_INPUT, GrowingHeads
from paramz.anatomy.factors import DeclaredFactor
from paramz.anatomy.facts import Facts
from paramz.anatomy.paths import pattern
from paramz.plan.row import ModuleScale
from paramz.theory.power import Power
from paramz.theory.rules import USUAL_ATTENTION


def module_scales(facts: Facts, power: Power) -> tuple[ModuleScale, ...]:
    """The factors in modules' own code that the plan sets.

    Args:
        facts: of the model.
        power: what the scheme has attention logits multiplied by.

    Warns:
        UserWarning: heads grow, and the factor on their logits is out of reach.
    """
    if power == USUAL_ATTENTION:  # SP and NTP keep the factors that are in the model's code
        plain = [_logit_scale(heads, power) for heads in facts.heads]
        return tuple(scale for scale in plain if scale is not None)
    taken = {(each.module, each.attribute) for each in facts.declared}
    heads = [each for each in facts.heads if (each.module, each.attribute) not in taken]
    known = {each.module for each in facts.declared if each.kind != "set" or each.attribute}
    _warn_of_unreachable([each for each in heads if each.module not in known])
    scales = [_logit_scale(each, power) for each in heads]
    found = [*scales]
    found += [
        ModuleScale(each.module, each.attribute, each.plain, each.base, "embedding")
        for each in facts.embeddings
        if (each.module, each.attribute) not in taken
    ]
    found += [_declared(each, power) for each in facts.declared]
    found += [
        ModuleScale(each.module, names.FUSED_ATTENTION, 1.0, 0.0, "switch")
        for each, scale in zip(heads, scales, strict=True)
        if each.fused and scale is not None and scale.value != scale.plain
    ]
    return tuple(scale for scale in found if scale is not None)


def _declared(factor: DeclaredFactor, power: Power) -> ModuleScale | None:
    if factor.attribute is None or factor.kind == "leave":
        return None
    if factor.kind == "attention":
        value = factor.value * power({"head": factor.head})
        return ModuleScale(factor.module, factor.attribute, factor.plain, value)
    return ModuleScale(factor.module, factor.attribute, factor.plain, factor.value, "declared")


def code_multipliers(facts: Facts, power: Power) -> tuple[dict[str, float], list[str]]:
    """Factors that are in forward code only: module path -> what holds them, and a note on each.

    A factor on what goes into a layer, or comes out of an embedding. Those that a user declares
    need no note.

    Args:
        facts: of the model.
        power: what the scheme has attention logits multiplied by.
    """
    if power == USUAL_ATTENTION:  # SP and NTP keep the factors that are in the model's code
        return {}, []
    found = {
        each.module: each.value
        for each in facts.declared
        if each.attribute is None and each.kind == "set"
    }
    notes = []
    for each in facts.written:
        what = "what comes out of" if each.place == "embedding" else "the logits of"
        said = (
            f"forward code multiplies {what} {each.module} by {each.base:.4g} in the base and by "
            f"width^{each.power:+.2g}"
        )
        key = f"r'^{pattern(each.module)}$'"
        if each.held is None:
            notes.append(
                f"{said}, and there is no layer of its own to hold it at. Let the code use a "
                "number that stays, or call a layer there; "
                f"factors={{{key}: None}} says that it is right as it is"
            )
            continue
        found[each.module] = found.get(each.module, 1.0) * each.held
        notes.append(
            f"{said}: held at the base's value. factors={{{key}: None}} leaves it as the code has "
            "it"
        )
    return found, notes


def _logit_scale(heads: GrowingHeads, power: Power) -> ModuleScale | None:
    ratios = {"head": heads.head}
    if heads.attribute is None or (heads.constant and power == USUAL_ATTENTION):
        return None
    if heads.attribute == KEY_INPUT:
        return ModuleScale(heads.module, KEY_INPUT, 1.0, (power / USUAL_ATTENTION)(ratios))
    # A model whose own factor does not move with the size of a head (T5) has the 1/sqrt(d_head) in
    # the init of its queries. The plan gives those the init of any hidden matrix, so the factor
    # here has to be all of 1/d_head.
    return ModuleScale(heads.module, heads.attribute, heads.plain, heads.base * power(ratios))


def _warn_of_unreachable(found: Sequence[GrowingHeads]) -> None:
    unreachable = [heads.module for heads in found if heads.attribute is None]
    if unreachable:
        warnings.warn(
            f"{', '.join(unreachable[:4])}: the size of a head grows with width, but there is no "
            f"attribute ({', '.join(names.LOGIT_SCALES)}) through which to set 1/d_head, so the "
            "logits keep the scale that is in the code (1/sqrt(d_head), if it calls "
            "scaled_dot_product_attention plainly). Keep the scale in self.scale and pass it on "
            "(or name your attribute in the class: LOGIT_SCALE = '...', or here: "
            f"factors={{r'^{pattern(unreachable[0])}[.]<attribute>$': 'attention'}}), or let the "
            "number of heads grow instead. "
            f"factors={{r'^{pattern(unreachable[0])}$': None}} says that it is right as it is.",
            stacklevel=7,  # parametrize_ or make_plan's caller, five functions of the package above
        )


def nested_switches(
    facts: Facts, scales: Sequence[ModuleScale], hooked: Sequence[str]
) -> list[ModuleScale]:
    """Nested tensors off in the encoders that get hooks inside: a hook turns off the fast path.

    Args:
        facts: of the model.
        scales: the factors that the plan sets; one on the input of keys is a hook.
        hooked: paths of the modules that get other hooks.
    """
    keys = [s.module for s in scales if s.attribute == KEY_INPUT and s.value != 1.0]
    inside = [*keys, *hooked]
    return [
        ModuleScale(path, names.NESTED_TENSORS, 1.0, 0.0, "switch")
        for path in facts.nested
        if any(not path or each.startswith(f"{path}.") for each in inside)
    ]
