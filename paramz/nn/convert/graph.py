"""How the atoms of a model hang together: what its linear maps depend on, and its branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paramz.nn.convert.atoms import Atom
from paramz.nn.functional import branch_weights
from paramz.nn.residual import Alphas, taus


@dataclass(frozen=True)
class Branch:
    """A residual branch.

    Attributes:
        residual: the atom that adds it to its skip connection.
        atoms: the numbers of the atoms inside, up to the linear map at its end.
        start: the number of the atom that it and its skip connection start from.
        weight: the factor on the branch in the weighted sum.
        skip: the factor on the skip connection.
    """

    residual: Atom
    atoms: frozenset[int]
    start: int
    weight: float
    skip: float


@dataclass(frozen=True)
class Graph:
    """The atoms of a model.

    Attributes:
        atoms: in the order in which they are computed.
        used: the numbers of those that some linear map depends on.
        branches: the residual branches, in order.
    """

    atoms: Sequence[Atom]
    used: frozenset[int]
    branches: Sequence[Branch]

    @property
    def inside(self) -> frozenset[int]:
        """The numbers of the atoms that are inside some residual branch."""
        return frozenset[int]().union(*(branch.atoms for branch in self.branches))

    def inputs(self, atom: Atom) -> list[Atom]:
        """The atoms that an atom is made of."""
        return [self.atoms[number] for number in atom.inputs]


def read_graph(atoms: Sequence[Atom], alphas: Alphas) -> Graph:
    """The graph of some atoms, with the weights of its branches by the tau rule.

    Args:
        atoms: of the model, from `paramz.nn.convert.atoms.find_atoms`.
        alphas: u-muP's hyperparameters, of which res and res_attn_ratio are used.
    """
    used = frozenset[int]().union(*(a.ancestors for a in atoms if a.kind == "linear"))
    found = []
    for atom in atoms:
        if atom.kind == "residual":
            end, skip = atom.inputs
            inside = {n for n in atoms[end].ancestors if skip in atoms[n].ancestors} | {end}
            found.append((atom, frozenset(inside), skip))
    attention = [any(atoms[n].kind == "attention" for n in inside) for _, inside, _ in found]
    weights = [branch_weights(tau) for tau in taus(attention, alphas)]
    return Graph(atoms, used, [Branch(*f, *w) for f, w in zip(found, weights, strict=True)])
