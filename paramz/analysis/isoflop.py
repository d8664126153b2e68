"""The best size at each compute, from runs of equal compute: approach 2 of Hoffmann et al.

arXiv 2203.15556, sec. 3.2: a parabola in log N through the losses of each compute. Its minimum is
biased even without noise where the sizes are many octaves wide or off-centre, or alpha differs from
beta (arXiv 2603.22339), so the parabola goes through a window around the lowest loss only, and the
table is for comparison: take an allocation from a law.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array, numbers, positive, require
from paramz.analysis.stand_ins import refuse_stand_ins
from paramz.analysis.statuses import left_out, trained

# The parabola goes through sizes within this factor of the best, on each side.
WINDOW = 4.0
# Tokens per parameter between these are those of some model; beyond, units are not what they seem.
_PER_PARAMETER = (1e-5, 1e8)


def isoflop_minima(
    df: pd.DataFrame,
    *,
    N: str = "N",
    C: str = "C",
    loss: str = "loss",
    window: float = WINDOW,
    per: float = 6.0,
) -> pd.DataFrame:
    """The lowest point of a parabola in log N through the losses at each compute.

    Args:
        df: one row per run.
        N: column of the parameters.
        C: column of the compute; equal values belong together.
        loss: column of the loss.
        window: sizes within this factor of the best, on each side, are fitted; at least three.
        per: FLOP per parameter and token, for the tokens D = C / (per N).

    Returns:
        ``C, N, N_lo, N_hi, D, loss, runs, used, low, high, flag``: the minimum, its 95 % interval
        from the scatter about the parabola (NaN where three sizes leave none), how many runs there
        are and were fitted, the window, and ``"edge"`` where the best size is the smallest or
        largest, ``"no minimum"`` where the parabola has none in the window, or nothing.

    Raises:
        KeyError: a column is missing.
        ValueError: no compute has runs at three sizes, or a column holds values that cannot be
            used, or losses that look like numbers which were logged for runs that failed.

    Warns:
        UserWarning: some values of the compute have runs at fewer than three sizes, or runs have no
            finite loss or, by a column ``status``, did not end well; these are left out. Or tokens
            per parameter come out as no model has them, as where N is counted in millions.

    >>> n = np.geomspace(1e8, 4e8, 5)
    >>> loss = 2.0 + 0.1 * np.log(n / 2e8) ** 2
    >>> found = isoflop_minima(pd.DataFrame({"N": n, "C": 1e19, "loss": loss}))
    >>> round(float(found["N"].iloc[0]) / 1e8, 2), found["flag"].iloc[0]
    (2.0, '')
    """
    require(df, N, C, loss)
    given, df = df, trained(df)
    frame = pd.DataFrame({"n": positive(df, N), "c": positive(df, C), "loss": numbers(df, loss)})
    refuse_stand_ins(frame["loss"].to_numpy(), frame["c"].to_numpy(), loss)
    told = [left_out(given, df)]
    if infinite := int((~np.isfinite(frame["loss"])).sum()):
        told.append(f"{infinite} of {len(frame)} runs left out for want of a finite loss")
    for text in filter(None, told):
        warnings.warn(text, stacklevel=2)
    frame = frame[np.isfinite(frame["loss"])]
    sizes = frame.groupby("c")["n"].nunique()
    few = ", ".join(f"{c:.4g} ({n})" for c, n in sizes[sizes < 3].items())
    cells = {float(c): cell for c, cell in frame.groupby("c") if sizes[c] >= 3}
    if not cells:
        most = int(frame.groupby("c")["n"].nunique().max()) if len(frame) else 0
        raise ValueError(
            f"no value of {C!r} has runs at three values of {N!r} (the most is {most}); round the "
            "compute to the budgets that were meant"
        )
    if few:
        warnings.warn(
            f"left out, with runs at fewer than three values of {N!r}: {C} = {few}; if they belong "
            "to one budget, round the compute to it",
            stacklevel=2,
        )
    rows = []
    for compute, cell in cells.items():
        row = _minimum(np.log(cell["n"].to_numpy()), cell["loss"].to_numpy(), np.log(window))
        rows.append(
            {"C": compute, **row, "runs": len(cell), "D": compute / (per * float(row["N"]))}
        )
    ratios = [float(row["D"]) / float(row["N"]) for row in rows]
    if any(not _PER_PARAMETER[0] <= ratio <= _PER_PARAMETER[1] for ratio in ratios):
        warnings.warn(
            f"the tokens D = {C} / ({per:g} {N}) come to {np.median(ratios):.3g} for each of {N}: "
            f"if {N} is counted in millions or {C} in other units than FLOP, give whole numbers, "
            "or per= that fits",
            stacklevel=2,
        )
    columns = ["C", "N", "N_lo", "N_hi", "D", "loss", "runs", "used", "low", "high", "flag"]
    return pd.DataFrame(rows)[columns]


def parabola(x: Array, y: Array) -> tuple[Array, float]:
    """The coefficients of a parabola through points, and where its x is counted from."""
    middle = float(x.mean())
    return np.polyfit(x - middle, y, 2), middle


def _minimum(x: Array, y: Array, reach: float) -> dict[str, float | int | str]:
    sizes, place = np.unique(x, return_inverse=True)
    best = sizes[np.argmin(np.bincount(place, y) / np.bincount(place))]
    # Rounding of the logarithm is no reason to leave a size out.
    near = sizes[np.abs(sizes - best) <= reach + 1e-9]
    if len(near) < 3:
        near = sizes[np.argsort(np.abs(sizes - best), kind="stable")[:3]]
    used = np.isin(x, near)
    (a, b, c), middle = parabola(x[used], y[used])
    vertex = middle - b / (2 * a) if a > 0 else np.inf
    inside = near.min() <= vertex <= near.max()
    flag = "" if inside else "no minimum"
    if best in (sizes[0], sizes[-1]):
        flag = "edge"
    at = vertex if inside else best
    half = _half_width(x[used] - middle, y[used], a, b) if inside else np.nan
    return {
        "N": float(np.exp(at)),
        "N_lo": float(np.exp(at - half)),
        "N_hi": float(np.exp(at + half)),
        "loss": float(np.polyval([a, b, c], at - middle)) if inside else float(y.min()),
        "used": int(used.sum()),
        "low": float(np.exp(near.min())),
        "high": float(np.exp(near.max())),
        "flag": flag,
    }


def _half_width(x: Array, y: Array, a: float, b: float) -> float:
    """Half the 95 % interval of the vertex, by the delta method; NaN without spare points."""
    from scipy.special import stdtrit  # slow to import, and needed only here

    spare = len(x) - 3
    if spare < 1:
        return float("nan")
    design = np.stack([x**2, x, np.ones_like(x)], axis=1)
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    cov = np.linalg.inv(design.T @ design) * (residual @ residual) / spare
    slope = np.array([b / (2 * a**2), -1 / (2 * a), 0.0])
    return float(stdtrit(spare, 0.975) * np.sqrt(slope @ cov @ slope))
