"""Whether curves are one, at noise of the kind that training runs have.

It is correlated in time, shared by the whole of a run, and dies out as the learning rate does.
"""

import numpy as np
import pandas as pd
import pytest

from paramz.analysis.collapse import collapse

X = np.linspace(0.02, 1, 80)


def curves(off: bool, amplitude: float, shared: float, seeds: int, seed: int) -> pd.DataFrame:
    """Five widths over a floor of 2.5; with ``off`` the widest falls along another power."""
    rng, rows = np.random.default_rng(seed), []
    for i, width in enumerate((64, 128, 256, 512, 1024)):
        power = 0.55 if off and width == 1024 else 0.4
        for s in range(seeds):
            noise = np.zeros(len(X))
            for t in range(1, len(X)):
                noise[t] = 0.6 * noise[t - 1] + 0.8 * rng.standard_normal()
            size = amplitude * np.sqrt(np.maximum(1 - X, 0.02)) * noise
            above = 0.6 * 2 ** (-0.4 * i) * X**-power
            loss = 2.5 + above * np.exp(size + shared * rng.standard_normal())
            rows.append(pd.DataFrame({"width": width, "seed": s, "step": X * 1e3, "loss": loss}))
    return pd.concat(rows)


@pytest.mark.parametrize(("amplitude", "shared"), [(0.003, 0.01), (0.01, 0.005), (0.03, 0.02)])
def test_a_collapse_is_found_and_one_width_off_is_denied(amplitude: float, shared: float) -> None:
    true = [collapse(curves(False, amplitude, shared, 4, s)) for s in range(6)]
    off = [collapse(curves(True, amplitude, shared, 4, s)) for s in range(6)]
    assert [f.outcome for f in off] == ["fail"] * 6
    assert sum(f.outcome == "pass" for f in true) >= 5
    assert all(f.outcome != "fail" for f in true)
    assert all(abs(f.floor - 2.5) < 0.15 for f in true)


def test_what_a_seed_changes_in_a_whole_run_counts_as_noise() -> None:
    """Dividing by the end takes it off, so divided curves alone would call it no noise."""
    found = collapse(curves(False, 0.001, 0.02, 4, 0), floor=2.5)
    assert found.noise > 0.01 > 5 * found.within
    assert found.outcome == "pass" and "supercollapse" in found.sentence


def test_a_given_floor_is_taken_and_the_sentence_says_by_how_much_curves_part() -> None:
    found = collapse(curves(True, 0.01, 0.005, 3, 0), floor=2.5)
    assert found.floor == 2.5 and not found.at_bound
    assert "above E = 2.5" in found.sentence and "not one curve" in found.sentence


def test_runs_that_nothing_tells_apart_are_refused() -> None:
    """Two learning rates of one seed would have been taken for one curve."""
    both = pd.concat([curves(False, 0.01, 0.01, 2, s).assign(lr=s) for s in (0, 1)])
    with pytest.raises(ValueError, match="rows share width, seed, step with another"):
        collapse(both)
    assert collapse(both[both["lr"] == 0]).spread < 0.1
    one = curves(False, 0.01, 0.01, 2, 0)
    resumed = pd.concat([one[one["step"] < 600].assign(loss=9.0), one])
    with pytest.raises(ValueError, match="resumed the later row counts") as told:
        collapse(resumed)
    way_out = str(told.value).rpartition(": df.")[2]
    assert collapse(eval(f"resumed.{way_out}")).spread == collapse(one).spread
