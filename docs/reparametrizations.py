"""The figure and the tables of reparametrizations.md, from finished sweeps.

    paramz sweep sweeps/weight_norm.yaml && paramz sweep sweeps/compander.yaml
    python docs/reparametrizations.py --weight-norm runs/weight_norm --compander runs/compander

Writes img/reparam_weight_norm.png, reparam_weight_norm.csv and reparam_compander.csv, and prints
the tables.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt

from paramz.sweeps import load

HERE = Path(__file__).parent
GUESSING = 10.0  # the loss that stands for a run that diverged


def weight_norm(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds for each model, variant and learning rate."""
    runs = runs.assign(diverged=runs.status != "ok")
    runs.loc[runs.diverged, ["loss", "final_loss"]] = GUESSING
    keys = ["model", "variant", "lr"]
    cells = runs.groupby(keys).agg(
        loss=("loss", "mean"),
        loss_sd=("loss", "std"),
        final_loss=("final_loss", "mean"),
        test=("test", "mean"),
        diverged=("diverged", "sum"),
        seeds=("seed", "nunique"),
    )
    return cells.reset_index()


def compander(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds for each model, variant, decay and learning rate."""
    keys = ["model", "variant", "weight_decay", "lr"]
    cells = runs.groupby(keys).agg(
        validation=("validation", "mean"),
        test=("test", "mean"),
        test_sd=("test", "std"),
        final_loss=("final_loss", "mean"),
        seeds=("seed", "nunique"),
    )
    return cells.reset_index()


def best(cells: pd.DataFrame, by: list[str], score: str, largest: bool) -> pd.DataFrame:
    """The row with the best score in each group."""
    groups = cells.groupby(by)[score]
    return cells.loc[groups.idxmax() if largest else groups.idxmin()]


def figure(runs: list[Path], cells: pd.DataFrame, path: Path) -> None:
    """Draw loss against learning rate, and training curves, each at its best learning rate."""
    chosen = best(cells, ["model", "variant"], "loss", largest=False)
    frame = pd.concat([load(r).assign(run=str(r)) for r in runs])
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    order = ["plain", "plain-data", "weight-norm", "weight-norm-data", "mean-only"]
    for row, model in zip(axes, ("mlp", "conv"), strict=True):
        part = cells[(cells.model == model) & (cells.loss < 3)]
        sns.lineplot(part, x="lr", y="loss", hue="variant", hue_order=order, marker="o", ax=row[0])
        lines, labels = row[0].get_legend_handles_labels()
        row[0].get_legend().remove()
        row[0].set(xscale="log", xlabel="learning rate (SGD)", ylabel="mean training loss, nats")
        row[0].set_xscale("log", base=2)
        row[0].set_title(f"{model}: loss over 200 steps")
        curves = []
        for cell in chosen[chosen.model == model].itertuples():
            same = frame[
                (frame.model == model) & (frame.variant == cell.variant) & (frame.lr == cell.lr)
            ]
            for trial in same.itertuples():
                log = Path(trial.run) / "trials" / trial.key / "history.jsonl"
                curve = pd.read_json(log, lines=True)[["step", "loss"]]
                curves.append(curve.assign(variant=cell.variant, seed=trial.seed))
        whole = pd.concat(curves)
        whole["step"] = whole.step // 5 * 5  # the mean of five steps
        sns.lineplot(
            whole, x="step", y="loss", hue="variant", hue_order=order, ax=row[1], legend=False
        )
        row[1].set(yscale="log", ylabel="training loss, nats")
        row[1].set_title(f"{model}: each at its best learning rate")
    figure.legend(lines, labels, loc="outside lower center", ncols=len(order))
    figure.savefig(path, dpi=110)


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weight-norm", nargs="+", type=Path, required=True)
    parser.add_argument("--compander", nargs="+", type=Path, required=True)
    arguments = parser.parse_args()
    runs = arguments.weight_norm
    cells = weight_norm(pd.concat([load(run) for run in runs]))
    cells.round(5).to_csv(HERE / "reparam_weight_norm.csv", index=False)
    print(best(cells, ["model", "variant"], "loss", largest=False).to_string())
    figure(runs, cells, HERE / "img" / "reparam_weight_norm.png")
    cells = compander(pd.concat([load(run) for run in arguments.compander]))
    cells.round(5).to_csv(HERE / "reparam_compander.csv", index=False)
    chosen = best(cells, ["model", "variant", "weight_decay"], "validation", largest=True)
    print(chosen.to_string())
    print(best(chosen, ["model", "variant"], "validation", largest=True).to_string())


if __name__ == "__main__":
    main()
