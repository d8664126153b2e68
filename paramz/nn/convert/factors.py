"""u-muP's factors for the layers of a plain model, folded so that the model's own code stays.

A linear map can turn any scale into any other at no cost, so linear maps absorb everything: the
factors of activations and attention, the size of attention's logits, and the weights of branches
and skip connections. The residual stream is left to grow, which the norms behind it undo.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paramz.nn.convert.atoms import ACTIVATION_FUNCTIONS, KNOWN_FUNCTIONS, Atom
from paramz.nn.convert.graph import Graph, read_graph
from paramz.nn.convert.values import Values, call_of, find_values
from paramz.nn.functional import Constraint, linear_scale, readout_scale
from paramz.nn.residual import Alphas
from paramz.nn.scale import Scale
from paramz.plan.row import ModuleScale

Sizes = Mapping[str, tuple[int, float]]


@dataclass(frozen=True)
class Factors:
    """What the layers of a model get.

    Attributes:
        linear: path -> factors of a linear layer.
        readouts: paths of those that are readouts.
        norms: path -> factor on the gradient of a norm's gain and bias, and on its eps.
        inside: paths of linear layers and norms inside residual branches.
        attention: attention modules whose factor on the logits is set.
    """

    linear: Mapping[str, Scale]
    readouts: frozenset[str]
    norms: Mapping[str, tuple[float, float]]
    inside: frozenset[str]
    attention: tuple[ModuleScale, ...] = ()


def find_factors(
    atoms: Sequence[Atom], sizes: Sizes, alphas: Alphas, attention: Sequence[ModuleScale] = ()
) -> Factors:
    """The factors of every linear layer and norm.

    Args:
        atoms: of the model, from `paramz.nn.convert.atoms.find_atoms`.
        sizes: (fan_in, fan_out) of every linear layer, by path.
        alphas: u-muP's hyperparameters.
        attention: modules whose factor on the logits will be set; that of others is folded into
            their queries and keys.

    Raises:
        ValueError: a linear map depends on an operation that no rule covers, or on one in a place
            where its scale cannot be folded; the message lists them all. Or a layer is called in
            two places that need different factors.
    """
    graph = read_graph(atoms, alphas)
    values, problems = Values(), _problems(graph)
    if not problems:
        values = find_values(graph, alphas, {scale.module for scale in attention})
        problems = values.problems
    if problems:
        listed = "\n".join(f"  {line}" for line in dict.fromkeys(problems))
        raise ValueError(
            f"u-muP has no rule for some of what this model does up to its last linear map:\n"
            f"{listed}\n"
            "Known are Linear and Conv1D (a tied readout is a Linear with the embedding's weight), "
            "Conv1d and Conv2d, Embedding, LayerNorm and RMSNorm, "
            "GELU, SiLU, ReLU, SwiGLU, MultiheadAttention, scaled_dot_product_attention "
            "(transformers: attn_implementation='sdpa') and "
            "residual connections around branches that begin with a norm or a linear map and end "
            "with a linear map. Or build the model from paramz.nn."
        )
    linear = _linear_factors(graph, sizes, values)
    return Factors(
        linear=linear,
        readouts=frozenset(a.path for a in atoms if _is_readout(a, graph)),
        norms={
            a.path: (values.product[a.number], values.value[a.inputs[0]] ** -2)
            for a in atoms
            if a.kind == "norm"
        },
        inside=frozenset(
            atoms[n].path for n in graph.inside if atoms[n].kind in ("linear", "norm")
        ),
        attention=tuple(attention),
    )


def _problems(graph: Graph) -> list[str]:
    """What no rule covers, whatever the scales."""
    atoms = graph.atoms
    found = [
        call_of(a)
        for a in atoms
        if a.kind == "unknown"
        and (a.number in graph.used or _reads_a_matrix(a, graph))
        # An operation that is unknown only because it follows another unknown one is not to blame.
        and (
            a.name not in KNOWN_FUNCTIONS
            or not any(atoms[i].kind == "unknown" for i in a.ancestors)
        )
    ]
    found += [
        f"the convolution {a.path} as a last map: end with a linear layer"
        for a in atoms
        if a.name == "conv" and _is_readout(a, graph)
    ]
    found += [
        f"a residual connection around another one in {branch.residual.path}"
        for branch in graph.branches
        if any(atoms[n].kind == "residual" for n in branch.atoms)
    ]
    return found


def _reads_a_matrix(atom: Atom, graph: Graph) -> bool:
    """Whether an operation takes a matrix of parameters, as one of torch that is a readout does."""
    return any(each.kind == "table" and each.facts["axes"] > 1 for each in graph.inputs(atom))


def _is_readout(atom: Atom, graph: Graph) -> bool:
    """Whether a map is the last of its kind, and no end of a residual branch.

    A model without a readout, as the trunk of a language model is one, may end with a branch.
    """
    ends = {branch.residual.inputs[0] for branch in graph.branches}
    return atom.kind == "linear" and atom.number not in graph.used | ends


def _linear_factors(graph: Graph, sizes: Sizes, values: Values) -> dict[str, Scale]:
    unconstrained = _unconstrained(graph, sizes)
    found: dict[str, Scale] = {}
    for atom in graph.atoms:
        if atom.kind != "linear":
            continue
        constraint: Constraint = "none" if atom.number in unconstrained else "output"
        scale = _linear_scale(atom, graph, sizes[atom.path], values, constraint)
        if found.setdefault(atom.path, scale) != scale:
            raise ValueError(
                f"{atom.path} is called more than once, in places that need different scales: "
                "give each place a layer of its own"
            )
    return found


def _linear_scale(
    atom: Atom, graph: Graph, size: tuple[int, float], values: Values, constraint: Constraint
) -> Scale:
    fan_in, fan_out = size
    source = atom.inputs[0]
    before = values.value[source]
    grad_before = values.entries.get(atom.number, values.product[source]) / before
    if _is_readout(atom, graph):
        own, loss_tokens = readout_scale(fan_in, fan_out), 1.0
        # The model's user will compute the mean cross-entropy: this makes its gradient a unit one.
        grad_after = fan_out / math.sqrt(fan_out - 1) if fan_out > 1 else 1.0
    else:
        own, loss_tokens = linear_scale(fan_in, fan_out, constraint), 0.0
        grad_after = values.product[atom.number] / values.value[atom.number]
    return Scale(
        input=before,
        output=own.output / values.value[atom.number],
        grad_output=grad_after,
        grad_input=own.grad_input / grad_before,
        weight_tokens=own.weight_tokens,
        loss_tokens=loss_tokens,
    )


def _unconstrained(graph: Graph, sizes: Sizes) -> set[int]:
    """Linear maps whose gradient may be scaled by its own fan.

    `paramz.nn.functional.linear_scale` says where that is right.
    """
    atoms, inside = graph.atoms, graph.inside
    before_residual = frozenset[int]().union(*(a.ancestors for a in atoms if a.kind == "residual"))
    free = {a.number for a in atoms if a.kind == "linear" and a.number not in before_residual}
    for atom in atoms:
        if atom.kind != "linear" or atoms[atom.inputs[0]].kind not in (
            *ACTIVATION_FUNCTIONS,
            "glu",
        ):
            continue
        middle = graph.inputs(graph.inputs(atom)[0])
        ups = [each.number for each in middle if each.kind == "linear"]
        ups += [n for each in middle if each.kind == "silu" for n in each.inputs]
        transposed = sizes[atom.path][::-1]
        if atom.number in inside and all(sizes[atoms[n].path] == transposed for n in ups):
            free.update((atom.number, *ups))
    return free
