"""u-muP's factors for the layers of a plain model, folded so that its own code stays.

Every atom t of the model has an ideal tensor t' of unit scale with ``t' = value * t``, and for the
gradients ``g' = grad * g``. Linear maps can turn any scale into any other at no cost, so
they absorb everything: the factors of activations and attention, the size of attention's logits,
and the weights of branches and skip connections (the residual stream is left to grow, as the norms
behind it do not mind). The product value * grad is constant through all that lies between linear
maps: 1, or 1/branch from the point where a branch's gradient is delayed to where it is made good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from paramz.nn.convert.atoms import ACTIVATIONS, KNOWN_FUNCTIONS, Atom
from paramz.nn.functional import (
    Constraint,
    activation_scale,
    attention_scale,
    branch_weights,
    glu_scale,
    linear_scale,
    readout_scale,
)
from paramz.nn.residual import Alphas, taus
from paramz.nn.scale import Scale
from paramz.plan.row import ModuleScale


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


@dataclass
class _Work:
    """What is filled in while walking over the atoms.

    Attributes:
        value, product: of every atom; see the top of the file.
        entries: the product at a norm or linear map where a branch begins.
        wanted: the value that each user of a linear map's output needs it to have.
        problems: sentences for the error.
    """

    problems: list[str]
    value: dict[int, float] = field(default_factory=dict)
    product: dict[int, float] = field(default_factory=dict)
    entries: dict[int, float] = field(default_factory=dict)
    wanted: dict[int, dict[str, float]] = field(default_factory=dict)

    def want(self, atom: Atom, value: float, why: str) -> None:
        if atom.kind == "linear":
            self.wanted.setdefault(atom.number, {})[why] = value
        elif not math.isclose(self.value[atom.number], value):
            self.problems.append(f"{why} takes the {atom.kind} of {atom.path or 'the model'}")


def find_factors(
    atoms: Sequence[Atom],
    sizes: Mapping[str, tuple[int, float]],
    alphas: Alphas,
    attention: Sequence[ModuleScale] = (),
) -> Factors:
    """The factors of every linear layer and norm.

    Args:
        atoms: of the model, from `find_atoms`.
        sizes: (fan_in, fan_out) of every linear layer, by path.
        alphas: u-muP's hyperparameters.
        attention: modules whose factor on the logits will be set; that of others is folded into
            their queries and keys.

    Raises:
        ValueError: a linear map depends on an operation that no rule covers, or on one in a place
            where its scale cannot be folded. The message lists them all.
    """
    linears = [a for a in atoms if a.kind == "linear"]
    used = frozenset[int]().union(*(a.ancestors for a in linears))
    problems = [
        _unknown(a)
        for a in atoms
        if a.kind == "unknown"
        and a.number in used
        # What would have a rule, had it not followed something that has none, is not to blame.
        and (
            a.name not in KNOWN_FUNCTIONS
            or not any(atoms[i].kind == "unknown" for i in a.ancestors)
        )
    ]
    problems += [
        f"the convolution {a.path} as a last map: end with a linear layer"
        for a in linears
        if a.name == "conv" and a.number not in used
    ]
    branches = _branches(atoms, used, alphas, problems)
    work = _Work(problems=problems)
    if not problems:
        _walk(atoms, branches, used, alphas, {a.module for a in attention}, work)
    if work.problems:
        listed = "\n".join(f"  {line}" for line in dict.fromkeys(work.problems))
        raise ValueError(
            f"u-muP has no rule for some of what this model does before its last linear map:\n"
            f"{listed}\n"
            "Known are Linear and Conv1D, Conv1d and Conv2d, Embedding, LayerNorm and RMSNorm, "
            "GELU, SiLU, ReLU, SwiGLU, MultiheadAttention, scaled_dot_product_attention "
            "(transformers: attn_implementation='sdpa') and "
            "residual connections around branches that begin with a norm or a linear map and end "
            "with a linear map. Or build the model from paramz.nn."
        )
    return replace(_collect(atoms, branches, used, sizes, work), attention=tuple(attention))


def _unknown(atom: Atom) -> str:
    return f"{atom.name}, called in {atom.path or 'the model itself'}"


@dataclass(frozen=True)
class _Branch:
    """A residual branch: its atoms, where it starts, and its weight and the skip connection's."""

    residual: Atom
    atoms: frozenset[int]
    start: int
    weight: float
    skip: float


def _branches(
    atoms: Sequence[Atom], used: frozenset[int], alphas: Alphas, problems: list[str]
) -> list[_Branch]:
    found = []
    for atom in atoms:
        if atom.kind != "residual":
            continue
        end, skip = atom.inputs
        inside = {n for n in atoms[end].ancestors if skip in atoms[n].ancestors} | {end}
        found.append((atom, frozenset(inside), skip))
        if any(atoms[n].kind == "residual" for n in inside):
            problems.append(f"a residual connection around another one in {atom.path}")
    kinds = [any(atoms[n].kind == "attention" for n in inside) for _, inside, _ in found]
    weights = [branch_weights(tau) for tau in taus(kinds, alphas)]
    return [_Branch(*f, *w) for f, w in zip(found, weights, strict=True)]


