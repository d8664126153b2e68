import numpy as np
import pandas as pd
import pytest
from made_up import SHIPPED, made_up_sweep

from paramz.analysis.transfer import TOLERANCE, transfer


@pytest.fixture(scope="module")
def mup_mlp() -> pd.DataFrame:
    df = pd.read_csv(SHIPPED / "mup_mlp.csv", comment="#")
    return df.assign(lr=2.0 ** df["log2lr"])


def test_drift_is_recovered_and_its_interval_holds_it() -> None:
    truth = {"sp": -1.2, "mup": -0.05, "other": 0.3}
    drift = transfer(made_up_sweep(truth)).drift.set_index("group")
    for name, slope in truth.items():
        assert drift.loc[name, "slope"] == pytest.approx(slope, abs=0.06)
        assert drift.loc[name, "lo"] <= slope <= drift.loc[name, "hi"]


def test_verdicts_say_what_happens_at_the_largest_width() -> None:
    found = transfer(made_up_sweep({"sp": -1.2, "mup": -0.05}))
    assert found.verdicts["mup"].transfers is True
    assert found.verdicts["sp"].transfers is False
    assert "width 256 at the lr tuned at width 32 fails: loss" in found.verdicts["sp"].sentence
    assert found.verdicts["mup"].sentence.endswith("(0% of the gain): it transfers.")


def test_the_published_mlp_grid(mup_mlp: pd.DataFrame) -> None:
    """Numbers of microsoft/mup's notebook: see analysis/data/mup_mlp.csv."""
    found = transfer(mup_mlp, loss="train_loss", by="type")
    slope = found.drift.set_index("group")["slope"]
    assert slope["SP"] == pytest.approx(-0.69, abs=0.05)
    assert abs(slope["muP"]) < 0.25
    regret = found.regret.set_index(["group", "tuned_at", "evaluated_at"])
    assert regret.loc[("SP", 256, 8192), "status"] == "lost"
    assert regret.loc[("muP", 256, 8192), "regret"] == pytest.approx(0.0011, abs=1e-4)
    sp = found.verdicts["SP"]
    assert sp.transfers is False
    assert "fails: loss 2.3 against 0.0057 at its own best: it does not transfer." in sp.sentence
    assert sp.sentence.endswith("Optimum at the edge of the grid at width 8192.")
    assert found.verdicts["muP"].transfers is True
    flags = found.optima.set_index(["group", "scale"])["flag"]
    assert flags["SP", 8192] == "edge" and flags["muP", 2048] == "cliff"


def test_runs_that_diverge_are_counted_and_never_win() -> None:
    df = made_up_sweep({"sp": -1.2})
    found = transfer(df)
    assert found.optima["diverged"].sum() == (df["status"] == "diverged").sum() > 0
    nan_only = transfer(df.drop(columns="status"))
    pd.testing.assert_frame_equal(found.optima, nan_only.optima)


def test_failed_runs_are_left_out() -> None:
    df = made_up_sweep({"mup": 0.0})
    broken = df.iloc[:1].assign(status="failed", loss=np.nan, seed=99)
    pd.testing.assert_frame_equal(transfer(pd.concat([df, broken])).optima, transfer(df).optima)


def test_regret_onto_a_diverged_point_and_out_of_the_grid() -> None:
    df = made_up_sweep({"sp": -1.2})
    df.loc[(df["width"] == 256) & (df["lr"] == 2.0**-5), "loss"] = np.nan
    status = transfer(df).regret.set_index(["tuned_at", "evaluated_at"])["status"]
    assert status[32, 256] == "diverged"
    short = df[(df["width"] != 256) | (df["lr"] < 2.0**-6)]
    found = transfer(short)
    assert found.regret.set_index(["tuned_at", "evaluated_at"]).loc[(32, 256), "status"] == (
        "out of grid"
    )


def test_an_interval_across_the_tolerance_is_undecided() -> None:
    found = transfer(made_up_sweep({"x": TOLERANCE + 0.01}, noise=0.01))
    assert found.verdicts["x"].transfers is None
    assert "undecided, the interval reaches 0.25" in found.verdicts["x"].sentence


def test_speed_compares_the_fall_of_regret_with_that_of_the_gap() -> None:
    """Optimum error ~ width^-1, so regret ~ width^-2; gap ~ width^-1: fast."""
    rows = [
        {"width": w, "lr": 2.0**x, "loss": 2 + 9 / w + 0.001 * (x + 6.2 + 32 / w) ** 2}
        for w in (32, 64, 128, 256, 65536)
        for x in np.arange(-12.0, -2.0)
    ]
    speed = transfer(pd.DataFrame(rows)).speed.iloc[0]
    assert speed["regret_slope"] == pytest.approx(-2, abs=0.01)
    assert speed["gap_slope"] == pytest.approx(-1, abs=0.01)
    assert speed["fast"]


def test_a_width_where_everything_diverged_is_named_and_the_others_judged() -> None:
    df = made_up_sweep({"mup": 0.0})
    df.loc[df["width"] == 256, "loss"] = np.nan
    verdict = transfer(df).verdicts["mup"]
    assert verdict.transfers is False
    assert "from 32 to 128" in verdict.sentence
    assert verdict.sentence.endswith("Every run diverged at width 256.")
    df.loc[df["width"] > 32, "loss"] = np.nan
    with pytest.raises(
        ValueError, match="did not diverge at two values of 'width' or more, got 32"
    ):
        transfer(df)


def test_groups_are_compared_each_at_its_own_best() -> None:
    table = transfer(made_up_sweep({"sp": -1.2, "mup": 0.0})).comparison()
    assert list(table.columns) == ["sp", "mup"]
    assert (table["sp"] - table["mup"]).abs().max() < 0.02


def test_row_order_does_not_matter() -> None:
    df = made_up_sweep({"sp": -0.7})
    shuffled = df.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(transfer(df).drift, transfer(shuffled).drift)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop(columns="lr"), "no column 'lr'; the columns are: parametrization, width"),
        (lambda d: d.assign(lr=d["lr"] - d["lr"].min()), "column 'lr' must be finite and above"),
        (lambda d: d.assign(lr="fast"), "column 'lr' must hold numbers, but row 0 holds 'fast'"),
        (lambda d: d.assign(width=np.nan), "column 'width' must be finite and above zero"),
        (lambda d: d[d["width"] == 32], "at least two values of 'width'; the table has 32"),
        (lambda d: d[d["lr"] < 2.0**-9], "needs at least three grid points, got 2"),
        (lambda d: d.assign(seed=0), "share group, width, lr and seed with another run"),
        (lambda d: d.iloc[:0], "the table has no usable rows"),
    ],
)
def test_bad_tables_are_refused_with_the_reason(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((ValueError, KeyError)) as caught:
        transfer(change(made_up_sweep({"sp": -1.2})))
    assert message in str(caught.value)


def test_runs_that_differ_in_another_column_name_it() -> None:
    df = made_up_sweep({"mup": 0.0})
    both = pd.concat([df.assign(optimizer="adamw"), df.assign(optimizer="sgd")], ignore_index=True)
    with pytest.raises(ValueError, match="pass in by=, the columns that differ: 'optimizer'"):
        transfer(both)
    assert transfer(both, by=["parametrization", "optimizer"]).groups == [
        "mup · adamw",
        "mup · sgd",
    ]
