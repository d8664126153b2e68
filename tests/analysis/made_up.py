"""Sweeps made up with a known answer, as tables and as stores on disk."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from paramz.sweeps import Store
from paramz.sweeps.spec.config import config_key

SHIPPED = Path(__file__).parents[2] / "analysis/data"


def made_up_sweep(drift: dict[str, float], *, noise: float = 0.002, seeds: int = 2) -> pd.DataFrame:
    """Loss bowls whose optimum moves by `drift` octaves per doubling, with a cliff on the right."""
    rng = np.random.default_rng(0)
    rows = []
    for name, slope in drift.items():
        for width in (32, 64, 128, 256):
            best = -5.1 + slope * np.log2(width / 32)
            for x in range(-11, -2):
                for seed in range(seeds):
                    bowl = 0.02 * (x - best) ** 2 + 0.1 * max(0.0, x - best - 1.5) ** 3
                    loss = 2.2 + 8 / width**0.8 + bowl + noise * rng.standard_normal()
                    over_cliff = x - best > 4
                    rows.append(
                        {
                            "parametrization": name,
                            "width": width,
                            "lr": 2.0**x,
                            "seed": seed,
                            "status": "diverged" if over_cliff else "ok",
                            "loss": np.nan if over_cliff else loss,
                        }
                    )
    return pd.DataFrame(rows)


def store_runs(df: pd.DataFrame, root: Path) -> Path:
    """Write a table as the store that `paramz sweep` would have left."""
    store = Store(root).create()
    for row in df.to_dict("records"):
        config = {k: row[k] for k in row if k not in ("status", "loss", "error")}
        store.save(
            {
                "key": config_key(config),
                "status": row["status"],
                "error": row.get("error"),
                "config": config,
                "metrics": {"loss": row["loss"]} if row["status"] == "ok" else {},
                "seconds": 1.5,
            }
        )
    return root


def store_check(folder: Path, label: str, power: float, passed: bool) -> None:
    """Write a coordinate check in which every output changes like width**power."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "parametrization": label,
            "optimizer": "adamw",
            "width": width,
            "seed": 0,
            "lr": 0.01,
            "step": step,
            "module": module,
            "role": "hidden",
            "quantity": quantity,
            "rms": step * width**power if quantity == "delta" else 1.0,
        }
        for width in (64, 128, 256)
        for step in (1, 2, 3)
        for module in ("blocks.0.up", "blocks.0.down", "readout")
        for quantity in ("output", "delta")
    ]
    pd.DataFrame(rows).to_csv(folder / f"{label}.csv", index=False)
    slope = {"module": "readout", "step": 3, "quantity": "delta", "slope": power}
    summary = {
        "parametrization": label,
        "optimizer": "adamw",
        "passed": passed,
        "tolerance": 0.1,
        "sentence": f"{label}: slope {power} at readout",
        "slopes": [slope | {"lo": power - 0.01, "hi": power + 0.01, "passed": passed}],
    }
    (folder / f"{label}.json").write_text(json.dumps(summary))


def data_file(name: str) -> Path:
    """A published data set that does not ship; the test is skipped where it is absent."""
    folder = Path(os.environ.get("PARAMZ_DATA", Path(__file__).parents[2].parent / "shared/data"))
    path = folder / name
    if not path.is_file():
        pytest.skip(f"needs {name}: set PARAMZ_DATA to the folder that holds it")
    return path
