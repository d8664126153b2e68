"""Did the hyperparameter transfer? The optimum's drift with scale, and what reusing it costs.

Both questions are asked because each alone misleads: an optimum that drifts on a flat bowl costs
nothing, and a small relative regret means little where the loss is near zero. Regret is therefore
given in units of loss and as a share of what growing the model gains.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from paramz.analysis.answer import BATCHES, STEPS, mixed_in, setting
from paramz.analysis.beside import drawn_beside
from paramz.analysis.curves import Curve, loss_curve, over_the_grid, regret_of, rows_of, speed_of
from paramz.analysis.decide import TOLERANCE, Verdict, decide
from paramz.analysis.drift import line_of
from paramz.analysis.evidence import Evidence, died_of_seeds
from paramz.analysis.quality import quality_of, sensitivity_of
from paramz.analysis.repeats import repeated_seeds
from paramz.analysis.runs import ALL, led, merge_close, tidy_runs
from paramz.analysis.statuses import ended, left_out
from paramz.analysis.upside_down import upside_down

# A parabola has three coefficients.
_POINTS = 3
# Of fewer draws, less than one lies outside the middle 95 %.
_DRAWS = 20


@dataclass(frozen=True)
class Transfer:
    """What a sweep says about transfer; tables are indexed by position, one row per case.

    Attributes:
        hp: name of the hyperparameter's column; positions are given as its log2.
        loss: name of the loss column.
        scale: name of the scale's column.
        curves: ``group, scale, log2_hp, loss, low, high, seeds, diverged``: the losses averaged
            over seeds without the effects of which seeds ran, inf where a seed diverged, and the
            lowest and highest of a seed; also of scales that have no optimum, as a seed diverged at
            every value.
        optima: ``group, scale, log2_opt, lo, hi, log2_grid, best, curvature, flag, interval,
            seeds, diverged``: the optimum of each curve (see `Optimum`), its seeds and its count
            of diverged runs.
        drift: ``group, slope, lo, hi, edges, excess``: octaves per doubling of the scale (see
            `Drift`).
        regret: ``group, tuned_at, evaluated_at, loss, regret, lo, hi, share, status, sure``: the
            loss at ``evaluated_at`` with the best value found at ``tuned_at``, above the lowest
            loss there, both read off smooth curves; ``share`` divides it by what growing from the
            one scale to the other gains. Status is ``"ok"``, ``"lost"`` (share >= 1: the larger
            model is no better than the smaller one), ``"diverged"`` or ``"out of grid"``.
        speed: ``group, regret_slope, gap_slope, fast``: log-log slopes against scale of the regret
            at the largest scale and of the loss gap to it. Transfer is fast where regret falls
            more steeply (Ghosh, Wu & Bietti, arXiv 2512.22768).
        sensitivity: ``group, scale, sensitivity, lo, hi, cap``: what a learning rate drawn from
            log2 ``lo`` to ``hi`` costs on average (see `paramz.analysis.quality`).
        quality: ``group, error, scatter, robustness, floor, asymptotic_regret``: how well a power
            law holds the optima (see `paramz.analysis.quality`).
        verdicts: the answer for each group; undecided for those that could not be judged.
        not_judged: the reason for each group that has too little data.
        notes: what was done to the table, whether its loss looks like a score, and which other
            hyperparameters vary along a curve.
    """

    hp: str
    loss: str
    scale: str
    curves: pd.DataFrame
    optima: pd.DataFrame
    drift: pd.DataFrame
    regret: pd.DataFrame
    speed: pd.DataFrame
    sensitivity: pd.DataFrame
    quality: pd.DataFrame
    verdicts: dict[str, Verdict]
    not_judged: dict[str, str]
    notes: list[str]

    def __repr__(self) -> str:
        lines = (f"\n  {verdict.text}" for verdict in self.verdicts.values())
        return f"<Transfer of {self.hp} over {self.scale}{''.join(lines)}>"

    @property
    def groups(self) -> list[str]:
        """The groups that were judged, in order of appearance."""
        return [g for g in self.verdicts if g not in self.not_judged]

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
    tolerance: float = TOLERANCE,
    draws: int = 1000,
) -> Transfer:
    """Measure the transfer of a hyperparameter across a scale.

    Runs whose loss is not finite, or whose ``status`` column says ``"diverged"``, are kept as
    censored: a grid point where a seed diverged cannot be an optimum, and transferring onto it
    fails. So are runs that successive halving stopped, of which a note tells. Runs with status
    ``"failed"`` (an error, not a measurement), or that are still running, are left out, of which
    another note tells. Values of the hyperparameter that differ by rounding are merged.

    Args:
        df: one row per run.
        hp: column of the hyperparameter, as its value (not its logarithm).
        loss: column of the loss.
        scale: column of the scale, such as width, depth or parameters.
        by: column or columns that split the runs into groups; the default may be absent.
        seed: column of the seed; without it every run is its own grid point.
        tolerance: the drift, in octaves per doubling, that still counts as transfer.
        draws: how many curves are drawn for intervals.

    Returns:
        the tables and verdicts. Groups with too little data are listed as not judged.

    Raises:
        KeyError: a column is missing.
        ValueError: a column holds no usable numbers, two runs share group, scale, hyperparameter
            and seed, the tolerance or the draws make no interval, or no group has runs that did not
            diverge, on three grid points or more, at two scales. The message names the column, row
            or group.

    Warns:
        UserWarning: what is given as the loss looks like a score where higher is better, or runs of
            one curve differ in another hyperparameter.

    >>> rows = [{"width": w, "lr": 2.0**x, "seed": s,
    ...          "loss": 2 + 9 / w + 0.1 * (x + 6.2) ** 2 + 0.01 * s}
    ...         for w in (32, 64, 128) for x in range(-10, -2) for s in (0, 1)]
    >>> found = transfer(pd.DataFrame(rows))
    >>> print(found.verdicts["all"])
    Best lr moves +0.00 octave per doubling of width (95% ... to +0.00) from 32 to 128, and
    width 128 at the lr tuned at width 32 costs 0 in loss (95% 0 to ..., 0% of the gain): it
    transfers (tolerance 0.1 octave per doubling). Use lr = 0.014 (0.014 to 0.014) at width 128 and
    above, tuned at width 32 to 128.
    """
    if not 0 < tolerance < np.inf or draws < _DRAWS:
        raise ValueError(
            f"tolerance={tolerance:g}, draws={draws}: a tolerance is above zero, in octaves per "
            f"doubling, and the ends of a 95 % interval take {_DRAWS} draws or more"
        )
    given, df = df, ended(df)
    runs, notes = merge_close(tidy_runs(df, hp=hp, loss=loss, scale=scale, by=by, seed=seed), hp)
    again, repeated = repeated_seeds(runs)
    gone, df, runs = left_out(given, df), df[~again], runs[~again]
    notes += filter(None, (gone, *repeated, _stopped(df)))
    evidence: dict[str, Evidence] = {}
    not_judged: dict[str, str] = {}
    for name, part in runs.groupby("group", sort=False):
        rows = df[(runs["group"] == name).to_numpy()]
        found = _gather_evidence(str(name), part, rows, hp, scale, draws)
        if isinstance(found, Evidence):
            evidence[str(name)] = found
        else:
            not_judged[str(name)] = found
    if not evidence:
        raise ValueError(
            "; ".join(why if name == ALL else f"{name}: {why}" for name, why in not_judged.items())
        )
    curves, optima, drift, regret, speed, sensitivity = [], [], [], [], [], []
    for name, known in evidence.items():
        label = {"group": name}
        part = runs[runs["group"] == name]
        lost = [
            row for s in known.dead for row in rows_of(s, *over_the_grid(part[part["scale"] == s]))
        ]
        curves += [label | row for row in (*(r for c in known.curves for r in c.rows()), *lost)]
        optima += [label | c.summary() for c in known.curves]
        drift.append(label | asdict(known.line.drift))
        regret += [label | asdict(regret_of(a, b)) for a in known.curves for b in known.curves]
        speed.append(label | speed_of(known.curves))
        sensitivity += [label | row for row in sensitivity_of(known.curves)]
    verdicts = {
        name: decide(evidence[name], tolerance)
        if name in evidence
        else Verdict(
            "undecided", led(name, f"not judged: {not_judged[name]}."), tolerance=tolerance
        )
        for name in runs["group"].unique()
    }
    lines = {name: (known.curves, known.line) for name, known in evidence.items()}
    told = upside_down([c for known in evidence.values() for c in known.curves], loss, hp)
    cells = runs.groupby(["group", "scale"]).ngroup()
    for note in (*told, *drawn_beside(df, cells, hp, loss)):
        warnings.warn(note, stacklevel=2)
        notes.append(note)
    return Transfer(
        hp,
        loss,
        scale,
        pd.DataFrame(curves),
        pd.DataFrame(optima),
        pd.DataFrame(drift),
        pd.DataFrame(regret),
        pd.DataFrame(speed),
        pd.DataFrame(sensitivity),
        quality_of(lines),
        verdicts,
        not_judged,
        notes,
    )


def _stopped(df: pd.DataFrame) -> str:
    """A note on runs that successive halving ended early; empty if there are none."""
    number = int((df["status"] == "stopped").sum()) if "status" in df.columns else 0
    if not number:
        return ""
    return (
        f"{number} of {len(df)} runs were stopped by successive halving and have no loss; they "
        "count like runs that diverged, so that a cliff may only be where it stopped them"
    )


def _gather_evidence(
    name: str, runs: pd.DataFrame, rows: pd.DataFrame, hp: str, scale: str, draws: int
) -> Evidence | str:
    """What a group's runs say, or why they say nothing."""
    cells = {float(s): runs[runs["scale"] == s] for s in np.unique(runs["scale"])}
    dead = {
        s: (float(cell["x"].min()), float(cell["x"].max()))
        for s, cell in cells.items()
        if np.isinf(cell.groupby("x")["loss"].max()).all()
    }
    partly = {s: _without_loss(cells[s]) for s in dead if np.isfinite(cells[s]["loss"]).any()}
    short = {s: n for s, c in cells.items() if s not in dead and (n := c["x"].nunique()) < _POINTS}
    curves: list[Curve] = [
        loss_curve(s, cell, draws, order)
        for order, (s, cell) in enumerate(cells.items())
        if s not in dead and s not in short
    ]
    if len(curves) < 2:
        alive = ", ".join(f"{s:g}" for s in cells if s not in dead) or "none"
        why = f"transfer needs runs that did not diverge at two values of {scale!r} or more"
        if short:
            listed = ", ".join(f"{s:g} has {n}" for s, n in short.items())
            why += f", each at three values of {hp!r} or more; {scale} {listed}"
            return why
        why += f", got {alive}"
        return "; ".join([why, *died_of_seeds(partly, hp, scale)])
    return Evidence(
        name,
        hp,
        scale,
        curves,
        dead,
        partly,
        list(short),
        line_of(curves),
        regret_of(curves[0], curves[-1]),
        setting(rows, STEPS),
        setting(rows, BATCHES),
        mixed_in(rows, scale),
    )


def _without_loss(cell: pd.DataFrame) -> list[object]:
    """Seeds of which no run at a scale has a loss."""
    lost = np.isinf(cell["loss"]).groupby(cell["seed"], dropna=False).all()
    return list(lost.index[lost])
