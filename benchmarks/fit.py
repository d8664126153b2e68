"""Scaling-law fits and bootstraps against scipy, on the Chinchilla form with 240 points.

The data are simulated on the published design. The real points have no licence and do not ship;
give the path of your copy to use them. Both sides run in turn on one thread, and the median over
the repeats is printed:

- fit: the best of scipy's L-BFGS-B runs from the 4500 starts of Hoffmann et al. and of the refit by
  Besiroglu et al., with an analytic gradient, tight tolerances and the scaled objective, against
  ``ScalingLaw("chinchilla").fit``. With ``--starts`` scipy runs from fewer starts, and its time is
  scaled up.
- bootstrap: 4000 refits by scipy's L-BFGS-B with an analytic gradient, each from the optimum,
  against `LawFit.bootstrap`. With ``--boots`` scipy does fewer, and its time is scaled up.

    python benchmarks/fit.py [--data svg_extracted_data.csv] [--repeats 3] [--starts 450]
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
from _timing import tell
from scipy.optimize import minimize

from paramz.analysis.law import ScalingLaw
from paramz.analysis.robust import huber

DELTA = 1e-3


def simulated() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(*np.log([4.4e7, 1.6e10]), 240))
    d = np.exp(rng.uniform(*np.log([2e8, 2e11]), 240))
    loss = 1.817 + 477.8 * n**-0.3473 + 2143 * d**-0.3672
    return pd.DataFrame({"N": n, "D": d, "loss": loss * np.exp(0.006 * rng.standard_t(4, 240))})


def published(path: str) -> pd.DataFrame:
    df = pd.read_csv(path).sort_values("loss", ignore_index=True).iloc[:-5]
    return df.assign(N=df["Model Size"], D=df["Training FLOP"] / 6 / df["Model Size"])


def scipy_objective(
    df: pd.DataFrame, weight: np.ndarray
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    log_n, log_d, log_y = (np.log(df[c].to_numpy()) for c in ("N", "D", "loss"))

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        a, b, e, alpha, beta = theta
        parts = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_n, e)])
        top = parts.max(axis=0)
        share = np.exp(parts - top)
        total = share.sum(axis=0)
        share /= total
        residual = (top + np.log(total) - log_y) / DELTA
        pull = weight * np.clip(residual, -1, 1) / DELTA
        slopes = [share[0], share[1], share[2], -share[0] * log_n, -share[1] * log_d]
        return float(weight @ huber(residual, 1.0)), np.array([pull @ s for s in slopes])

    return objective


def scipy_fit(df: pd.DataFrame, count: int) -> tuple[float, float, np.ndarray]:
    """Seconds for all 4500 starts (scaled up from ``count``), best objective, its parameters."""
    grid = list(
        product(range(0, 26, 5), range(0, 26, 5), np.arange(-1, 1.1, 0.5), np.arange(0, 2.1, 0.5),
                np.arange(0, 2.1, 0.5))
    )  # fmt: skip
    starts = [grid[i] for i in np.random.default_rng(0).permutation(len(grid))[:count]]
    objective = scipy_objective(df, np.ones(len(df)))
    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-8}
    begin = time.perf_counter()
    with np.errstate(over="ignore"):
        fits = [
            minimize(objective, s, jac=True, method="L-BFGS-B", options=options) for s in starts
        ]
    seconds = (time.perf_counter() - begin) * len(grid) / len(starts)
    best = min(fits, key=lambda f: f.fun)
    return seconds, best.fun * DELTA**2, best.x


def scipy_bootstrap(df: pd.DataFrame, optimum: np.ndarray, count: int) -> float:
    """Seconds for 4000 refits from the optimum (scaled up from ``count``)."""
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(df), np.full(len(df), 1 / len(df)), size=count).astype(float)
    begin = time.perf_counter()
    for weight in draws:
        minimize(scipy_objective(df, weight), optimum, jac=True, method="L-BFGS-B")
    return (time.perf_counter() - begin) * 4000 / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="svg_extracted_data.csv of the Chinchilla refit")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--starts", type=int, default=450)
    parser.add_argument("--boots", type=int, default=200)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    df = published(args.data) if args.data else simulated()
    law = ScalingLaw("chinchilla")
    law.fit(df)  # imports and caches
    theirs, ours, their_boots, our_boots = [], [], [], []
    for _ in range(args.repeats):
        seconds, objective, optimum = scipy_fit(df, args.starts)
        theirs.append(seconds)
        begin = time.perf_counter()
        fit = law.fit(df)
        ours.append(time.perf_counter() - begin)
        their_boots.append(scipy_bootstrap(df, optimum, args.boots))
        begin = time.perf_counter()
        fit.bootstrap(4000)
        our_boots.append(time.perf_counter() - begin)
    print(f"objective: scipy {objective:.10g}, paramz {fit.objective:.10g}")
    for name, a, b in (("fit", theirs, ours), ("4000 bootstraps", their_boots, our_boots)):
        first, second = statistics.median(a), statistics.median(b)
        print(f"{name}: scipy {first:.2f} s, paramz {second:.3f} s, ratio {second / first:.4f}")
        over = [ours / theirs for theirs, ours in zip(a, b, strict=True)]
        tell(f"law in N and D, {name}", "scipy", over)


if __name__ == "__main__":
    main()
