"""What is known of a tensor in a run that looks for products of two activations.

Which parameters made it, what has multiplied it since, and whether it is a length or of length one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from paramz.anatomy import operations as ops
from paramz.anatomy.generated import Terms
from paramz.anatomy.memory import are_one


class Made(NamedTuple):
    """What is known of a stretch of memory.

    Attributes:
        made: the parameters that made it, with no other product since.
        data: it depends on the model's input.
        raw: it is a parameter, or made of some entry by entry.
        factor: the numbers that have multiplied it since.
        unit: it is a vector of length one, but for that factor.
        length: it is the "length" of what the same parameters made, or the "square" of that.
        paired: the states of two things, multiplied entry by entry.
        pending: the products that it holds.
        soft: those of which it is a softmax.
        sums: sums of one activation that it holds.
        shares: over how many entries it is a softmax, times the factor; 0 if it is none.
        gains: the parameters that have multiplied it since, entry by entry.
        terms: its summands, if it is made of parameters and constants alone.
        held: it is a parameter's, and a norm holds its size.
    """

    made: frozenset[str] = frozenset()
    data: bool = False
    raw: bool = False
    factor: float = 1.0
    unit: bool = False
    length: str = ""
    paired: tuple[Any, Any] | None = None
    pending: frozenset[int] = frozenset()
    soft: frozenset[int] = frozenset()
    sums: frozenset[int] = frozenset()
    shares: int = 0
    gains: tuple[str, ...] = ()
    terms: Terms = ()
    held: bool = False


def gains_of(found: list[Made], data: bool) -> tuple[str, ...]:
    """The parameters among those that multiply an activation, each as often as it does."""
    own = (sorted(s.made) if s.raw and data and not s.data else s.gains for s in found)
    return tuple(name for names in own for name in names)


def is_unit(name: str, found: list[Made]) -> bool:
    """Whether an operation gives a vector of length one, but for a factor."""
    if name in ("mul", "div") and len(found) == 2:
        whole, part = sorted(found, key=lambda state: bool(state.length))
        if part.length == "length" and not whole.length and part.made == whole.made:
            return True
        return any(state.unit for state in found)
    return found[0].unit


def length_kind(name: str, args: Any, found: list[Made]) -> str:
    """Whether an operation gives the length of a vector, or its square."""
    if name in ("linalg_vector_norm", "norm"):
        return "length"
    if name == "sum":
        return "square"
    before = found[0].length
    power = name == "pow" and abs(args[1]) == 0.5
    if before == "square" and (name in ("sqrt", "rsqrt") or power):
        return "length"
    same = name in ops.SAME or name == "reciprocal"
    return before if same else ""


def paired_of(name: str, args: Any, found: list[Made]) -> tuple[Made, Made] | None:
    """What is known of the factors of a product entry by entry, but for a square."""
    if name == "mul" and len(found) == 2 and not are_one(*args[:2]):
        one, other = found
        if one.data and other.data and one.made and other.made:
            return one._replace(paired=None), other._replace(paired=None)
    return None
