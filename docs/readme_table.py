"""Write README's table of measured drifts from the tables of trials in analysis/data.

python docs/readme_table.py

A scheme is called stable by one rule (docs/protocol.md): its drift's interval lies within the
tolerance over at least 16x of width, steps or batch, or 8x of depth, loops or experts, with at
least three seeds, at least 1000 steps (over steps and batch: the longest), and weight decay. Where
nothing was measured it says so.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from readme_rows import ROWS, Measured

from paramz import HORIZONS
from paramz.analysis import transfer

HERE = Path(__file__).parent
DATA = HERE.parent / "analysis/data"
START, END = "<!-- --8<-- [start:measured] -->\n", "<!-- --8<-- [end:measured] -->\n"
TOLERANCE = 0.1
SPAN = {"width": 16, "steps": 16, "batch_size": 16, "depth": 8, "loops": 8, "experts": 8}
# What a run rule calls an axis, and its value in the run that rates count from.
RULES = {"steps": ("steps", 1000), "batch_size": ("batch", 16)}
FEWEST_STEPS, FEWEST_SEEDS = 1000, 3


def trials(m: Measured) -> pd.DataFrame:
    """The rows of its table that it speaks of."""
    df = pd.read_csv(DATA / m.file, comment="#")
    if m.file == "mup_mlp.csv":
        df = df.rename(columns={"type": "parametrization", "train_loss": "loss"})
        df = df.assign(lr=2.0**df.log2lr, seed=0)
    if m.hp == "weight_decay":
        df = df.rename(columns={"decay_policy": "parametrization"})
    for column, value in {"parametrization": m.scheme, **m.only}.items():
        df = df[df[column] == value]
    df = df[df[m.scale].between(m.least, m.most)]
    if m.rule is not None:
        moved = HORIZONS[m.rule].columns["adam"].lr
        scale, base = RULES[m.scale]
        df = df.assign(lr=df.lr / [moved({scale: size / base}) for size in df[m.scale]])
    return df


def cells(m: Measured) -> tuple[str, str, str]:
    """Its drift, what it rests on, and whether that makes it stable."""
    df = trials(m)
    found = transfer(df, hp=m.hp, scale=m.scale, loss=m.loss)
    drift = found.drift.iloc[0]
    sizes = sorted(df[m.scale].unique())
    seeds = df.groupby(m.scale)["seed"].nunique().min()  # of the size that has the fewest
    span = sizes[-1] / sizes[0]
    ends = found.regret[
        (found.regret.tuned_at == sizes[0]) & (found.regret.evaluated_at == sizes[-1])
    ]
    regret = f"{ends.regret.iloc[0]:.3f}" if len(ends) else "n.a."
    if regret == "nan":
        regret = "beyond the grid"
    inside = drift["lo"] >= -TOLERANCE and drift["hi"] <= TOLERANCE
    outside = drift["lo"] > TOLERANCE or drift["hi"] < -TOLERANCE
    long = m.steps is not None and m.steps >= FEWEST_STEPS
    enough = span >= SPAN[m.scale] and seeds >= FEWEST_SEEDS and long and m.decay
    status = "moves" if outside else "open"
    if inside:
        status = "stable" if enough else "inside 0.1, by too small a sweep"
    plural = "s" if seeds > 1 else ""
    lasted = "20 epochs, " if m.steps is None else f"{m.steps} steps, "
    if m.scale == "batch_size":
        lasted = f"{df.steps.min()} to {df.steps.max()} steps, equal tokens, "
    axis = m.scale.replace("_size", "")
    basis = (
        f"{m.what}, {axis} {sizes[0]:.0f} to {sizes[-1]:.0f}, {seeds} seed{plural}, "
        f"{'' if m.scale == 'steps' else lasted}"
        f"{'decay' if m.decay else 'no decay'}"
    )
    slope, lo, hi = (signed(drift[name]) for name in ("slope", "lo", "hi"))
    return f"{slope} [{lo}, {hi}]; {regret}", basis, status


def signed(drift: float) -> str:
    """Two decimals, and no minus before a zero."""
    return f"{round(drift, 2) + 0.0:+.2f}"


def table() -> str:
    """The table, in Markdown."""
    lines = [
        "| scheme | drift [95 %]; regret | measured on | status |",
        "|---|---|---|---|",
    ]
    for name, m in ROWS:
        if isinstance(m, str):
            lines.append(f"| {name} | {m} | | |")
        elif not (DATA / m.file).exists():
            lines.append(f"| {name} | n.a. | | |")
        else:
            lines.append("| " + " | ".join((name, *cells(m))) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    readme = HERE.parent / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{START}\n{table()}\n{END}{after}", encoding="utf-8")
