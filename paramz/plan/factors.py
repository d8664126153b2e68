"""Factors in modules' own code: which of them a plan sets, and to what."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paramz.anatomy import names
from paramz.anatomy.attention import KEY_INPUT, GrowingHeads
from paramz.anatomy.factors import DeclaredFactor
from paramz.anatomy.facts import Facts
from paramz.anatomy.held import WrittenFactor
from paramz.anatomy.paths import pattern, pattern_of, split
from paramz.anatomy.shown_heads import in_one
from paramz.plan.row import ModuleScale, Row
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
    notes: dict[tuple[str, str, str], str] = {}  # one for all blocks that have the number
    for each in facts.written:
        said, named = _written(each, facts)
        if each.held is None:
            continue  # `unheld_factors` says what to do
        found[each.module] = found.get(each.module, 1.0) * each.held
        notes.setdefault(
            (named, each.place, f"{each.base:.4g}"),
            f"{said}: held at the base's value. factors={{r'^{named}$': None}} leaves it as the "
            "code has it",
        )
    return found, [*notes.values()]


def unheld_factors(facts: Facts) -> list[str]:
    """What to say of factors in forward code that nothing can hold, one sentence each.

    Args:
        facts: of the model.
    """
    found: dict[str, str] = {}
    for each in facts.written:
        if each.held is not None:
            continue
        said, named = _written(each, facts)
        if each.attribute is not None:
            way = (
                f"factors={{r'^{named}[.]{each.attribute}$': 'constant'}} holds {each.module}."
                f"{each.attribute} at the base's value"
            )
        elif each.place == "layer":
            way = (
                "and it cannot be held at the base's value because the layer has a bias, which it "
                "multiplies, too. Let the code use a number that stays, or bias=False"
            )
        else:
            way = (
                "and there is no layer of its own to hold it at. Let the code use a number "
                "that stays, or call a layer there"
            )
        found.setdefault(
            named, f"{said}, {way}; factors={{r'^{named}$': None}} says that it is right as it is"
        )
    return list(found.values())


_MULTIPLIED = {
    "embedding": "what comes out of",
    "layer": "what comes out of",
    "weight": "the weight of",
    "readout": "the logits of",
}


def _written(factor: WrittenFactor, facts: Facts) -> tuple[str, str]:
    """What forward code does there, and the pattern of the layer."""
    said = (
        f"forward code multiplies {_MULTIPLIED[factor.place]} {factor.module} by {factor.base:.4g} "
        f"in the base and by width^{factor.power:+.2g}"
    )
    alike = [each.module for each in facts.written if each.place == factor.place]
    layers = {split(tensor.name)[0] for tensor in facts.tensors}
    return said, pattern_of(factor.module, alike, layers)


def growing_dots(facts: Facts, rows: Sequence[Row]) -> list[str]:
    """What to say of products of two activations that nothing keeps in size, one sentence each.

    A sum over m entries is of size m^1/2 as drawn and of size m once both factors have learnt the
    same, as the logits of attention are (TP-V, section 5); a readout's init and rate would make up
    for it, and here there is no readout. A matrix whose entries data has multiplied, as in
    StyleGAN's modulated maps, has a rule for the sum.

    Args:
        facts: of the model.
        rows: of its tensors.
    """
    maps = {row.name for row in rows if "fan_in" in row.ratios}
    spoken = {each.module for each in facts.declared if each.kind != "depth"}
    apart = [
        each
        for each in facts.dots
        if each.left not in spoken
        and not each.drifts  # of which `moving_logits` speaks
        and not each.generated  # of which `paramz.plan.generated` speaks
        and maps.isdisjoint(each.gains)
        and not (
            each.fades and any(in_one(h.module, each.module) for h in facts.heads if h.average)
        )
        # What attention multiplies without a softmax has its factor, or was named, as attention.
        and (each.at_output or not any(in_one(h.module, each.module) for h in facts.heads))
    ]
    return [
        f"{each.left or 'a matrix of the model itself'}: what it puts out is averaged with a "
        "softmax over an axis that grows, and multiplied by a number that falls with width: an "
        "average keeps its size, so let the code multiply it by a number that stays. "
        f"factors={{{key}: None}} says that it is right as it is"
        if each.fades
        else f"{each.left or 'a matrix of the model itself'}: what it puts out is "
        + (_SUMMED if each.alone else _BY_ANOTHER)
        + f"{_AT_OUTPUT if each.at_output else ''}: it {_ALONE if each.alone else _TRAINED} by the "
        "length of that axis over its length in the base"
        + (f", or let factors={{{key}: 'width^-1'}} do it" if each.scalable else "")
        + f". factors={{{key}: None}} says that it is right as it is"
        for each in apart
        for key in [f"r'^{pattern(each.left)}$'"]
    ]


def moving_logits(facts: Facts) -> list[str]:
    """What to say of logits times a number that moves while their sum does not, a sentence each.

    Args:
        facts: of the model.
    """
    spoken = [e.module for e in facts.declared if e.kind == "leave" or e.attribute is not None]
    told = [*spoken, *(heads.module for heads in facts.heads)]
    found: dict[str, str] = {}
    for each in facts.dots:
        if not each.drifts or any(in_one(module, each.module) for module in told):
            continue
        moves = "fade" if each.factor < 1 else "grow"
        key = pattern(each.module)
        found.setdefault(
            key,
            f"{each.module or 'the model'}: forward code multiplies the logits of attention by a "
            "number that moves with width, and what they sum over is as long as in the base (the "
            f"size of a head stays, or queries and keys have length one), so logits {moves} with "
            "width. Use a number that stays, or keep it in self.scale, which a plan holds at the "
            f"base's value. factors={{r'^{key}$': None}} says that it is right as it is",
        )
    return list(found.values())


_BY_ANOTHER = "multiplied by another activation and summed over an axis that grows"
_TRAINED = "grows like width^1/2 as drawn and like width while it is trained. Divide it in the code"
_SUMMED = "summed over an axis that grows, or its length or distances are taken over that axis"
_ALONE = "grows with width. Take the mean in the code (of squares, for a length), or divide it"
_AT_OUTPUT = ", and that is the model's output"


def _logit_scale(heads: GrowingHeads, power: Power) -> ModuleScale | None:
    ratios = {"head": heads.head}
    if heads.held and power == USUAL_ATTENTION:
        return None
    if (heads.average or heads.held) and heads.attribute and power != USUAL_ATTENTION:
        value = heads.base / heads.beside
        value = heads.plain if math.isclose(value, heads.plain) else value
        return ModuleScale(heads.module, heads.attribute, heads.plain, value, "declared")
    if heads.attribute is None or (heads.constant and power == USUAL_ATTENTION):
        return None
    if heads.attribute == KEY_INPUT:
        return ModuleScale(heads.module, KEY_INPUT, 1.0, (power / USUAL_ATTENTION)(ratios))
    # A model whose own factor does not move with the size of a head (T5) has the 1/sqrt(d_head) in
    # the init of its queries. The plan gives those the init of any hidden matrix, so the factor
    # here has to be all of 1/d_head.
    value = heads.plain if power == USUAL_ATTENTION else heads.base * power(ratios)
    return ModuleScale(heads.module, heads.attribute, heads.plain, value)


def unreachable_heads(facts: Facts) -> list[str]:
    """What to say of attention whose heads grow and whose factor no attribute holds.

    Args:
        facts: of the model.
    """
    spoken = [each for each in facts.declared if each.kind != "depth"]
    known = {each.module for each in spoken if each.kind != "set" or each.attribute}
    found = [h.module for h in facts.heads if h.attribute is None and h.module not in known]
    if not found:
        return []
    where = ", ".join(found[:4]) or "the model"
    return [
        f"{where}: the size of a head grows with width, but there is no attribute "
        f"({', '.join(names.LOGIT_SCALES)}) through which to set 1/d_head, so the logits keep "
        "the scale that is in the code (1/sqrt(d_head), if it calls "
        "scaled_dot_product_attention plainly). Keep the scale in self.scale and pass it on "
        "(or name your attribute in the class: LOGIT_SCALE = '...', or here: "
        f"factors={{r'^{pattern(found[0])}[.]<attribute>$': 'attention'}}), or let the "
        "number of heads grow instead. "
        f"factors={{r'^{pattern(found[0])}$': None}} says that it is right as it is"
    ]


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
