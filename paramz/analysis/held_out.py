"""How many of the largest scales are held out as a test of a law through a sweep's losses."""

from __future__ import annotations

from paramz.analysis.forms import FORMS

MOST = 2


def held_out_of(have: int, scale: str, law: str, asked: int | None) -> int:
    """How many scales are held out.

    Args:
        have: how many scales there are.
        scale: what to call the scale.
        law: a name of `FORMS`; of another, the fit says that there is none.
        asked: how many are to be held out; None for two, or as many as their number allows.

    Raises:
        ValueError: law, test and interval need more scales.

    >>> [held_out_of(have, "width", "power", None) for have in (4, 5, 9)]
    [0, 1, 2]
    """
    if law not in FORMS:
        return MOST if asked is None else asked
    count = len(FORMS[law].params)
    spare = have - count - 1  # one is kept for the interval
    if spare >= (asked or 0):
        return min(MOST, spare) if asked is None else asked
    need = count + 1 + (asked or 0)
    ways = [f"run {need - have} more"]
    if spare > 0:
        ways.append(f"hold out fewer (hold={spare}, --hold {spare})")
    elif spare == 0:
        ways.append("hold none out (hold=0, --hold 0)")
    if law != "pure_power":
        ways.append("take a law with fewer parameters (law='pure_power', --law pure_power)")
    test = f" with {asked} held out as a test" if asked else ""
    raise ValueError(
        f"{law!r}{test} needs {need} values of {scale} ({count} parameters, one to spare for the "
        f"interval), you have {have}: {', or '.join(ways)}"
    )
