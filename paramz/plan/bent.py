"""Parameters of which forward code takes a function before it multiplies data by it, in a plan.

The exponential of an entry that falls with width does not fall, and a square falls twice. So the
init and the rate of a matrix that is summed over do not hold the sum; and of the product of two
matrices, entry by entry, one alone may fall. Vectors that code reads as a matrix have the rules of
biases, whose entries keep their size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paramz.anatomy.bent import GAIN, Term
from paramz.anatomy.facts import Facts
from paramz.anatomy.paths import pattern, split
from paramz.plan.row import Row


def bent_weights(facts: Facts, rows: Sequence[Row]) -> list[str]:
    """What to say of sums over width of which no role of a parameter speaks, one sentence each.

    Args:
        facts: of the model.
        rows: of its tensors.
    """
    known = {row.name: row for row in rows if row.growing}
    found: dict[str, str] = {}
    for each in facts.bent:
        said = _said(each.makers, known)
        if said is not None:
            found.setdefault(*said)
    return list(found.values())


def _said(makers: Term, rows: Mapping[str, Row]) -> tuple[str, str] | None:
    """The pattern of a parameter, and the sentence; None where the roles speak of it."""
    growing = [(rows[name], bent) for name, bent in sorted(makers) if name in rows]
    falling = [row.name for row, _ in growing if "fan_in" in row.ratios]
    # A gain is one as long as it does not fall with width, too.
    own = [(row, "" if bent == GAIN else bent) for row, bent in growing]
    gains = {row.name for row, bent in growing if bent == GAIN} - {*falling}
    open_ = [(r, bent) for r, bent in own if not _is_declared(r) and r.name not in gains]
    for row, bent in open_:
        key, others = pattern(row.name), [name for name in falling if name != row.name]
        if others and (bent or row.name in falling):
            bends = f"takes a function of it ({bent}), " if bent else ""
            path = pattern(split(row.name)[0])
            told = {"name": row.name, "bends": bends, "other": others[0], "path": path}
            return key, _BOTH.format(**told, key=key)
        if bent:
            return key, _BENT.format(name=row.name, bent=bent, role=row.role, key=key)
        if row.role == "vector" and not falling:
            return key, _FLAT.format(name=row.name, key=key)
    return None


def _is_declared(row: Row) -> bool:
    """Whether the user gave it a role, and not only axes."""
    return row.why.startswith("roles[") and row.why.endswith("]")


_BENT = (
    "{name}: forward code takes a function of it ({bent}) before it multiplies data by it and sums "
    "over width. The init and learning rate of {role} weights speak of its entries, and behind that"
    " function these do not follow width as the sum needs it, so what it makes grows or fades in "
    "wider models. Divide the product in the code by the length of that sum over its length in the "
    "base (by its root, where the entries also multiply noise of mean zero), unless it does so "
    "already, and say roles={{r'^{key}$': 'vector'}}: then its entries start and learn alike at "
    "every width"
)
_BOTH = (
    "{name}: forward code {bends}multiplies it entry by entry by another matrix ({other}), and then"
    " data by that with a sum over width. No role speaks of both: what is right for one alone lets "
    "the product fade or grow in wider models. Keep one as the matrix, and let the other start at "
    "zero, in W * (1 + S * r) or W * sigmoid(S * r) with r = (length of that sum / its length in "
    "the base)**-0.5, roles={{r'^{key}$': 'vector'}} for S and factors={{r'^{path}$': None}} for r;"
    " or let it be a gain with a number for each row"
)
_FLAT = (
    "{name}: forward code multiplies data by entries of this vector and sums over width. A vector's"
    " entries keep their size, and so do their steps, so what it makes grows like width^1/2 as "
    "drawn and like width while it is trained. If it stands for a matrix, make it a parameter of "
    "that shape; if it is also used entry by entry, give each use one of its own; and if the matrix"
    " takes each entry several times (Toeplitz, circulant), roles={{r'^{key}$': "
    "paramz.Axes(fan_in=(0,), fan_out=(0,))}} gives it a hidden matrix's start and Adam's rate. "
    "roles={{r'^{key}$': 'vector'}} says that it is right as it is"
)
