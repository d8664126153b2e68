"""Write the table of drifts in docs/second_order.md from the trials in analysis/data.

python docs/second_order_table.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from paramz.analysis import Transfer, transfer

HERE = Path(__file__).parent
DATA = HERE.parent / "analysis/data/second_order.csv"
PAGE = HERE / "second_order.md"
HEAD = "| task | optimizer, value | mup | sp | best loss at the widest, mup / sp |"
TOLERANCE = 0.1
SHAMPOO, ROOT, KFAC = "Shampoo(-1/4), lr", "Shampoo(-1/2), eps", "K-FAC, lr"
DAMPING = "K-FAC, constant damping"

# What the row says, and its task, optimizer and hyperparameter in the table of trials. None is
# the row before without its narrowest width.
ROWS: tuple[tuple[str, str, tuple[str, str, str] | None], ...] = (
    ("MLP, width 32 to 512", SHAMPOO, ("mlp", "shampoo", "lr")),
    ("", ROOT, ("mlp", "shampoo", "damping")),
    ("", KFAC, ("mlp", "kfac", "lr")),
    ("", DAMPING, ("mlp", "kfac", "damping")),
    ("conv net, width 8 to 128", SHAMPOO, ("conv", "shampoo", "lr")),
    ("", ROOT, ("conv", "shampoo", "damping")),
    ("", KFAC, ("conv", "kfac", "lr")),
    ("", DAMPING, ("conv", "kfac", "damping")),
    ("from a base of 32, to 256", SHAMPOO, ("conv wide", "shampoo", "lr")),
    ("", ROOT, ("conv wide", "shampoo", "damping")),
    ("GPT, width 32 to 512", SHAMPOO, ("lm", "shampoo", "lr")),
    ("from 64 to 512", "the same", None),
    ("GPT, width 32 to 256", KFAC, ("lm", "kfac", "lr")),
    ("from a base of 128, to 512", "the same, three seeds", ("lm wide", "kfac", "lr")),
    ("MLP, squared error", SHAMPOO, ("mlp mse", "shampoo", "lr")),
    ("", ROOT, ("mlp mse", "shampoo", "damping")),
    ("", KFAC, ("mlp mse", "kfac", "lr")),
    ("", DAMPING, ("mlp mse", "kfac", "damping")),
    ("MLP, at a constant damping", "Shampoo(-1/2), lr", ("mlp damped", "shampoo", "lr")),
    ("", KFAC, ("mlp damped", "kfac", "lr")),
)


def drift(found: Transfer, group: str) -> str:
    """A drift with its interval, bold if that lies outside the tolerance."""
    row = found.drift.set_index("group").loc[group]
    text = f"{row['slope']:+.2f} [{row['lo']:+.2f}, {row['hi']:+.2f}]"
    return f"**{text}**" if row["lo"] > TOLERANCE or row["hi"] < -TOLERANCE else text


def table() -> str:
    """The table, in Markdown."""
    runs = pd.read_csv(DATA, comment="#")
    lines, part = [HEAD, "| --- | --- | --- | --- | --- |"], runs
    for task, what, case in ROWS:
        if case is None:
            found = transfer(part[part.width > part.width.min()], hp="value", by="parametrization")
            best = ""
        else:
            of = dict(zip(("task", "optimizer", "hp"), case, strict=True))
            part = runs[(runs[list(of)] == pd.Series(of)).all(axis=1)]
            found = transfer(part, hp="value", by="parametrization")
            widest = found.comparison().iloc[-1]
            best = f"{widest.mup:.3f} / {widest.sp:.3f}"
        cells = (task, what, drift(found, "mup"), drift(found, "sp"), best)
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(HEAD)
    after = rest.partition("\n\n")[2]
    PAGE.write_text(f"{before}{table()}\n\n{after}", encoding="utf-8")
