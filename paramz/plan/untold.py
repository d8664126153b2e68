"""What to say of tensors whose role nothing tells, with lines that paste in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from paramz.anatomy.bottlenecks import Place
from paramz.anatomy.facts import TensorFacts
from paramz.anatomy.paths import pattern, pattern_of
from paramz.anatomy.tensors import ModelTensor, listed


def without_type(tensor: ModelTensor, growing: tuple[int, ...]) -> str:
    """What to say of a bare parameter of a module that paramz does not know."""
    name, kind = tensor.names[0], tensor.uses[0].kind
    if len(growing) == 1 and growing[0] == 0 and len(tensor.shape) > 2:
        return (
            f"{name} {tensor.shape}: axis 0 grows with width, and {kind} does not tell what it "
            f"counts. Say it: {suggest(name, 'vector')} for a map of a fixed size for every head "
            f"or channel, {suggest(name, 'input')} if it is fan_out, "
            f"{suggest(name, 'output')} if it is fan_in"
        )
    if len(growing) == 1:
        return (
            f"{name} {tensor.shape}: axis {growing[0]} grows with width, but {kind} does not tell "
            "whether that is its fan_out (a table or first layer: role input), its fan_in (a "
            "readout: role output), or counts channels of which each has entries of its own (a "
            "state's decay: role vector), and no run shows it (of a product, one on a batch given "
            f"as example= may). Say which: {suggest(name, 'input')} or {suggest(name, 'output')} "
            f"or {suggest(name, 'vector')}"
        )
    first, *inner, last = growing
    ways = {
        "F.linear(x, w)": (tuple(inner) + (last,), (first,)),
        "x @ w": ((first,), tuple(inner) + (last,)),
    }
    if inner:
        ways = {
            "a map into heads": ((inner[-1],), (first, last)),
            "one out of heads": ((first, *inner), (last,)),
        }
    said = " or ".join(
        f"roles={{{_pattern(name)}: paramz.Axes(fan_in={fan_in}, fan_out={fan_out})}} for {how}"
        for how, (fan_in, fan_out) in ways.items()
    )
    return (
        f"{name} {tensor.shape}: axes {growing} grow with width, and neither {kind} nor a run "
        f"tells which is fan_in (what a product sums over) and which fan_out. Pass example=, a "
        f"batch that reaches it, or say it: {said}"
    )


def tied_in_code(tensor: ModelTensor) -> str:
    """What to say of what forward code also multiplies by to make the model's output."""
    name = tensor.names[0]
    kind = tensor.uses[0].kind
    if not kind.startswith("Embedding"):
        what = "a matrix" if tensor.uses[0].axes is None else "the weight"
        return (
            f"{name} {tensor.shape}: {what} of a {kind} that goes into width, and that forward "
            "code also multiplies by the other way round, to make the model's output. As a first "
            "layer and "
            "as a readout it has other rules, and no layer is there to take the readout's factor. "
            "Multiply what goes into that product by (width of the base) / width, and say it: "
            f"{suggest(name)}; or give the readout a weight of its own"
        )
    rows, width = tensor.shape
    return (
        f"{name} {tensor.shape}: an embedding that forward code also reads out with, in a product "
        "of its own. There a readout needs a factor of its own, and no layer is there to take it. "
        f"Let a layer share the table: self.head = nn.Linear({width}, {rows}, bias=False) and "
        f"self.head.weight = self.{name}, then self.head(h) in place of the product. "
        f"{suggest(name)} says that it is right as it is"
    )


def entered_in_code(tensor: ModelTensor) -> str:
    """What to say of a readout by whose weight forward code also goes into width."""
    name, kind = tensor.names[0], tensor.uses[0].kind
    return (
        f"{name} {tensor.shape}: the weight of a {kind} that reads out, and that forward code also "
        "takes the other way, as a table or first layer into width. These have other rules. If all "
        f"that is read out goes through the {kind} itself, say {suggest(name, 'input')}: it then "
        "counts as what goes in, and the layer has the readout's factor. Else give what goes in a "
        f"weight of its own. {suggest(name, 'output')} says that it is a readout above all"
    )


