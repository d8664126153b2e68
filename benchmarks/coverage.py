"""How often 95 % intervals hold the truth, over simulated data sets: those of laws and of optima.

For every form of law, data are drawn with known parameters and normal log residuals. It is counted
how often the interval of each parameter holds it, and how often the predictive interval at four
times the largest inputs holds a new run with a residual of its own. Forms with one input are fitted
to 10 rows, too, where the bootstrap draws residuals rather than rows. For the optimum of a loss
curve, bowls of several shapes are drawn around random centres, with one to five seeds.

    python benchmarks/coverage.py [data sets, default 300]
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd

from paramz.analysis.forms import FORMS
from paramz.analysis.law import ScalingLaw
from paramz.analysis.optimum import find_optimum

SCATTER = 0.005
BOOTSTRAPS = 400

TRUTH = {
    "power": {"E": 1.8, "A": 30.0, "alpha": 0.35},
    "pure_power": {"A": 12.0, "alpha": 0.1},
    "chinchilla": {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37},
    "tied": {"E": 1.8, "A": 480.0, "B": 1500.0, "alpha": 0.35},
    "kaplan": {"Nc": 8.8e13, "Dc": 5.4e13, "alpha_N": 0.076, "alpha_D": 0.103},
    "broken": {"E": 1.0, "b": 20.0, "c0": 0.15, "c1": 0.3, "d": 3e3, "f": 0.3},
    "hp": {"c": 1.8, "p": -0.7, "q": 0.3},
    "batch": {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "critical": 2e6},
    "repeated": {
        "E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "R_D": 15.0, "R_N": 5.0
    },
}  # fmt: skip


def repeated(
    N: np.ndarray, D: np.ndarray, U: np.ndarray, E: float, A: float, B: float, alpha: float,
    beta: float, R_D: float, R_N: float,
) -> np.ndarray:  # fmt: skip
    """The law for repeated data as Muennighoff et al. write it."""
    fed = np.minimum(N, (alpha * A / (beta * B)) ** (1 / alpha) * U ** (beta / alpha))
    seen = np.minimum(D, U)
    size = fed + fed * R_N * (1 - np.exp(-(N / fed - 1) / R_N))
    tokens = seen + seen * R_D * (1 - np.exp(-(D / seen - 1) / R_D))
    return E + A * size**-alpha + B * tokens**-beta


LAW = {
    "power": lambda x, E, A, alpha: E + A * x**-alpha,
    "pure_power": lambda x, A, alpha: A * x**-alpha,
    "chinchilla": lambda N, D, E, A, B, alpha, beta: E + A * N**-alpha + B * D**-beta,
    "tied": lambda N, D, E, A, B, alpha: E + A * N**-alpha + B * D**-alpha,
    "kaplan": lambda N, D, Nc, Dc, alpha_N, alpha_D: (
        ((Nc / N) ** (alpha_N / alpha_D) + Dc / D) ** alpha_D
    ),
    "broken": lambda x, E, b, c0, c1, d, f: E + b * x**-c0 * (1 + (x / d) ** (1 / f)) ** (-c1 * f),
    "hp": lambda N, D, c, p, q: c * N**p * D**q,
    "batch": lambda N, D, batch, E, A, B, alpha, beta, critical: (
        E + A * N**-alpha + B * (D / (1 + batch / critical)) ** -beta
    ),
    "repeated": repeated,
}


def design(form: str, rows: int, rng: np.random.Generator) -> pd.DataFrame:
    if FORMS[form].inputs == ("x",):
        low, high = (1e1, 1e6) if form == "broken" else (32, 8192)
        return pd.DataFrame({"x": np.geomspace(low, high, rows)})
    df = pd.DataFrame(
        {"N": np.exp(rng.uniform(*np.log([4e7, 1e10]), rows)),
         "D": np.exp(rng.uniform(*np.log([5e8, 3e11]), rows))}
    )  # fmt: skip
    if form == "batch":
        df["batch"] = np.exp(rng.uniform(*np.log([1e5, 3e7]), rows))
    if form == "repeated":  # up to 60 epochs, and models of a tenth to ten times what U feeds
        df["U"] = df["D"] / np.exp(rng.uniform(0, np.log(60), rows))
        df["N"] = df["U"] / 20 * np.exp(rng.uniform(np.log(0.1), np.log(10), rows))
    return df


def coverage(form: str, rows: int, sets: int, seed: int = 0) -> dict[str, float]:
    """The share of data sets whose interval holds each parameter and a new run."""
    rng = np.random.default_rng(seed)
    truth, law = TRUTH[form], LAW[form]
    inputs = {"x": "x"} if FORMS[form].inputs == ("x",) else {}
    hits = dict.fromkeys((*truth, "new run"), 0)
    for number in range(sets):
        df = design(form, rows, rng)
        columns = {c: df[c].to_numpy() for c in df}
        df["loss"] = law(**columns, **truth) * np.exp(SCATTER * rng.standard_normal(rows))
        fit = ScalingLaw(form).fit(df, **inputs)
        draws = fit.bootstrap(BOOTSTRAPS, seed=number)
        bounds = fit.conf_int(draws=draws)
        for name, value in truth.items():
            hits[name] += bounds.loc[name, "lo"] <= value <= bounds.loc[name, "hi"]
        far = {c: 4 * v.max() for c, v in columns.items()}
        new = law(**far, **truth) * np.exp(SCATTER * rng.standard_normal())
        ahead = fit.predict(far, draws=draws).iloc[0]
        hits["new run"] += ahead["lo"] <= new <= ahead["hi"]
    return {name: count / sets for name, count in hits.items()}


CASES = [
    ("power", 10), ("power", 40), ("pure_power", 10), ("pure_power", 40), ("chinchilla", 60),
    ("chinchilla", 240), ("tied", 60), ("kaplan", 60), ("broken", 60), ("hp", 40),
    ("batch", 120), ("repeated", 240),
]  # fmt: skip


GRID = np.arange(-11.0, -2.0)
BOWLS = {
    "parabola": lambda u: 0.02 * u**2,
    "steep wall": lambda u: 0.02 * u**2 + 0.1 * np.maximum(0, u - 1.5) ** 3,
    "V, rounded": lambda u: 0.05 * np.sqrt(1 + u**2),
    "lopsided": lambda u: 0.15 * (1 - np.exp(0.35 * u)) ** 2,
}


def optimum_coverage(shape: str, seeds: int, sets: int) -> float:
    """The share of noisy bowls whose interval holds the centre."""
    rng = np.random.default_rng(0)
    hits = 0
    for number in range(sets):
        center = rng.uniform(-8.5, -4.5)
        noise = 0.004 * rng.standard_normal((seeds, len(GRID)))
        found = find_optimum(
            GRID, 2.5 + BOWLS[shape](GRID - center) + noise, draws=400, seed=number
        )
        hits += found.lo <= center <= found.hi
    return hits / sets


def main() -> None:
    sets = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    warnings.simplefilter("ignore")
    print(f"{sets} data sets per row, {SCATTER:.1%} scatter, {BOOTSTRAPS} bootstraps each")
    for form, rows in CASES:
        found = coverage(form, rows, sets)
        cells = "  ".join(f"{name} {share:.1%}" for name, share in found.items())
        print(f"{form:>11} {rows:4d} rows   {cells}", flush=True)
    for shape in BOWLS:
        shares = "  ".join(
            f"{n} seeds {optimum_coverage(shape, n, sets):.1%}" for n in (1, 2, 3, 5)
        )
        print(f"optimum of a bowl, {shape}: {shares}", flush=True)


if __name__ == "__main__":
    main()
