"""What a notebook shows of a result by itself is a line or two, not its tables."""

import numpy as np
import pandas as pd

import paramz.analysis as pa
from paramz.analysis.coordinates import Verdict


def rows() -> pd.DataFrame:
    """A sweep over two widths, and three seeds."""
    made = [
        (width, 2.0**x, seed, 2 + 9 / width + 0.1 * (x + 6.2) ** 2 + 0.001 * seed)
        for width in (64, 128)
        for x in range(-9, -3)
        for seed in range(3)
    ]
    return pd.DataFrame(made, columns=["width", "lr", "seed", "loss"])


def test_a_transfer_prints_its_verdicts() -> None:
    found = pa.transfer(rows())
    assert repr(found).startswith("<Transfer of lr over width\n  Best lr moves +0.00")
    assert len(repr(found).splitlines()) == 2


def test_a_law_prints_its_formula_and_parameters() -> None:
    n = np.array([1e6, 2e6, 4e6, 8e6, 16e6, 32e6])
    fit = pa.ScalingLaw("power").fit(pd.DataFrame({"N": n, "loss": 1.8 + 30 * n**-0.35}), x="N")
    assert repr(fit) == (
        "<LawFit loss = E + A / x^alpha, 6 rows: E = 1.8, A = 30, alpha = 0.35; "
        "print(fit.summary())>"
    )
    assert repr(fit.bootstrap(50)) == "<Draws: 50 parametric bootstraps>"


def test_a_verdict_of_a_coordinate_check_prints_its_sentence() -> None:
    found = Verdict("mup", "adamw", 0.004, "pass", 0.1, None, "all is flat", ())
    assert str(found) == "PASS: all is flat"
    assert repr(found) == "<Verdict PASS: all is flat>"
