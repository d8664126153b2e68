"""Draw the figures of docs/evidence.md from the tables of trials in analysis/data.

python docs/evidence_figures.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from paramz.analysis import plots, transfer

HERE = Path(__file__).parent
FIGURES = {"width_adamw": ("lr_width_adamw.csv", "width"), "horizon": ("lr_steps.csv", "steps")}


def main() -> None:
    """Draw all of them."""
    for name, (table, scale) in FIGURES.items():
        df = pd.read_csv(HERE.parent / "analysis/data" / table, comment="#")
        figure = plots.transfer(transfer(df, scale=scale))[0].figure
        figure.savefig(HERE / "img" / f"{name}.png", dpi=130, bbox_inches="tight")


if __name__ == "__main__":
    main()
