"""Write README's table of measured drifts from the tables of trials in analysis/data.

python docs/readme_table.py

A scheme is called stable by one rule (docs/protocol.md): its drift's interval lies within the
tolerance over at least 16x of width, steps or batch, or 8x of depth, loops or experts, with at
least three seeds, at least 1000 steps (over steps and batch: the longest), and weight decay. Where
nothing was measured it says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

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


@dataclass(frozen=True)
class Measured:
    """A table of trials behind a row.

    Attributes:
        file: in analysis/data.
        scale: the axis.
        scheme: the parametrization's name in the table.
        hp: the hyperparameter.
        steps: of each trial.
        decay: with weight decay.
        what: the task, and the optimizer where it is not AdamW.
        only: further values of columns.
        least, most: the sizes that count; all if left out.
        rule: a run rule relative to which lr counts. Where it multiplies lr alone, by a number for
            each run, the trials without it are those with it.
        loss: the column of what counts.
    """

    file: str
    scale: str
    scheme: str
    steps: int | None
    decay: bool = False
    what: str = "GPT"
    hp: str = "lr"
    only: dict[str, Any] = field(default_factory=dict)
    least: float = 0.0
    most: float = float("inf")
    rule: str | None = None
    loss: str = "loss"


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
    sizes, seeds = sorted(df[m.scale].unique()), df["seed"].nunique()
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
    size = f"{drift['slope']:+.2f} [{drift['lo']:+.2f}, {drift['hi']:+.2f}]"
    return f"{size}; {regret}", basis, status


def wide(scheme: str, optimizer: str, what: str = "GPT") -> Measured:
    """Widths 64 to 1024."""
    only = {"optimizer": optimizer}
    return Measured("lr_width_wide.csv", "width", scheme, 1000, decay=True, what=what, only=only)


def finer(scheme: str) -> Measured:
    """More and smaller experts of as many units together."""
    what = "GPT of width 64, finer experts"
    return Measured("lr_experts_finer.csv", "experts", scheme, 1000, decay=True, what=what)


def digits(scheme: str, optimizer: str) -> Measured:
    """An MLP on digits, by the loss on images that it did not see."""
    what = {"adamw": "digits", "sgd": "digits, SGD", "muon": "digits, Muon"}[optimizer]
    only = {"optimizer": optimizer}
    more = {"what": what, "only": only, "loss": "held_out_loss"}
    return Measured("lr_width_digits.csv", "width", scheme, 1000, decay=True, **more)


def digits_decay(policy: str) -> Measured:
    """The best decay on the same."""
    file, what = "decay_width_digits.csv", "digits at lr 2^-5"
    more = {"what": what, "hp": "weight_decay", "loss": "held_out_loss"}
    return Measured(file, "width", policy, 1000, decay=True, **more)


def words(scheme: str) -> Measured:
    """A GPT of 4096 words in place of 256 bytes."""
    what = "GPT of 4096 words"
    return Measured("lr_width_words.csv", "width", scheme, 1000, decay=True, what=what)


WORDS = {
    "SP": words("sp"),
    "SP with muP's embedding": words("sp+embed"),
    "muP": words("mup"),
    "muP, large-vocab": words("mup+large-vocab"),
}
DIGITS_DECAY = {name: digits_decay(name) for name in ("lr-constant", "coupled")}
LM = "lr_width_adamw.csv"
MLP = {"what": "MLP, SGD (microsoft/mup's notebook)", "steps": None}
DEPTH, LONG = "lr_depth_long.csv", {"steps": 1000, "decay": True}
DECAY, AT_LR = "decay_width.csv", {"hp": "weight_decay", "what": "GPT at lr 2^-6", **LONG}
ROWS: tuple[tuple[str, Measured | str], ...] = (
    ("`sp`", Measured("lr_width_sp.csv", "width", "sp", 1000, decay=True)),
    ("`sp`", wide("sp", "adamw")),
    ("`sp`", Measured("mup_mlp.csv", "width", "SP", **MLP)),
    ("`sp`", digits("sp", "sgd")),
    ("`sp+embed`", Measured("lr_width_sp.csv", "width", "sp+embed", 1000, decay=True)),
    ("`sp`", words("sp")),
    ("`sp+embed`", words("sp+embed")),
    ("`mup`", words("mup")),
    ("`mup+large-vocab`", words("mup+large-vocab")),
    ("`ntp`", "n.a."),
    ("`mup`", Measured(LM, "width", "mup", 1000, decay=True)),
    ("`mup`", wide("mup", "adamw")),
    ("`mup`", digits("mup", "adamw")),
    ("`mup`", Measured("mup_mlp.csv", "width", "muP", **MLP)),
    ("`sp`", Measured("lr_width_sgd.csv", "width", "sp", 1000, decay=True, what="GPT, SGD")),
    ("`mup`", Measured("lr_width_sgd.csv", "width", "mup", 1000, decay=True, what="GPT, SGD")),
    ("`mup`", wide("mup", "sgd", "GPT, SGD")),
    ("`mup`", digits("mup", "sgd")),
    ("`mup`", Measured("lr_width_muon.csv", "width", "mup", 1000, decay=True, what="GPT, Muon")),
    ("`mup`", wide("mup", "muon", "GPT, Muon")),
    ("`mup`", wide("mup", "adamh", "GPT, AdamH")),
    ("`mup`", wide("mup", "muonh", "GPT, MuonH")),
    ("`mean-field`", "equal to `mup`, to rounding"),
    ("`mup` over depth, no rule", Measured(DEPTH, "depth", "mup", **LONG)),
    ("`mup+completep`", Measured(DEPTH, "depth", "mup+completep", **LONG)),
    (
        "`mup+completep`",
        Measured("lr_depth_wide.csv", "depth", "mup+completep", what="GPT of width 64", **LONG),
    ),
    ("`mup+depth-mup`", Measured(DEPTH, "depth", "mup+depth-mup", **LONG)),
    ("`mup` over loops, no rule", Measured("lr_loops.csv", "loops", "mup", **LONG)),
    ("`mup+completep` over loops", Measured("lr_loops.csv", "loops", "mup+completep", **LONG)),
    (
        "`mup` over experts, no rule",
        Measured(
            "lr_experts.csv", "experts", "mup", 60, what="GPT, SGD, experts' lr", hp="expert_lr"
        ),
    ),
    (
        "`mup+moe`",
        Measured(
            "lr_experts.csv", "experts", "mup+moe", 60, what="GPT, SGD, experts' lr", hp="expert_lr"
        ),
    ),
    ("`mup+moe`", Measured("lr_experts_long.csv", "experts", "mup+moe", **LONG)),
    (
        "`mup+moe`",
        Measured("lr_experts_wide.csv", "experts", "mup+moe", what="GPT of width 64", **LONG),
    ),
    (
        "the same, from 8 experts on, of which two and more see a token",
        Measured(
            "lr_experts_wide.csv", "experts", "mup+moe", what="GPT of width 64", least=8, **LONG
        ),
    ),
    ("`mup` over granularity, no rule", finer("mup")),
    ("`mup+moe` over granularity", finer("mup+moe")),
    (
        "`mup+moe-bottleneck`, width, too",
        Measured(
            "lr_experts_thin.csv",
            "experts",
            "mup+moe-bottleneck",
            what="GPT, 16 units an expert, width 32 to 256",
            **LONG,
        ),
    ),
    ("best decay, policy `lr-constant`", Measured(DECAY, "width", "lr-constant", **AT_LR)),
    ("best decay, policy `coupled`", Measured(DECAY, "width", "coupled", **AT_LR)),
    ("best decay, policy `sqrt-width`", Measured(DECAY, "width", "sqrt-width", **AT_LR)),
    *((f"best decay, policy `{name}`", row) for name, row in DIGITS_DECAY.items()),
    ("`mup` over steps, no rule", Measured("lr_steps.csv", "steps", "mup", 4000, decay=True)),
    (
        "`mup`, run rule `token-horizon`",
        Measured("lr_steps.csv", "steps", "mup", 4000, decay=True, rule="token-horizon"),
    ),
    ("`mup` over batch, no rule", Measured("lr_batch.csv", "batch_size", "mup", 4000, decay=True)),
    (
        "`mup`, lr by the run rule `sde`",
        Measured("lr_batch.csv", "batch_size", "mup", 4000, decay=True, rule="sde"),
    ),
    (
        "`mup`, all by the run rule `sde`",
        Measured("lr_batch_sde.csv", "batch_size", "mup", 8000, decay=True, rule="sde"),
    ),
    (
        "the same, the largest batch left out afterwards",
        Measured("lr_batch_sde.csv", "batch_size", "mup", 8000, decay=True, most=32, rule="sde"),
    ),
    ("`u-mup`", Measured("lr_width_umup_long.csv", "width", "u-mup", 1000, decay=True)),
    ("`u-mup`", wide("u-mup", "adamw")),
    ("`u-mup`", digits("u-mup", "adamw")),
    ("`mup`", Measured("lr_width_soap.csv", "width", "mup", 1000, decay=True, what="GPT, SOAP")),
    (
        "`sp`",
        Measured("lr_width_shampoo.csv", "width", "sp", 1000, decay=True, what="GPT, Shampoo"),
    ),
    (
        "`mup`",
        Measured("lr_width_shampoo.csv", "width", "mup", 1000, decay=True, what="GPT, Shampoo"),
    ),
    (
        "`sp`",
        Measured("lr_width_kfac.csv", "width", "sp", 1000, decay=True, what="GPT, K-FAC"),
    ),
    (
        "`mup`",
        Measured("lr_width_kfac.csv", "width", "mup", 1000, decay=True, what="GPT, K-FAC"),
    ),
    ("`lora` over rank", "docs/adapters.md"),
)


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
