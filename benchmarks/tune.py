"""What `paramz tune` decides for a byte-level GPT, beside what training the target shows.

    python benchmarks/tune.py [number of repetitions, default 3] [first of them, default 0]

Each repetition has seeds of its own. Tuning has 10 CPU-minutes; the target is four times as wide
as the largest proxy, and is then trained with the repetition's first seed at the chosen learning
rate and at half octaves around it, up to an octave away. results/tune.csv has a row per
repetition: what the chosen value costs above the lowest loss of these runs, and by how much the
predicted loss of the target misses that at the chosen value, both in per cent. A repetition takes
about 20 CPU-minutes; the runs are kept in runs/bench_tune, and the same command goes on where it
stopped.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pandas as pd

import paramz
from paramz.sweeps import Sweep, run

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "tune.csv"
RUNS = ROOT / "runs" / "bench_tune"
WIDTH, STEPS, BUDGET = 512, 50, "10cpu-minutes"
AROUND = [0.5 * i for i in range(-2, 3)]
# The shipped training function with seeds of its own for every repetition.
TASK = """
import train_lm
from train_lm import task

def train(config, trial):
    return train_lm.train({{**config, "seed": 10 * {number} + config["seed"]}}, trial)
"""


def repetition(number: int) -> dict[str, object]:
    """Tune with seeds of its own, train the target, and compare."""
    out = RUNS / str(number)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("train_lm.py", "train_loop.py"):
        shutil.copyfile(ROOT / "sweeps" / name, out / name)
    (out / "repeated.py").write_text(TASK.format(number=number))
    decision = paramz.tune(
        str(out / "repeated.py:train"),
        f"width={WIDTH},steps={STEPS}",
        BUDGET,
        out=out / "tune",
        task=str(out / "repeated.py:task"),
        workers=1,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    assert decision.value is not None and decision.forecast is not None, decision.doubts
    first = json.loads((out / "tune" / "tune.json").read_text())["results"]["design"]["value"]
    target = Sweep(
        train=str(out / "repeated.py:train"),
        base={"base_width": first["widths"][0], "parametrization": "mup", "steps": STEPS},
        axes={
            "width": [WIDTH],
            "lr": [decision.value * 2.0**octaves for octaves in AROUND],
            "seed": [0],
        },
    )
    runs = run(target, out / "target", workers=1)
    good = runs[runs["status"] == "ok"].sort_values("lr")
    chosen = good.loc[(good["lr"] / decision.value - 1).abs().idxmin(), "loss"]
    best = good.loc[good["loss"].idxmin()]
    forecast = decision.forecast
    return {
        "repetition": number,
        "outcome": decision.outcome,
        "steps": STEPS,
        "proxies": " ".join(map(str, first["widths"])),
        "target": WIDTH,
        "lr": decision.value,
        "best_lr": best["lr"],
        "loss": chosen,
        "best_loss": best["loss"],
        "cost_percent": 100 * (chosen / best["loss"] - 1),
        "predicted": forecast.mean,
        "lo": forecast.lo,
        "hi": forecast.hi,
        "error_percent": None if forecast.mean is None else 100 * (forecast.mean / chosen - 1),
        "tuning": decision.cost.tuning if decision.cost else None,
    }


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    start = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for number in range(start, start + count):
        row = pd.DataFrame([repetition(number)])
        before = pd.read_csv(RESULTS) if RESULTS.exists() else row.iloc[:0]
        kept = before[before["repetition"] != number]
        table = row if kept.empty else pd.concat([kept, row]).sort_values("repetition")
        table.round(5).to_csv(RESULTS, index=False)
        print(table.round(5).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
