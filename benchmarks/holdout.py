"""How often predictive intervals hold runs that were left out, on published tables.

For each table and split a law is fitted to the smaller runs and predicts the larger ones. Printed
are the share of these inside their 95 % interval, with the interval as the bootstrap gives it and
as `LawFit.predict` widens it by the errors of held-out rows, and the mean absolute error.

The rule of widening was chosen on the splits by N and by D (and on simulated broken laws); the
splits by compute, and the other tables, had no part in it. The published tables have no licence to
ship: give the folder that holds them as --data. The table of the repository is always there.

    python benchmarks/holdout.py --data FOLDER
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from paramz.analysis.extrapolation import distance
from paramz.analysis.law import ScalingLaw

HERE = Path(__file__).resolve().parent


def chinchilla(folder: Path) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Splits of Hoffmann et al.'s figure 4: fitted below a cut, tested above it."""
    path = folder / "chinchilla/svg_extracted_data.csv"
    if not path.is_file():
        return
    df = pd.read_csv(path).sort_values("loss", ignore_index=True)
    df = df.assign(N=df["Model Size"], C=df["Training FLOP"])
    df = df.assign(D=df["C"] / 6 / df["N"])
    few = df.iloc[:-5]  # as the published refit does
    for cut in (1e20, 3e20, 1e21):
        yield f"chinchilla, C <= {cut:g}", few[few["C"] <= cut], few[few["C"] > 1.5 * cut]
    for by in "ND":
        for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
            cut = few[by].quantile(share)
            yield f"chinchilla, {by}, {share:.0%} *", few[few[by] <= cut], few[few[by] > cut]


def width_tables(folder: Path) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Losses over one scale: the largest two or three are predicted."""
    path = folder / "mu_scaling/loss_vs_params_20k.csv"
    if path.is_file():
        df = pd.read_csv(path).rename(columns={"params_M": "size", "train_loss_20k": "loss"})
        df = df.sort_values("size")
        for hold in (2, 3):
            yield f"mu-scaling, largest {hold}", df.iloc[:-hold], df.iloc[-hold:]
    df = pd.read_csv(HERE.parent / "analysis/data/loss_width.csv", comment="#")
    for name, part in df.groupby("parametrization"):
        means = (
            part.groupby("width", as_index=False)["loss"].mean().rename(columns={"width": "size"})
        )
        means = means[np.isfinite(means["loss"])]
        yield f"paramz loss_width, {name}, largest 2", means.iloc[:-2], means.iloc[-2:]


def tested(train: pd.DataFrame, test: pd.DataFrame) -> tuple[float, float, float]:
    """Shares inside without and with widening, and the mean absolute relative error."""
    one = "size" in train
    law = ScalingLaw("power" if one else "chinchilla")
    # Seed means over one scale hold no stray points: as in paramz.analysis.predict_loss.
    fit = law.fit(train, delta=1e-2, size="size") if one else law.fit(train)
    ahead = fit.predict(test)
    logs = {k: np.log(ahead[k].to_numpy()) for k in ("mean", "lo", "hi")}
    problem = fit._problem
    factor = fit.extrapolation.factor(distance(problem.logs, problem.logs_of(test)))
    y = np.log(test["loss"].to_numpy())
    off = y - logs["mean"]
    wide = (logs["lo"] <= y) & (y <= logs["hi"])
    plain = ((logs["lo"] - logs["mean"]) / factor <= off) & (
        off <= (logs["hi"] - logs["mean"]) / factor
    )
    return float(plain.mean()), float(wide.mean()), float(np.abs(np.expm1(-off)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = HERE.parent.parent / "shared/data"
    parser.add_argument("--data", type=Path, default=folder, help="folder of the published tables")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| split | fitted | held out | inside, plain | inside, widened | error |")
    print("|---|---|---|---|---|---|")
    for split in (chinchilla(asked.data), width_tables(asked.data)):
        for name, train, test in split:
            plain, wide, error = tested(train, test)
            print(
                f"| {name} | {len(train)} | {len(test)} | {plain:.0%} | {wide:.0%} | {error:.2%} |",
                flush=True,
            )
    print("* the rule of widening was chosen on these")


if __name__ == "__main__":
    main()
