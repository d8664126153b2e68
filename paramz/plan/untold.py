"""What to say of tensors whose role nothing tells, with lines that paste in."""

from __future__ import annotations

from collections.abc import Sequence

from paramz.anatomy.facts import TensorFacts
from paramz.anatomy.paths import pattern, pattern_of
from paramz.anatomy.tensors import ModelTensor


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
            "whether that is its fan_out (a table or first layer: role input) or its fan_in (a "
            f"readout: role output). Say which: {suggest(name, 'input')} or "
            f"{suggest(name, 'output')}"
        )
    return (
        f"{name} {tensor.shape}: axes {growing} grow with width, and {kind} does not tell which is "
        f"fan_in and which fan_out. Say it: roles={{{_pattern(name)}: "
        f"paramz.Axes(fan_in=({growing[-1]},), fan_out=({growing[0]},))}}"
    )


def tied_in_code(tensor: ModelTensor) -> str:
    """What to say of what forward code also multiplies by to make the model's output."""
    name = tensor.names[0]
    if not tensor.uses[0].kind.startswith("Embedding"):
        return (
            f"{name} {tensor.shape}: the weight of a {tensor.uses[0].kind} that forward code also "
            "multiplies by the other way round, to make the model's output. As a first layer and "
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
