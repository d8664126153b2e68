"""Measure what docs/parametrizations.md prints: docs/slopes.csv and docs/drift.csv.

About 15 minutes on one core: python docs/measure.py. The drift is read from finished sweeps, made
by `paramz sweep`: sweeps/lr_depth.yaml, lr_experts.yaml and lr_width_umup.yaml (5 minutes each).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats

import paramz
from paramz.analysis import transfer
from paramz.sweeps import load

HERE = Path(__file__).parent
SWEEPS = HERE.parent / "sweeps"
LRS = {"sgd": 2**-3, "adamw": 2**-7, "muon": 2**-6}
UNIT_LRS = {"sgd": 2**-10, "adamw": 2**-4, "muon": 2**-4}
SWEPT = {
    "lr_depth": ("depth", "lr"),
    "lr_experts": ("experts", "expert_lr"),
    "lr_width_umup": ("width", "lr"),
}


@dataclass(frozen=True)
class Case:
    """A coordinate check over one axis; `apart` is a module that a second row leaves out.

    `scales` are others than those of the axis's first check.
    """

    axis: str
    parametrization: str
    optimizer: str
    seeds: int = 3
    config: dict[str, Any] = field(default_factory=dict)
    apart: str = ""
    scales: tuple[int, ...] = ()

    def check(self) -> pd.DataFrame:
        """Run it; branches start at zero, where finite size disturbs least, but under u-muP."""
        if self.axis == "depth":
            depths = self.scales or (4, 8, 16, 32)
            task, scales, context = "train_lm.py:task", {"depths": depths}, 32
        elif self.axis == "width":
            task, scales, context = "train_lm.py:task", {"widths": (32, 64, 128, 256)}, 32
        else:
            task, scales, context = "train_moe.py:task", {"experts": (8, 16, 32, 64)}, 64
        config = {"batch_size": 16, "context": context, "zero": True, **self.config}
        lrs = UNIT_LRS if self.parametrization == "u-mup" else LRS
        return paramz.coord_check(
            f"{SWEEPS}/{task}",
            **scales,
            base_width=32,
            parametrization=self.parametrization,
            optimizer=self.optimizer,
            lr=lrs[self.optimizer],
            seeds=self.seeds,
            config=config,
        )


CASES = [
    *(
        Case("depth", scheme, optimizer)
        for scheme in ("mup", "mup+depth-mup", "mup+completep")
        for optimizer in LRS
    ),
    # Added because from 4 blocks on Depth-muP with AdamW stays undecided.
    *(
        Case("depth", scheme, "adamw", seeds=4, scales=(8, 16, 32, 64))
        for scheme in ("mup", "mup+depth-mup", "mup+completep")
    ),
    *(
        Case("experts", scheme, optimizer, seeds=6 if optimizer == "sgd" else 3)
        for scheme in ("mup", "mup+moe")
        for optimizer in LRS
    ),
    *(Case("experts", "mup+moe", optimizer, 2, {"top_k": 2}) for optimizer in ("sgd", "adamw")),
    *(
        Case("width", "u-mup", optimizer, seeds=8 if optimizer == "sgd" else 3, apart="embed")
        for optimizer in UNIT_LRS
    ),
]


def rows(case: Case, df: pd.DataFrame) -> list[dict[str, Any]]:
    """The row of a case; where a module is apart, one with and one without it."""
    if not case.apart:
        return [row(case, df)]
    alone = df.module == case.apart
    return [
        {**row(case, df), "setting": f"with {case.apart}"},
        {**row(case, df[~alone]), "setting": f"without {case.apart}"},
    ]


def row(case: Case, df: pd.DataFrame) -> dict[str, Any]:
    """The worst judged slope, and that of the update that inner layers make by themselves."""
    verdict = paramz.judge(df)
    judged = [s for s in verdict.slopes if s.passed is not None]
    flat = [s for s in judged if s.role != "output" or s.quantity == "update"]
    worst = max(flat, key=lambda s: abs(s.slope))
    inside = "experts[.]" if case.axis == "experts" else "blocks[.][0-9]+[.]"
    own = df[(df.quantity == "update") & df.module.str.contains(inside)]
    sizes = own.groupby([case.axis, "seed"]).rms.mean().reset_index()
    fit = stats.linregress(np.log(sizes[case.axis]), np.log(sizes.rms))
    half = stats.t.ppf(0.975, len(sizes) - 2) * fit.stderr
    return {
        "axis": case.axis,
        "from": df[case.axis].min(),
        "to": df[case.axis].max(),
        "parametrization": case.parametrization,
        "optimizer": case.optimizer,
        "lr": verdict.lr,
        "seeds": df.seed.nunique(),
        "setting": " ".join(f"{k}={v}" for k, v in case.config.items()),
        "verdict": verdict.outcome.upper(),
        "module": worst.module,
        "slope": round(worst.slope, 3),
        "lo": round(worst.lo, 3),
        "hi": round(worst.hi, 3),
        "own": round(fit.slope, 3),
        "own_lo": round(fit.slope - half, 3),
        "own_hi": round(fit.slope + half, 3),
    }


def drifts(runs: Path) -> pd.DataFrame:
    """How the best learning rate moves per doubling, in octaves, of every finished sweep."""
    tables = []
    for name, (scale, hp) in SWEPT.items():
        if (runs / name).is_dir():
            df = load(runs / name)
            span = f"{scale} {df[scale].min()}–{df[scale].max()}"
            tables.append(transfer(df, hp=hp, scale=scale).drift.assign(over=span))
    return pd.concat(tables)


if __name__ == "__main__":
    torch.set_num_threads(1)
    table = []
    for case in CASES:
        table += rows(case, case.check())
        print(table[-1], flush=True)
    pd.DataFrame(table).to_csv(HERE / "slopes.csv", index=False)
    drifts(HERE.parent / "runs").round(3).to_csv(HERE / "drift.csv", index=False)