def _walk(
    atoms: Sequence[Atom],
    branches: Sequence[_Branch],
    used: frozenset[int],
    alphas: Alphas,
    settable: Set[str],
    work: _Work,
) -> None:
    by_residual = {b.residual.number: b for b in branches}
    _find_entries(atoms, branches, work)
    for atom in atoms:
        n, inputs = atom.number, [atoms[i] for i in atom.inputs]
        work.product[n] = 1.0
        value = 1.0
        if atom.kind == "sum":
            value = sum(work.value[i] ** -2 for i in atom.inputs) ** -0.5
        elif atom.kind == "norm":
            work.product[n] = work.entries.get(n, 1.0)
        elif atom.kind in ACTIVATIONS:
            mult = 1.0 if atom.kind == "relu" else alphas.ffn_act
            work.want(inputs[0], 1 / mult, f"{atom.kind} in {atom.path}")
            value = activation_scale(atom.kind, mult) / mult
        elif atom.kind == "glu":
            work.want(inputs[0], 1.0, f"the gated product in {atom.path}")
            value = glu_scale(alphas.ffn_act) / alphas.ffn_act
        elif atom.kind == "attention":
            value = _attention(atom, inputs, alphas, settable, work)
        elif atom.kind == "residual":
            branch = by_residual[n]
            end, skip = inputs
            if skip.kind == "linear":
                work.want(skip, 1.0, f"the residual connection in {atom.path}")
            value = branch.skip * work.value[skip.number]
            work.want(end, value / branch.weight, f"the residual connection in {atom.path}")
            work.product[end.number] = 1 / branch.weight
        elif atom.kind == "linear" and n not in used:
            value = 1 / alphas.loss_softmax
        work.value[n] = value
    for n, wanted in work.wanted.items():
        if max(wanted.values()) - min(wanted.values()) > 1e-9:
            work.problems.append(
                f"the output of {atoms[n].path} goes into {' and '.join(wanted)}, which need it at "
                "different scales"
            )
        work.value[n] = next(iter(wanted.values()))


def _find_entries(atoms: Sequence[Atom], branches: Sequence[_Branch], work: _Work) -> None:
    for branch in branches:
        for n in branch.atoms:
            atom = atoms[n]
            if branch.start not in atom.inputs:
                continue
            if atom.kind not in ("norm", "linear"):
                work.problems.append(f"a residual branch that begins with {_unknown(atom)}")
            work.entries[n] = 1 / branch.weight


def _attention(
    atom: Atom, inputs: Sequence[Atom], alphas: Alphas, settable: Set[str], work: _Work
) -> float:
    """Logits of mult/d_head q'k' whatever factor the code has: q and k share what is missing."""
    facts = atom.facts
    missing = 1.0
    if atom.path not in settable and "scale" in facts:
        missing = alphas.attn_softmax / facts["d_head"] / facts["scale"]
    query, key, value = inputs
    where = f"the attention in {atom.path}"
    work.want(query, missing**-0.5, where)
    work.want(key, missing**-0.5, where)
    own = missing**-0.5 if value.number in (query.number, key.number) else 1.0
    work.want(value, own, where)
    return own * attention_scale(
        facts["length"], facts["d_head"], causal=facts["causal"], mult=alphas.attn_softmax
    )


def _collect(
    atoms: Sequence[Atom],
    branches: Sequence[_Branch],
    used: frozenset[int],
    sizes: Mapping[str, tuple[int, float]],
    work: _Work,
) -> Factors:
    inside = frozenset[int]().union(*(b.atoms for b in branches))
    free = _unconstrained(atoms, sizes, inside)
    linear: dict[str, Scale] = {}
    norms: dict[str, tuple[float, float]] = {}
    readouts = set()
    for atom in atoms:
        n = atom.number
        if atom.kind == "norm":
            norms[atom.path] = (work.product[n], work.value[atom.inputs[0]] ** -2)
        if atom.kind != "linear":
            continue
        fan_in, fan_out = sizes[atom.path]
        before = work.value[atom.inputs[0]]
        grad_before = work.entries.get(n, work.product[atom.inputs[0]]) / before
        grad_after = work.product[n] / work.value[n]
        if n in used:
            constraint: Constraint = "none" if n in free else "output"
            own, loss_tokens = linear_scale(fan_in, fan_out, constraint), 0.0
        else:
            readouts.add(atom.path)
            own, loss_tokens = readout_scale(fan_in, fan_out), 1.0
            # Of the mean cross-entropy that the model's user will compute.
            grad_after = fan_out / math.sqrt(fan_out - 1) if fan_out > 1 else 1.0
        found = Scale(
            input=before,
            output=own.output / work.value[n],
            grad_output=grad_after,
            grad_input=own.grad_input / grad_before,
            weight_tokens=own.weight_tokens,
            loss_tokens=loss_tokens,
        )
        if linear.setdefault(atom.path, found) != found:
            raise ValueError(
                f"{atom.path} is called more than once, in places that need different scales: "
                "give each place a layer of its own"
            )
    paths = frozenset(atoms[n].path for n in inside if atoms[n].kind in ("linear", "norm"))
    return Factors(linear, frozenset(readouts), norms, paths)


def _unconstrained(
    atoms: Sequence[Atom], sizes: Mapping[str, tuple[int, float]], inside: frozenset[int]
) -> set[int]:
    """Linear maps whose gradient may be scaled by its own fan: see `functional.linear_scale`."""
    before_residual = frozenset[int]().union(
        *(a.ancestors for a in atoms if a.kind == "residual"), frozenset()
    )
    free = {a.number for a in atoms if a.kind == "linear" and a.number not in before_residual}
    for atom in atoms:
        if atom.kind != "linear" or atoms[atom.inputs[0]].kind not in (*ACTIVATIONS, "glu"):
            continue
        middle = atoms[atom.inputs[0]]
        ups = [i for i in middle.inputs if atoms[i].kind == "linear"]
        ups += [j for i in middle.inputs if atoms[i].kind == "silu" for j in atoms[i].inputs]
        transposed = sizes[atom.path][::-1]
        if atom.number in inside and all(sizes[atoms[i].path] == transposed for i in ups):
            free.update((atom.number, *ups))
    return free
