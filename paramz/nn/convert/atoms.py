"""From operations to atoms: groups of tensors that have the same scale.

Views, transpositions, rotary positions and the like leave a tensor's scale alone, so tensors that
differ only by these are one atom. Every operation that changes the scale makes a new atom; if
u-muP has no rule for the operation, the atom is ``unknown``, which is an error only where a linear
map depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from paramz.anatomy import names
from paramz.anatomy.paths import join
from paramz.nn.convert.trace import ATTENTION, Factor, Op

# Functions that rearrange entries, convert their type, or select some.
_KEEP = frozenset(
    """view reshape transpose permute contiguous unsqueeze squeeze expand expand_as flatten
    unflatten __getitem__ getitem split chunk unbind narrow select repeat_interleave repeat to
    float type type_as clone dropout neg __neg__ movedim swapaxes t index_select detach cat stack
    view_as reshape_as roll""".split()
)
_SUBTRACT = frozenset(("sub", "__sub__", "__isub__", "sub_", "subtract"))
_ADD = frozenset(("add", "__add__", "__radd__", "__iadd__", "add_"))
_MUL = frozenset(("mul", "__mul__", "__rmul__", "__imul__", "mul_", "multiply"))
_SOURCES = ("embedding", "table", "sum")
ACTIVATION_FUNCTIONS = tuple(dict.fromkeys(names.ACTIVATIONS.values()))
# The linear maps in a MultiheadAttention: the first three are rows of one parameter.
PROJECTIONS = ("in_proj_weight.query", "in_proj_weight.key", "in_proj_weight.value")
OUTPUT_PROJECTION = "out_proj"
KNOWN_FUNCTIONS = _KEEP | _ADD | _MUL | {*ACTIVATION_FUNCTIONS, ATTENTION}


@dataclass(frozen=True)
class Atom:
    """A tensor, and all those that are made of it by operations that leave the scale alone.

    Attributes:
        number: its index in the list of atoms.
        kind: ``data``, ``embedding``, ``table`` (a bare parameter), ``sum`` (of these), ``linear``,
            ``norm``, an activation, ``glu``, ``attention``, ``residual`` or ``unknown``.
        path: of the layer that made it, or of the module that called the function.
        inputs: atoms that it is made of: (up, gate) of a glu, (q, k, v) of attention, (branch,
            skip) of a residual.
        facts: what is known of the operation, see `paramz.nn.convert.trace.Op`.
        name: of the operation.
        ancestors: the numbers of all atoms that it depends on.
    """

    number: int
    kind: str
    path: str
    inputs: tuple[int, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    ancestors: frozenset[int] = frozenset()


def find_atoms(ops: Sequence[Op]) -> list[Atom]:
    """The atoms of a trace, in order.

    >>> find_atoms([Op("embedding", "e", (None,), 1), Op("view", "", (1,), 2)])[0].kind
    'embedding'
    """
    return _Reader().read(ops)


class _Reader:
    def __init__(self) -> None:
        self.atoms: list[Atom] = []
        self.of: dict[int, int] = {}  # tensor -> atom
        # A tensor that an atom was multiplied into -> that atom, and what it was multiplied by.
        self.turned: dict[int, tuple[int, Factor]] = {}

    def read(self, ops: Sequence[Op]) -> list[Atom]:
        for op in ops:
            known = [self.of[i] for i in op.inputs if i is not None]
            self.of[op.output] = self._atom(op, known)
            before = {self.turned[i] for i in op.inputs if i in self.turned}
            if op.name in _KEEP and len(before) == 1:
                (self.turned[op.output],) = before
        return self.atoms

    def _new(self, kind: str, op: Op, inputs: Sequence[int] = ()) -> int:
        found = frozenset(inputs).union(*(self.atoms[i].ancestors for i in inputs))
        number = len(self.atoms)
        self.atoms.append(Atom(number, kind, op.path, tuple(inputs), op.facts, op.name, found))
        return number

    def _atom(self, op: Op, known: list[int]) -> int:
        if op.name == "parameter":
            return self._new("table", op)
        if op.name in ("linear", "conv", "multihead", "norm", *ACTIVATION_FUNCTIONS) and not known:
            known = [self._new("data", op)] * max(1, len(op.inputs))
        if op.name == "conv":
            return self._new("linear", op, known)
        if op.name == "multihead" and len(known) == 3:
            return self._multihead(op, known)
        if op.name in ("linear", "embedding", "norm"):
            return self._new(op.name, op, known)
        if op.name in ACTIVATION_FUNCTIONS or op.name == "relu_":
            kind = op.name.rstrip("_")
            linear = self.atoms[known[0]].kind == "linear"
            return self._new(kind if linear else "unknown", op, known)
        if op.name == ATTENTION and len(known) == 3:
            return self._new("attention", op, known)
        if op.name in _ADD | _SUBTRACT and len(known) == 2:
            source = self._rotated(op)
            if source is not None:
                return source
        if op.name in _ADD and len(known) == 2:
            return self._add(op, *known)
        if op.name in _MUL:
            return self._product(op, known)
        same = len(set(known)) == 1 and all(
            i is not None or empty
            for i, empty in zip(op.inputs, op.facts.get("empty", ()), strict=False)
        )
        if op.name in _KEEP and same:
            return known[0]
        return self._new("unknown", op, known)

    def _multihead(self, op: Op, known: list[int]) -> int:
        """The parts of MultiheadAttention: three projections, attention, an output projection."""
        parts = [
            self._new("linear", replace(op, path=join(op.path, name)), [i])
            for name, i in zip(PROJECTIONS, known, strict=True)
        ]
        attention = self._new("attention", op, parts)
        return self._new("linear", replace(op, path=join(op.path, OUTPUT_PROJECTION)), [attention])

    def _add(self, op: Op, left: int, right: int) -> int:
        a, b = self.atoms[left], self.atoms[right]
        for branch, skip in ((a, b), (b, a)):
            if skip.number in branch.ancestors and branch.kind == "linear":
                return self._new("residual", op, (branch.number, skip.number))
        if a.kind in _SOURCES and b.kind in _SOURCES:
            return self._new("sum", op, (left, right))
        return self._new("unknown", op, (left, right))

    def _rotated(self, op: Op) -> int | None:
        """The atom that two tensors are made of by rotary positions.

        Cosines and sines together keep the scale: the means of their squares add up to 1.
        """
        parts = [self.turned.get(i) for i in op.inputs if i is not None]
        if len(parts) != 2 or parts[0] is None or parts[1] is None:
            return None
        (source, one), (other, two) = parts[0], parts[1]
        # Tensors on meta have no values, and half is the mean that cosines have.
        total = sum(0.5 if each.square is None else each.square for each in (one, two))
        # The tolerance is for cosines and sines in bfloat16.
        return source if source == other and math.isclose(total, 1.0, abs_tol=0.01) else None

    def _product(self, op: Op, known: list[int]) -> int:
        if len(known) == 1 and None in op.inputs:
            factor: Factor | None = op.facts["factors"][op.inputs.index(None)]
            if factor is not None:
                self.turned[op.output] = known[0], factor
                if factor.mask:
                    return known[0]
        kinds = [self.atoms[i].kind for i in known]
        if sorted(kinds) == ["linear", "silu"]:
            up, act = known if kinds[0] == "linear" else known[::-1]
            return self._new("glu", op, (up, act))
        return self._new("unknown", op, known)
