"""Did the hyperparameter transfer? The optimum's drift with scale, and what reusing it costs.

Both questions are asked because each alone misleads: an optimum that drifts on a flat bowl costs
nothing, and a small relative regret means little where the loss is near zero. Regret is therefore
given in units of loss and as a share of what growing the model gains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from paramz.analysis.curves import (
    Curve,
    Drift,
    Regret,
    drift_of,
    loss_curve,
    regret_of,
    speed_of,
)
from paramz.analysis.outcome import Outcome, require_outcome
from paramz.analysis.runs import tidy_runs

# Up to this drift, in octaves per doubling, a sweep counts as transferred: a factor 1.19 in the
# hyperparameter for each doubling of the scale.
TOLERANCE = 0.25

_TRANSFERS: dict[Outcome, bool | None] = {"pass": True, "fail": False, "undecided": None}


@dataclass(frozen=True)
class Verdict:
    """Whether the hyperparameter transfers within one group of runs.

    Attributes:
        outcome: ``"pass"`` where it transfers, ``"fail"`` where it does not, ``"undecided"`` where
            the runs do not show it.
        sentence: the answer with its numbers, for people.
    """

    outcome: Outcome
    sentence: str

    def __post_init__(self) -> None:
        require_outcome(self.outcome)

    @property
    def transfers(self) -> bool | None:
        """The outcome as True or False; None where it is undecided."""
        return _TRANSFERS[self.outcome]

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Transfer:
    """What a sweep says about transfer; tables are indexed by position, one row per case.

    Attributes:
        hp: name of the hyperparameter's column; positions are given as its log2.
        loss: name of the loss column.
        scale: name of the scale's column.
        curves: ``group, scale, log2_hp, loss, seeds, diverged``: the seed-averaged losses, inf
            where a seed diverged.
        optima: ``group, scale, log2_opt, lo, hi, log2_grid, best, curvature, flag, interval,
            diverged``: the optimum of each curve (see `Optimum`) and its count of diverged runs.
        drift: ``group, slope, lo, hi, edges``: octaves per doubling of the scale, and how many of
            the optima lie at an end of the grid.
        regret: ``group, tuned_at, evaluated_at, loss, regret, share, status``: the loss at
            ``evaluated_at`` with the best value found at ``tuned_at``, above the best loss there;
            ``share`` divides it by what growing from the one scale to the other gains. Status is
            ``"ok"``, ``"lost"`` (share >= 1: the larger model is no better than the smaller one),
            ``"diverged"`` or ``"out of grid"``.
        speed: ``group, regret_slope, gap_slope, fast``: log-log slopes against scale of the regret
            at the largest scale and of the loss gap to it. Transfer is fast where regret falls
            more steeply (Ghosh, Wu & Bietti, arXiv 2512.22768).
        verdicts: the answer for each group.
    """

    hp: str
    loss: str
    scale: str
    curves: pd.DataFrame
    optima: pd.DataFrame
    drift: pd.DataFrame
    regret: pd.DataFrame
    speed: pd.DataFrame
    verdicts: dict[str, Verdict]

    @property
    def groups(self) -> list[str]:
        """The groups, in order of appearance."""
        return list(self.verdicts)

    def comparison(self) -> pd.DataFrame:
        """Groups on equal terms: at each scale, the best loss of each at its own best value.

        Returns:
            a table with scales down and groups across.
        """
        return self.optima.pivot(index="scale", columns="group", values="best")[self.groups]


def transfer(
    df: pd.DataFrame,
    *,
    hp: str = "lr",
    loss: str = "loss",
    scale: str = "width",
    by: str | Sequence[str] = "parametrization",
    seed: str = "seed",
    draws: int = 1000,
) -> Transfer:
    """Measure the transfer of a hyperparameter across a scale.

    Runs whose loss is not finite, or whose ``status`` column says ``"diverged"``, are kept as
    censored: a grid point where a seed diverged cannot be an optimum, and transferring onto it
    fails. Runs with status ``"failed"`` (an error, not a measurement) are left out.

    Args:
        df: one row per run.
        hp: column of the hyperparameter, as its value (not its logarithm).
        loss: column of the loss.
        scale: column of the scale, such as width, depth or parameters.
        by: column or columns that split the runs into groups; the default may be absent.
        seed: column of the seed; without it every run is its own grid point.
        draws: size of the bootstrap.

    Returns:
        the tables and verdicts.

    Raises:
        KeyError: a column is missing.
        ValueError: a column holds no usable numbers, two runs share group, scale, hyperparameter
            and seed, a group has runs that did not diverge at one scale only, or a curve has fewer
            than three grid points. The message names the column, row or curve.

    >>> rows = [{"width": w, "lr": 2.0**x, "loss": 2 + 9 / w + 0.1 * (x + 6.2) ** 2, "seed": s}
    ...         for w in (32, 64, 128) for x in range(-10, -2) for s in (0, 1)]
    >>> found = transfer(pd.DataFrame(rows))
    >>> print(found.verdicts["all"])
    all: best lr moves +0.00 octave per doubling of width (95% +0.00 to +0.00) from 32 to 128,
    and width 128 at the lr tuned at width 32 costs 0 in loss (0% of the gain): it transfers.
    """
    runs = tidy_runs(df, hp=hp, loss=loss, scale=scale, by=by, seed=seed)
    evidence = {
        str(name): _gather_evidence(str(name), part, scale, draws)
        for name, part in runs.groupby("group", sort=False)
    }
    curves, optima, drift, regret, speed = [], [], [], [], []
    for name, known in evidence.items():
        label = {"group": name}
        curves += [label | row for c in known.curves for row in c.rows()]
        optima += [label | c.summary() for c in known.curves]
        drift.append(label | asdict(known.drift))
        regret += [label | asdict(regret_of(a, b)) for a in known.curves for b in known.curves]
        speed.append(label | speed_of(known.curves))
    return Transfer(
        hp,
        loss,
        scale,
        pd.DataFrame(curves),
        pd.DataFrame(optima),
        pd.DataFrame(drift),
        pd.DataFrame(regret),
        pd.DataFrame(speed),
        {name: _verdict(known, hp, scale) for name, known in evidence.items()},
    )


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What the verdict on one group rests on.

    Attributes:
        name: the group.
        curves: in order of scale; those of scales where a run did not diverge.
        dead: the other scales, where every run diverged and so there is no optimum.
        drift: how the optimum moves.
        cost: what the smallest scale's best value costs at the largest.
    """

    name: str
    curves: list[Curve]
    dead: list[float]
    drift: Drift
    cost: Regret


