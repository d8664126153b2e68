"""The scale of every tensor of a plain model, relative to its unit-scaled counterpart.

Every atom t of the model has an ideal tensor t' of unit scale with ``t' = value * t``, and for the
gradients ``g' = grad * g``. The product value * grad stays the same through everything that lies
between two linear maps: it is 1. Inside a residual branch it is 1/weight, between the point where
u-muP leaves the branch's weight out of the gradient and the point where it puts it in.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass, field

from paramz.nn.convert.atoms import ACTIVATION_FUNCTIONS, Atom
from paramz.nn.convert.graph import Graph
from paramz.nn.functional import activation_scale, attention_scale, glu_scale
from paramz.nn.residual import Alphas


@dataclass
class Values:
    """What is filled in while going over the atoms.

    Attributes:
        value: of every atom, by its number; see the top of the file.
        product: value * grad of every atom.
        entries: the product at a norm or linear map where a branch begins.
        wanted: for every linear map, who uses its output and which value each needs it to have.
        problems: sentences for the error.
    """

    value: dict[int, float] = field(default_factory=dict)
    product: dict[int, float] = field(default_factory=dict)
    entries: dict[int, float] = field(default_factory=dict)
    wanted: dict[int, dict[str, float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def want(self, atom: Atom, value: float, user: str) -> None:
        """Ask that an atom has this value; only a linear map can be given one."""
        if atom.kind == "linear":
            self.wanted.setdefault(atom.number, {})[user] = value
        elif not math.isclose(self.value[atom.number], value):
            self.problems.append(f"{user} takes the {atom.kind} of {atom.path or 'the model'}")


def find_values(graph: Graph, alphas: Alphas, settable: Set[str]) -> Values:
    """The values and products of all atoms, or the problems that stand in the way.

    Args:
        graph: the model's.
        alphas: u-muP's hyperparameters.
        settable: paths of attention modules whose factor on the logits will be set.
    """
    values = Values()
    _find_entries(graph, values)
    for atom in graph.atoms:
        n = atom.number
        values.product[n] = values.entries.get(n, 1.0) if atom.kind == "norm" else 1.0
        if atom.kind == "attention":
            values.value[n] = _attention(atom, graph, alphas, settable, values)
        else:
            values.value[n] = _value(atom, graph, alphas, values)
    for n, wanted in values.wanted.items():
        if max(wanted.values()) - min(wanted.values()) > 1e-9:
            values.problems.append(
                f"the output of {graph.atoms[n].path} goes into {' and '.join(wanted)}, which need "
                "it at different scales"
            )
        values.value[n] = next(iter(wanted.values()))
    return values


def call_of(atom: Atom) -> str:
    """An operation and where it is called, for a message."""
    return f"{atom.name}, called in {atom.path or 'the model itself'}"


def _find_entries(graph: Graph, values: Values) -> None:
    for branch in graph.branches:
        for n in branch.atoms:
            atom = graph.atoms[n]
            if branch.start not in atom.inputs:
                continue
            if atom.kind not in ("norm", "linear"):
                values.problems.append(f"a residual branch that begins with {call_of(atom)}")
            values.entries[n] = 1 / branch.weight


def _value(atom: Atom, graph: Graph, alphas: Alphas, values: Values) -> float:
    """The value of an atom; a linear map's is what those who use its output want it to be."""
    inputs = graph.inputs(atom)
    if atom.kind == "sum":
        return float(sum(values.value[each.number] ** -2 for each in inputs) ** -0.5)
    if atom.kind in ACTIVATION_FUNCTIONS:
        mult = 1.0 if atom.kind == "relu" else alphas.ffn_act
        values.want(inputs[0], 1 / mult, f"{atom.kind} in {atom.path}")
        return activation_scale(atom.kind, mult) / mult
    if atom.kind == "glu":
        values.want(inputs[0], 1.0, f"the gated product in {atom.path}")
        return glu_scale(alphas.ffn_act) / alphas.ffn_act
    if atom.kind == "residual":
        return _residual(atom, graph, values)
    if atom.kind == "linear" and atom.number not in graph.used:
        return 1 / alphas.loss_softmax
    return 1.0


def _residual(atom: Atom, graph: Graph, values: Values) -> float:
    (branch,) = (each for each in graph.branches if each.residual.number == atom.number)
    end, skip = graph.inputs(atom)
    where = f"the residual connection in {atom.path}"
    if skip.kind == "linear":
        values.want(skip, 1.0, where)
    value = branch.skip * values.value[skip.number]
    values.want(end, value / branch.weight, where)
    values.product[end.number] = 1 / branch.weight
    return value


def _attention(
    atom: Atom, graph: Graph, alphas: Alphas, settable: Set[str], values: Values
) -> float:
    """The value of attention whose logits are to be mult/d_head q'k', whatever the code's factor.

    Where that factor cannot be set, queries and keys share what is missing.
    """
    facts = atom.facts
    missing = 1.0
    if atom.path not in settable and "scale" in facts:
        missing = alphas.attn_softmax / facts["d_head"] / facts["scale"]
    query, key, value = graph.inputs(atom)
    where = f"the attention in {atom.path}"
    values.want(query, missing**-0.5, where)
    values.want(key, missing**-0.5, where)
    own = missing**-0.5 if value.number in (query.number, key.number) else 1.0
    values.want(value, own, where)
    return own * attention_scale(
        facts["length"], facts["d_head"], causal=facts["causal"], mult=alphas.attn_softmax
    )
