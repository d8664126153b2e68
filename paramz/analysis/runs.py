"""A sweep's runs: which columns are what, checked before anything is computed from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from paramz.analysis.columns import numbers, positive, require, wide_columns
from paramz.analysis.stand_ins import refuse_stand_ins
from paramz.analysis.statuses import ended

# Values of a hyperparameter that are nearer than this, in octaves, differ by rounding.
CLOSE = 0.01

ALL = "all"
"""The group of runs that no column splits into groups."""


def led(group: str, text: str) -> str:
    """A sentence on a group, with its name before it unless there is only one.

    >>> led("mup", "best lr moves"), led(ALL, "best lr moves")
    ('mup: best lr moves', 'Best lr moves')
    """
    return f"{text[:1].upper()}{text[1:]}" if group == ALL else f"{group}: {text}"


def tidy_runs(
    df: pd.DataFrame,
    *,
    hp: str,
    loss: str,
    scale: str,
    by: str | Sequence[str],
    seed: str = "seed",
) -> pd.DataFrame:
    """The runs of a sweep in the columns every analysis of it starts from, checked.

    Args:
        df: one row per run; those with status ``"failed"`` (an error, not a measurement), or that
            are still running, are left out.
        hp: column of the hyperparameter, as its value.
        loss: column of the loss.
        scale: column of the scale.
        by: column or columns of the groups. The default ``"parametrization"`` may be absent.
        seed: column of the seed; may be absent.

    Returns:
        ``group, scale, x, seed, loss``: x is log2 of the hyperparameter, and a loss that is not
        finite, or that of a run with status ``"diverged"``, is inf.

    Raises:
        KeyError: a column is missing.
        ValueError: two runs share group, scale, hyperparameter and seed, there is one scale only,
            a column holds values that cannot be used, or losses look like numbers that were logged
            for runs that failed.
    """
    hint = ". Other names are arguments: scale='d_model', hp='learning_rate', loss='val_loss'"
    require(df, hp, loss, scale, hint=hint + wide_columns(df, hp, loss))
    df = ended(df)
    names = [by] if isinstance(by, str) else list(by)
    if by == "parametrization" and by not in df.columns:
        names = []
    require(df, *names)
    value = numbers(df, loss)
    diverged = ~np.isfinite(value)
    if "status" in df.columns:
        diverged |= (df["status"] == "diverged").to_numpy()
    group = names_of_groups(df, names) if names else ALL
    runs = pd.DataFrame(
        {
            "group": group,
            "scale": positive(df, scale),
            "x": np.log2(positive(df, hp)).round(9),
            "seed": df[seed] if seed in df.columns else 0,
            "loss": np.where(diverged, np.inf, value),
        },
        index=df.index,
    )
    one_run = ["group", "scale", "x", "seed"]
    twins = runs.duplicated(one_run, keep=False)
    if twins.any():
        number = runs.groupby(one_run, dropna=False).ngroup()
        alike = df[(number == number[twins].iloc[0]).to_numpy()]
        a, b = alike.iloc[0], alike.iloc[1:]
        first, second, *_ = alike.index.tolist()
        known = {*names, hp, scale, seed, loss, "key", "seconds", "status", "error"}
        vary = [c for c in df.columns if c not in known and (b[c] != a[c]).any()]
        hint = (
            f"select one value of, or pass in by=, the columns that differ: "
            f"{', '.join(map(repr, vary))} (seeds are named by seed=)"
            if vary
            else f"no column differs: are rows repeated, or is it seeds, which {seed!r} must tell?"
        )
        raise ValueError(
            f"{int(twins.sum())} runs share group, {scale}, {hp} and {seed} with another run, for "
            f"example rows {first!r} and {second!r}; {hint}"
        )
    if runs["scale"].nunique() < 2:
        raise ValueError(
            f"a sweep over scales needs at least two values of {scale!r}; the table has "
            f"{', '.join(f'{s:g}' for s in runs['scale'].unique()) or 'no usable rows'}"
        )
    cells = runs.groupby(["group", "scale"]).ngroup().to_numpy().astype(float)
    refuse_stand_ins(runs["loss"].to_numpy(dtype=float), cells, loss)
    return runs


def names_of_groups(df: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """What the group of each row is called: its values in some columns, "none" for a missing one.

    >>> names_of_groups(pd.DataFrame({"depth": [2, 4], "tau": [0.5, None]}), ["depth", "tau"])
    ['2 · 0.5', '4 · none']
    """
    # Column by column, as whole numbers beside fractions would become fractions.
    rows = zip(*(df[column].tolist() for column in columns), strict=True)
    return [" · ".join("none" if pd.isna(v) else str(v) for v in row) for row in rows]


def merge_close(runs: pd.DataFrame, hp: str) -> tuple[pd.DataFrame, list[str]]:
    """The runs with values of the hyperparameter that differ by rounding taken for one.

    Values nearer than a hundredth of an octave (0.7 %), and than a tenth of the usual step of the
    grid, are those of one grid point, written with fewer digits or in another precision.

    Args:
        runs: as from `tidy_runs`.
        hp: name of the hyperparameter, for the note.

    Returns:
        the runs, and a note for each value that others were merged into.
    """
    values, counts = np.unique(runs["x"], return_counts=True)
    gaps = np.diff(values)
    wide = gaps[gaps > CLOSE]
    if not len(wide) or (gaps <= min(CLOSE, 0.1 * float(np.median(wide)))).sum() == 0:
        return runs, []
    near = min(CLOSE, 0.1 * float(np.median(wide)))
    target, notes, start = values.copy(), [], 0
    for end in range(1, len(values) + 1):
        if end < len(values) and values[end] - values[start] <= near:
            continue
        if end - start > 1:
            # The value that most runs have.
            target[start:end] = values[start + int(np.argmax(counts[start:end]))]
        start = end
    merged = runs.assign(x=target[np.searchsorted(values, runs["x"])])
    # A seed that ran at both values meant two points.
    clash = merged.duplicated(["group", "scale", "x", "seed"], keep=False)
    apart = merged["x"].isin(merged["x"][clash])
    merged["x"] = np.where(apart, runs["x"], merged["x"])
    for value in np.unique(merged["x"]):
        among = np.unique(runs["x"].to_numpy()[merged["x"] == value])
        if len(among) > 1:
            listed = ", ".join(f"{2.0**x:.7g}" for x in among)
            notes.append(f"{listed} are taken for one value of {hp}")
    return merged, notes


def baseline_first(df: pd.DataFrame) -> pd.DataFrame:
    """The runs with SP first, then by name; a store lists them in the order of hashes."""
    if "parametrization" not in df.columns:
        return df
    return df.sort_values(
        "parametrization", key=lambda c: c.map(str).map(lambda p: (p.lower() != "sp", p))
    )


def choose_scale(df: pd.DataFrame, way_out: str) -> str:
    """The scale that was swept: width, or else depth, whichever has several values.

    Args:
        df: one row per run.
        way_out: how whoever asks can name another column, for the error.

    Raises:
        ValueError: neither varies, or what one holds is no number.

    >>> choose_scale(pd.DataFrame({"width": [64, 64], "depth": [2, 4]}), "name the scale")
    'depth'
    """
    for name in ("width", "depth"):
        if name in df.columns and df[name].nunique() > 1:
            return name
    for name in ("width", "depth"):
        if name in df.columns:
            numbers(df, name)
    text = f"neither width nor depth has two values; {way_out}"
    if not {"width", "depth"} & set(df.columns):
        text += f". The columns are: {', '.join(map(str, df.columns))}"
    raise ValueError(text)


def group_columns(df: pd.DataFrame, hp: str, scale: str) -> list[str]:
    """The columns that tell curves apart: the parametrization, and other settings that vary.

    A setting is a column of text, truth values or whole numbers which differs between runs that
    are otherwise the same; columns of fractions are taken for metrics.

    Args:
        df: one row per run.
        hp: column of the hyperparameter.
        scale: column of the scale.

    Returns:
        names of columns.

    >>> df = pd.DataFrame({"optimizer": ["adamw", "sgd"], "width": 64, "lr": 0.1, "seed": 0})
    >>> group_columns(df, "lr", "width")
    ['optimizer']
    """
    names = [c for c in ("parametrization",) if c in df.columns]
    keys = [c for c in (*names, scale, hp, "seed") if c in df.columns]
    twins = df[df.duplicated(keys, keep=False)]
    skip = {*keys, "key", "status", "error", "seconds"}
    for column in twins.columns.difference(list(skip), sort=False):
        if pd.api.types.is_float_dtype(twins[column]):
            continue
        varies = twins.astype({column: str}).groupby(keys, dropna=False)[column].nunique()
        if varies.max() > 1:
            names.append(str(column))
    return names
