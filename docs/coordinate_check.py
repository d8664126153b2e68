"""The measured parts of coordinate_check.md: three worked failures, their figure, the error table.

python docs/coordinate_check.py       # a minute of CPU; rewrites the page between its markers

The error table is read from benchmarks/results/check_power.csv, which benchmarks/check_power.py
writes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.analysis.plots import coord_module

HERE = Path(__file__).parent
PAGE = HERE / "coordinate_check.md"
sys.path.insert(0, str(HERE.parent / "benchmarks"))

WIDTHS = (64, 128, 256, 512)
WORDS = 32


class Model(nn.Module):
    """An embedding, a residual branch, a readout, and two things that people write."""

    def __init__(self, width: int, *, scaled: bool = False, tied: bool = False) -> None:
        super().__init__()
        self.scaled, self.tied = scaled, tied
        self.embed = nn.Embedding(WORDS, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        if not tied:
            self.head = nn.Linear(width, WORDS, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits (tokens, words)."""
        x = self.embed(ids)
        if self.scaled:
            x = x * x.shape[-1] ** 0.5
        x = x + self.down(F.gelu(self.up(x)))
        if self.tied:
            return F.linear(self.norm(x), self.embed.weight)
        return self.head(self.norm(x))


def scaled(width: int) -> Model:
    """With x * sqrt(d_model) behind the embedding."""
    return Model(width, scaled=True)


def tied(width: int) -> Model:
    """With a readout that is tied in the forward pass."""
    return Model(width, tied=True)


def plain_checks() -> dict[str, tuple[pd.DataFrame, str, str]]:
    """Title -> table, module to show and quantity that were judged in each worked failure."""
    ids = torch.randint(WORDS, (4, 8), generator=torch.Generator().manual_seed(0)).flatten()
    batch = ids, ids.roll(-1)
    # parametrize_ would hold both factors, so the plan is told to leave them as the code has them.
    return {
        "no parametrization": (
            paramz.coord_check(Model, batch, parametrization="sp", widths=WIDTHS),
            "up",
            "update",
        ),
        "a factor sqrt(d_model)": (
            paramz.coord_check(
                scaled, batch, widths=WIDTHS, factors={"^embed$": None, "^up$": None}
            ),
            "up(input)",
            "output",
        ),
        "a readout tied in the code": (
            # A plan refuses a table that the code also reads out with; here it is told a role.
            paramz.coord_check(tied, batch, widths=WIDTHS, roles={r"^embed\.weight$": "input"}),
            "(model)",
            "output",
        ),
    }


def worked() -> str:
    """The text of the three failures; draws their figure."""
    checks = plain_checks()
    figure, axes = plt.subplots(1, len(checks), figsize=(9.5, 3.0), layout="constrained")
    text = []
    for (title, (df, module, quantity)), ax in zip(checks.items(), axes, strict=True):
        # One step is judged: outputs before training, own updates at the last.
        steps = df.step[df.quantity == quantity]
        step = 0 if quantity == "output" else steps.max()
        coord_module(df[df.step == step], module, quantity, ax)
        ax.set_title(f"{title}\n{module}, step {step}", fontsize=8)
        if ax.get_legend() is not None:
            ax.get_legend().remove()
        text.append(f"**{title}**\n\n```text\n{paramz.judge(df).sentence}\n```\n")
    figure.savefig(HERE / "img" / "coordinate_check.png", dpi=130)
    return "\n".join(text)


def errors() -> str:
    """The table of error rates."""
    from check_power import RESULTS, parts, rates

    table = pd.read_csv(RESULTS)
    found = {title: rates(part) for title, part in parts(table).items()}
    lines = ["| | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    for name in next(iter(found.values())):
        values = [rate[name] for rate in found.values()]
        whole = name in ("right plans", "faults")
        form = "{:.0f}" if whole else "{:.1f}" if "seconds" in name else "{:.1%}"
        shown = ["-" if v != v else form.format(v) for v in values]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    wrong = table[~table.fault.str.startswith("mup") & (table.fault != "sp")]
    lines += [
        "",
        "| planted fault | checks | found | culprit right | cause right |",
        "|---|---|---|---|---|",
    ]
    for fault, part in wrong.groupby("fault", sort=False):
        hits = part[part.outcome == "fail"]
        right = (hits[c].astype(bool).sum() for c in ("culprit_right", "cause_right"))
        cells = " | ".join(str(n) for n in (len(part), len(hits), *right))
        lines.append(f"| {fault} | {cells} |")
    return "\n".join(lines) + "\n"


def between(page: str, marker: str, text: str) -> str:
    """The page with the text between the comments of a marker."""
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- end {marker} -->)"
    return re.sub(pattern, lambda m: f"{m[1]}\n{text}\n{m[2]}", page, flags=re.S)


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = between(PAGE.read_text(encoding="utf-8"), "worked", worked())
    PAGE.write_text(between(made, "errors", errors()), encoding="utf-8")
