"""Draw the figures of docs/evidence.md from the tables of trials in analysis/data.

python docs/evidence_figures.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from readme_rows import (
    DIGITS_DECAY,
    KFAC,
    NOISY,
    POLICIES,
    SHAMPOO,
    UNBIASED,
    WITHOUT,
    WORDS,
    Measured,
    digits,
    wide,
)
from readme_table import signed, trials

from paramz.analysis import LawFit, ScalingLaw, plots, predict_loss, transfer
from paramz.analysis.plots.style import theme

HERE = Path(__file__).parent
FIGURES = {
    "width_adamw": ("lr_width_adamw.csv", "width"),
    "width_sgd": ("lr_width_sgd.csv", "width"),
    "width_sp": ("lr_width_sp.csv", "width"),
    "width_muon": ("lr_width_muon.csv", "width"),
    "width_shampoo": ("lr_width_shampoo.csv", "width"),
    "width_soap": ("lr_width_soap.csv", "width"),
    "width_kfac": ("lr_width_kfac.csv", "width"),
    "width_umup": ("lr_width_umup_long.csv", "width"),
    "horizon": ("lr_steps.csv", "steps"),
    "batch": ("lr_batch.csv", "batch_size"),
    "depth": ("lr_depth_long.csv", "depth"),
    "depth_wide": ("lr_depth_wide.csv", "depth"),
    "loops": ("lr_loops.csv", "loops"),
    "experts_wide": ("lr_experts_wide.csv", "experts"),
    "experts_finer": ("lr_experts_finer.csv", "experts"),
    "experts_thin": ("lr_experts_thin.csv", "experts"),
    "experts": ("lr_experts_long.csv", "experts"),
}


def read(table: str) -> pd.DataFrame:
    """A table of trials."""
    return pd.read_csv(HERE.parent / "analysis/data" / table, comment="#")


def width_and_tokens() -> LawFit:
    """The law in width and tokens of docs/protocol.md, with its held-out rows."""
    df = read("loss_width_tokens.csv")
    df = df.assign(tokens=512 * df.steps)
    means = df.groupby(["width", "steps", "tokens"], as_index=False).loss.mean()
    return ScalingLaw("chinchilla").fit(
        means,
        N="width",
        D="tokens",
        holdout=lambda rows: ((rows.steps == 2000) | (rows.width == 256)).to_numpy(),
    )


WIDE = {
    "muP, AdamW": wide("mup", "adamw"),
    "muP, AdamH": wide("mup", "adamh"),
    "muP, SGD": wide("mup", "sgd"),
    "muP, Muon": wide("mup", "muon"),
    "muP, MuonH": wide("mup", "muonh"),
    "u-muP, AdamW": wide("u-mup", "adamw"),
    "SP, AdamW": wide("sp", "adamw"),
}
DIGITS = {
    "muP, AdamW": digits("mup", "adamw"),
    "muP, SGD": digits("mup", "sgd"),
    "u-muP, AdamW": digits("u-mup", "adamw"),
    "SP, SGD": digits("sp", "sgd"),
}


def panels(rows: dict[str, Measured], across: int, size: tuple[float, float]) -> Figure:
    """A panel for each row of README, by its title; each has its own axes."""
    down = -(-len(rows) // across)
    with theme():
        figure, axes = plt.subplots(down, across, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (title, row) in zip(axes.flat, rows.items(), strict=False):
        ax.set_axis_on()
        found = transfer(trials(row), hp=row.hp, scale=row.scale, loss=row.loss)
        plots.transfer(found, [ax])
        drift = found.drift.iloc[0]
        slope, lo, hi = (signed(drift[name]) for name in ("slope", "lo", "hi"))
        ax.set_title(f"{title}: {slope} [{lo}, {hi}]")
    return figure


def batch_sde() -> Figure:
    """The whole rule over batch sizes, with lr as of batch 16, as README's row counts it."""
    row = Measured("lr_batch_sde.csv", "batch_size", "mup", 8000, rule="sde")
    return plots.transfer(transfer(trials(row), scale="batch_size"))[0].figure


def main() -> None:
    """Draw all of them."""
    plt.rcParams["figure.max_open_warning"] = 0  # all are kept until they are saved
    figures = {
        name: plots.transfer(transfer(read(table), scale=scale))[0].figure
        for name, (table, scale) in FIGURES.items()
    }
    ax = None
    for index, found in enumerate(predict_loss(read("loss_width_long.csv"))):
        ax = plots.law(found.trial, label=found.group, index=index, ax=ax)
    ax.set_xlabel("width")
    figures["width_loss"] = ax.figure
    figures["wide"] = panels(WIDE, 4, (15, 7.2))
    figures["digits"] = panels(DIGITS, 4, (15, 3.9))
    figures["digits_decay"] = panels(DIGITS_DECAY, 2, (8.4, 3.9))
    figures["noisy_digits"] = panels(NOISY, 3, (11.5, 7.2))
    figures["noisy_unbiased"] = panels(UNBIASED, 2, (8.4, 3.9))
    figures["noisy_decay"] = panels(POLICIES, 3, (11.5, 7.2))
    figures["noisy_kfac"] = panels(KFAC, 4, (15, 3.9))
    figures["noisy_shampoo"] = panels(SHAMPOO, 2, (8.4, 3.9))
    figures["warmup_decay"] = panels(WITHOUT, 4, (15, 3.9))
    figures["words"] = panels(WORDS, 4, (15, 3.9))
    figures["batch_sde"] = batch_sde()
    figures["width_tokens"] = plots.law(width_and_tokens()).figure
    for name, figure in figures.items():
        figure.savefig(HERE / "img" / f"{name}.png", dpi=130, bbox_inches="tight")


if __name__ == "__main__":
    main()