def trained_and_tied(tensor: ModelTensor, factor: float) -> str:
    """What to say of a table that is trained beside adapters, and that the model reads out with."""
    name = tensor.names[0]
    return (
        f"{name} {tensor.shape}: an embedding that is trained beside adapters, and that is the "
        f"readout, too. The readout would need a factor of {factor:.4g}, which would change what "
        "the model was trained to compute; without it the logits move more the wider the model is. "
        "Give the readout a weight of its own (PEFT's modules_to_save with both layers, and without"
        " ensure_weight_tying=True), or freeze it. Or say by which role it learns: "
        f"{suggest(name, 'output')} keeps how far the logits move, and the embedding moves less in "
        "wider models; 'input' keeps how far the embedding moves, and the logits move more"
    )


def named_apart(problem: str, facts: TensorFacts, tensors: Sequence[TensorFacts]) -> str:
    """What to say of a tensor, with a pattern that names none of another kind."""
    changed = _changed(facts)
    alike = [t.name for t in tensors if _changed(t) == changed]
    named = pattern_of(facts.name, alike, [t.name for t in tensors])
    general = pattern(facts.name)
    return problem if named == general else problem.replace(f"'{general}$'", f"'^{named}$'")


def _changed(facts: TensorFacts) -> list[bool] | None:
    """Which axes grow; None where even their number does."""
    if len(facts.base_shape) != len(facts.wider_shape):
        return None
    return [b != w for b, w in zip(facts.base_shape, facts.wider_shape, strict=True)]


def _pattern(name: str) -> str:
    """A regex for this tensor in every block, quoted: 'layers[.][0-9]+[.]w$'."""
    return repr(pattern(name) + "$")


def suggest(name: str, role: str = "input") -> str:
    """The argument that gives a tensor of every block a role.

    >>> suggest("layers.0.w")
    "roles={'layers[.][0-9]+[.]w$': 'input'}"
    """
    return f"roles={{{_pattern(name)}: {role!r}}}"


def notes_on_places(places: Mapping[str, Place], others: Iterable[str] = ()) -> list[str]:
    """What a reader of the plan should know of places that no run has shown, one sentence each.

    Args:
        places: name of a tensor -> its place.
        others: the names of all tensors, which what is suggested must not name by chance.
    """
    found: dict[str, dict[str, str]] = {}
    for name, place in places.items():
        if place.why == "structure":
            found.setdefault(_taken(place), {})[pattern(name)] = name
    kinds = {name: _taken(place) for name, place in places.items() if place.why == "structure"}
    notes = []
    for taken, alike in found.items():
        firsts, same = list(alike.values()), [name for name, kind in kinds.items() if kind == taken]
        notes.append(_note(taken, firsts, [pattern_of(name, same, others) for name in firsts]))
    return notes


def failure_notes(failure: str | None) -> list[str]:
    """What to say of a base whose own forward pass fails.

    Args:
        failure: the error; None if the base runs, or no run was needed.
    """
    if failure is None:
        return []
    return [
        f"the base model itself does not run: {failure}. What a run would have shown is not known "
        "to this plan (which maps are readouts, whether the size of a head grows), and nothing can "
        "be tuned on such a base. Give one that runs: another base width, or sizes that follow it"
    ]


# What a map is taken for -> the role that it then has, and the one that it has if that is wrong,
# with how to tell.
_ELSE = {
    "maps inside the network": ("inward", "output", "if they make the model's output"),
    "readouts": ("output", "inward", "if more of the network takes what they make"),
    "first layers": ("input", "outward", "if what goes in was made of width"),
}


def _taken(place: Place) -> str:
    if place.widens:
        return "first layers"
    return "maps inside the network" if place.inside else "readouts"


def _note(taken: str, alike: list[str], named: Sequence[str]) -> str:
    own, other, when = _ELSE[taken]
    said = ", ".join(f"{regex + '$'!r}: {own!r}" for regex in dict.fromkeys(named))
    return (
        f"{listed(alike, 4)}: read as {taken} by the order of the modules, because "
        "the model could not be run to see what goes in and where it goes, or uses them in "
        "training mode only. Give example=, a batch to run it with, or say which: "
        f"roles={{{said}}} if they are, {other!r} {when}"
    )