def _gather_evidence(name: str, runs: pd.DataFrame, scale: str, draws: int) -> _Evidence:
    cells = {float(s): runs[runs["scale"] == s] for s in np.unique(runs["scale"])}
    dead = [s for s, cell in cells.items() if np.isinf(cell["loss"]).all()]
    curves = [
        loss_curve(s, cell, f"{name}, {scale} {s:g}", draws, order)
        for order, (s, cell) in enumerate(cells.items())
        if s not in dead
    ]
    if len(curves) < 2:
        raise ValueError(
            f"{name}: transfer needs runs that did not diverge at two values of {scale!r} or "
            f"more, got {', '.join(f'{c.scale:g}' for c in curves) or 'none'}"
        )
    return _Evidence(name, curves, dead, drift_of(curves), regret_of(curves[0], curves[-1]))


def _verdict(evidence: _Evidence, hp: str, scale: str) -> Verdict:
    outcome, answer = _decide(evidence)
    small, large, drift = evidence.curves[0], evidence.curves[-1], evidence.drift
    moves = (
        f"{evidence.name}: best {hp} moves {drift.slope:+.2f} octave per doubling of {scale} "
        f"(95% {drift.lo:+.2f} to {drift.hi:+.2f}) from {small.scale:g} to {large.scale:g}"
    )
    there = f"{scale} {large.scale:g} at the {hp} tuned at {scale} {small.scale:g}"
    costs = _what_it_costs(evidence.cost, large.optimum.loss)
    at_edge = [f"{c.scale:g}" for c in evidence.curves if c.optimum.flag == "edge"]
    note = f" Optimum at the edge of the grid at {scale} {', '.join(at_edge)}." if at_edge else ""
    if evidence.dead:
        note += f" Every run diverged at {scale} {', '.join(f'{s:g}' for s in evidence.dead)}."
    return Verdict(outcome, f"{moves}, and {there} {costs}: {answer}.{note}")


def _decide(evidence: _Evidence) -> tuple[Outcome, str]:
    """The outcome and the words for it."""
    cost, drift = evidence.cost, evidence.drift
    failed = cost.status in ("lost", "diverged") or any(
        scale > evidence.curves[-1].scale for scale in evidence.dead
    )
    if failed or drift.lo > TOLERANCE or drift.hi < -TOLERANCE:
        return "fail", "it does not transfer"
    if cost.status != "ok":
        return "undecided", "undecided, widen the grid"
    if abs(drift.slope) <= TOLERANCE:
        return "pass", "it transfers"
    return (
        "undecided",
        f"undecided, the interval reaches {TOLERANCE:g}: add seeds or grid points",
    )


def _what_it_costs(cost: Regret, best: float) -> str:
    if cost.status == "ok":
        gain = f" ({cost.share:.0%} of the gain)" if np.isfinite(cost.share) else ""
        return f"costs {cost.regret:.2g} in loss{gain}"
    if cost.status == "lost":
        return f"fails: loss {cost.loss:.3g} against {best:.3g} at its own best"
    if cost.status == "diverged":
        return "diverges"
    return "was not run: it lies outside the grid there"
