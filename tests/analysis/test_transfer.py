import re
import warnings

import numpy as np
import pandas as pd
import pytest
from made_up import SHIPPED, made_up_sweep

from paramz.analysis.decide import TOLERANCE
from paramz.analysis.transfer import transfer


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
    assert found.verdicts["mup"].sentence.endswith(
        "0% of the gain): it transfers (tolerance 0.1 octave per doubling)."
    )


def test_the_published_mlp_grid(mup_mlp: pd.DataFrame) -> None:
    """Numbers of microsoft/mup's notebook: see analysis/data/mup_mlp.csv."""
    found = transfer(mup_mlp, loss="train_loss", by="type")
    slope = found.drift.set_index("group")["slope"]
    assert slope["SP"] == pytest.approx(-0.69, abs=0.05)
    assert abs(slope["muP"]) < 0.3
    regret = found.regret.set_index(["group", "tuned_at", "evaluated_at"])
    assert regret.loc[("SP", 256, 8192), "status"] == "lost"
    assert regret.loc[("muP", 256, 8192), "regret"] < 0.002
    sp = found.verdicts["SP"]
    assert sp.transfers is False
    assert re.search(r"fails: loss 2.3 against 0.005\d+ at its own best: it does not", sp.sentence)
    assert re.search(r"Optimum at the edge of the grid at width [\d, ]*8192\.", sp.sentence)
    assert "One seed: how far the optimum moves between seeds was not seen." in sp.sentence
    # Its optimum climbs by an octave from 512 to 2048 and lies at the foot of a cliff from there.
    assert found.verdicts["muP"].transfers is None
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
    verdict = transfer(made_up_sweep({"x": TOLERANCE + 0.01}, noise=0.02)).verdicts["x"]
    assert verdict.transfers is None
    assert "undecided (tolerance 0.1 octave per doubling); to decide it, add " in verdict.sentence
    assert re.fullmatch(r"add \d+ seeds at every width \(\d+ in all\)", verdict.to_decide[0])
    assert re.fullmatch(r"add width 512[\d, ]* with as many runs", verdict.to_decide[1])


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
    assert "Every run diverged at width 256." in verdict.sentence
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
        (lambda d: d[d["lr"] < 2.0**-9], "each at three values of 'lr' or more; width 32 has 2,"),
        (lambda d: d.assign(seed=0), "share group, width, lr and seed with another run"),
        (lambda d: d.assign(seed=0), "no column differs: are rows repeated, or is it seeds, which"),
        (lambda d: pd.concat([d, d[5:6]], ignore_index=True), "example rows 5 and "),
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


def test_the_answer_says_which_value_for_which_width_and_where_it_was_tuned() -> None:
    df = made_up_sweep({"sp": -1.2, "mup": 0.0}).assign(steps=300, batch_size=32)
    verdicts = transfer(df).verdicts
    answer = verdicts["mup"].answer
    assert answer is not None
    # The bowls have a wall: the value is off by a tenth of an octave, and the interval holds it.
    assert answer.lo < 2**-5.1 < answer.hi and abs(np.log2(answer.value) + 5.1) < 0.15
    assert (answer.use_at, answer.tuned_at, answer.and_above) == (256, (32, 64, 128, 256), True)
    assert (answer.steps, answer.batch) == (300, 32)
    assert re.fullmatch(
        r"Use lr = 0\.0\d+ \(0\.0\d+ to 0\.0\d+\) at width 256 and above, tuned at width 32 to 256 "
        r"with 300 steps of batch 32\.",
        answer.sentence,
    )
    assert str(verdicts["mup"]).endswith(answer.sentence)
    sp = verdicts["sp"].answer
    assert sp is not None and (sp.tuned_at, sp.and_above) == ((256,), False)
    assert abs(np.log2(sp.value) + 5.1 + 1.2 * 3) < 0.15


def test_steps_that_differ_are_not_named() -> None:
    df = made_up_sweep({"mup": 0.0})
    df["steps"] = df["width"]
    answer = transfer(df).verdicts["mup"].answer
    assert answer is not None and answer.steps is None and "steps" not in answer.sentence


def test_optima_beyond_the_grid_leave_the_verdict_open_and_say_how_far_to_go() -> None:
    df = made_up_sweep({"sp": -1.0})
    cut = df[np.log2(df["lr"]) <= -9.0].assign(lr=lambda d: d["lr"] / 4)
    verdict = transfer(cut).verdicts["sp"]
    assert verdict.transfers is None
    assert "best lr moves by an amount that the grid does not show" in verdict.sentence
    assert verdict.to_decide == (
        "extend the grid at width 32, 64, 128, 256 up to lr = 0.002 at least",
    )
    assert "or more: the grid ends before the loss rises" in str(verdict.answer and verdict)


@pytest.mark.parametrize(("drift", "said"), [(0.0, {True, None}), (-1.0, {False, None})])
def test_one_grid_that_ends_early_does_not_turn_the_verdict(drift: float, said: set) -> None:  # type: ignore[type-arg]
    df = made_up_sweep({"x": drift})
    early = (df["width"] == 32) & (np.log2(df["lr"]) > -7)
    found = transfer(df[~early])
    assert found.verdicts["x"].transfers in said
    row = found.drift.iloc[0]
    assert row["lo"] <= drift <= row["hi"] and row["edges"] == 1


def test_optima_beyond_opposite_ends_bound_the_drift() -> None:
    """The first lies above its grid and the last below its own: the drift is surely negative."""
    df = made_up_sweep({"x": -1.0})
    x = np.log2(df["lr"])
    keep = ((df["width"] == 32) & (x < -6)) | ((df["width"] == 256) & (x > -7))
    found = transfer(df[keep])
    assert np.isnan(found.drift["slope"].item()) and found.drift["lo"].item() == -np.inf
    assert "best lr moves by " in str(found.verdicts["x"]) and "or less" in str(found.verdicts["x"])


def test_values_that_differ_by_rounding_are_one_and_noted() -> None:
    df = made_up_sweep({"mup": 0.0})
    odd = df["seed"] == 1
    rounded = df.assign(lr=df["lr"].where(~odd, df["lr"].map(lambda v: float(f"{v:.3g}"))))
    found = transfer(rounded)
    assert found.curves.groupby("scale").size().eq(9).all()
    assert len(found.notes) == 7 and "are taken for one value of lr" in found.notes[0]
    single = df.assign(
        lr=df["lr"].where(~odd, df["lr"].astype(np.float32).astype(float) * (1 + 1e-7))
    )
    assert transfer(single).curves.groupby("scale").size().eq(9).all()
    assert transfer(df).notes == []


def test_seeds_that_training_did_not_take_are_one() -> None:
    """The same losses three times over tell no more than once, and it is said why."""
    one = made_up_sweep({"mup": 0.0}).query("seed == 0")
    thrice = pd.concat([one, one.assign(seed=1), one.assign(seed=2)], ignore_index=True)
    found, alone = transfer(thrice), transfer(one)
    assert found.verdicts["mup"].sentence == alone.verdicts["mup"].sentence
    assert "One seed" in found.verdicts["mup"].sentence
    assert found.notes == [
        "mup: seeds 1, 2 have the very losses of another seed: the training did not take the seed, "
        "and such runs count once"
    ]


def test_values_that_one_seed_ran_both_are_two() -> None:
    df = made_up_sweep({"mup": 0.0})
    twice = pd.concat([df, df[df["lr"] == 2.0**-5].assign(lr=2.0**-5 * 1.002)])
    assert transfer(twice).curves.groupby("scale").size().eq(10).all()


def test_a_group_with_too_little_data_is_listed_and_the_others_are_judged() -> None:
    df = made_up_sweep({"mup": 0.0, "sp": -1.0})
    found = transfer(df[(df["parametrization"] == "mup") | (df["width"] == 32)])
    assert found.groups == ["mup"] and found.verdicts["mup"].transfers is True
    assert found.verdicts["sp"].transfers is None
    assert found.verdicts["sp"].sentence.startswith("sp: not judged: transfer needs runs")
    assert "got 32" in found.not_judged["sp"]


def test_a_width_with_two_values_is_left_out_and_named() -> None:
    df = made_up_sweep({"mup": 0.0})
    few = (df["width"] == 256) & (df["lr"] > 2.0**-10)
    sentence = transfer(df[~few]).verdicts["mup"].sentence
    assert "Left out, with fewer than three values of lr: width 256." in sentence


def test_missing_seeds_do_not_move_the_optimum() -> None:
    """Seed 1 is worse by more than the bowl rises in a step, and lacks half of its runs."""
    df = made_up_sweep({"mup": 0.0}, noise=0.001)
    df.loc[df["seed"] == 1, "loss"] += 0.05
    gone = (df["seed"] == 1) & (np.log2(df["lr"]) > -6)
    whole, part = (transfer(t).optima["log2_opt"] for t in (df, df[~gone]))
    assert (whole - part).abs().max() < 0.15


def test_the_interval_of_a_regret_holds_what_was_found() -> None:
    """Without noise the same optimum twice: nothing is lost, and draws of it lose a little."""
    rows = [
        {"width": w, "lr": 2.0**x, "loss": 0.1 * w * (x + 6) ** 2, "seed": s}
        for w in (32, 64, 128)
        for x in range(-10, -2)
        for s in (0, 1)
    ]
    regret = transfer(pd.DataFrame(rows)).regret
    assert (regret["lo"] <= regret["regret"]).all() and (regret["regret"] <= regret["hi"]).all()


def test_regret_is_read_between_grid_points_and_has_an_interval() -> None:
    regret = transfer(made_up_sweep({"x": -0.4}, noise=0.0005)).regret
    row = regret.query("tuned_at == 32 and evaluated_at == 256").iloc[0]
    assert row["regret"] == pytest.approx(0.02 * 1.2**2, rel=0.2)
    assert 0 < row["lo"] < row["regret"] < row["hi"]
    same = regret.query("tuned_at == evaluated_at")["regret"]
    assert (same == 0).all()


def test_sensitivity_is_the_mean_loss_above_the_best() -> None:
    """A bowl h u^2 over u from -2 to 2 costs h 4/3 on average."""
    rows = [
        {"width": w, "lr": 2.0**x, "loss": 2 + h * (x + 6) ** 2}
        for w, h in ((64, 0.01), (128, 0.03))
        for x in np.arange(-8, -3.99, 0.125)
    ]
    found = transfer(pd.DataFrame(rows)).sensitivity
    expected = np.array([0.01, 0.03]) * 4 / 3
    capped = np.minimum(0.03 * np.linspace(-2, 2, 9999) ** 2, 0.12).mean()
    assert found["sensitivity"].iloc[0] == pytest.approx(expected[0], rel=0.02)
    assert found["sensitivity"].iloc[1] == pytest.approx(capped, rel=0.02)
    assert found["cap"].eq(2.12).all()


def test_the_power_law_of_the_optima_has_error_floor_and_robustness() -> None:
    rows = [
        {"parametrization": p, "width": w, "lr": 2.0**x,
         "loss": floor + 5 / w + 0.01 * (w / 64) ** k * (x + 6 + 0.3 * np.log2(w / 64)) ** 2}
        for p, floor, k in (("a", 2.0, 0.5), ("b", 2.1, 0.0))
        for w in (64, 128, 256, 512, 1024)
        for x in np.arange(-11.0, -2)
    ]  # fmt: skip
    found = transfer(pd.DataFrame(rows)).quality.set_index("group")
    assert found["error"].max() < 0.01 and found["scatter"].max() < 0.01
    assert found.loc["a", "robustness"] == pytest.approx(0.5, abs=0.05)
    assert found["asymptotic_regret"].tolist() == pytest.approx([0, 0.1], abs=0.01)


def test_a_tolerance_of_ones_own_is_used_and_said() -> None:
    verdict = transfer(made_up_sweep({"x": 0.2}), tolerance=0.5).verdicts["x"]
    assert verdict.transfers is True
    assert "it transfers (tolerance 0.5 octave per doubling)" in verdict.sentence
    assert transfer(made_up_sweep({"x": 0.3})).verdicts["x"].transfers is False


def test_a_score_given_as_the_loss_is_told_from_one() -> None:
    df = made_up_sweep({"sp": -0.5, "mup": 0.0})
    # Accuracy falls to chance at both ends, as that of runs does which hardly train or break.
    score = 0.1 + 0.8 * np.exp(-0.3 * (np.log2(df["lr"]) + 6.5) ** 2) - 1 / df["width"]
    accuracy = df.assign(accuracy=score, status="ok")
    with pytest.warns(UserWarning, match=r"accuracy has a maximum .* in 8 of 8 .* 1 - accuracy"):
        found = transfer(accuracy, loss="accuracy", draws=20)
    assert "higher is better" in found.notes[-1]
    for grid in (df, df[df["lr"] > 2**-6], df[df["lr"] < 2**-6]):  # losses, at either edge, too
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            transfer(grid, draws=20)


def test_names_of_groups_keep_whole_numbers_and_columns_of_one_name_are_refused() -> None:
    sweep = made_up_sweep({"mup": 0.0}, seeds=1)
    df = pd.concat([sweep.assign(depth=2**60 + i, tau=0.5) for i in (1, 3)])
    found = transfer(df, by=["depth", "tau"], draws=50)
    assert found.groups == [f"{2**60 + i} · 0.5" for i in (1, 3)]
    one = transfer(df.drop(columns="tau"), by="depth", draws=50)
    assert [int(name) for name in one.optima["group"].unique()] == [2**60 + 1, 2**60 + 3]
    with pytest.raises(ValueError, match="2 columns are called 'loss'"):
        transfer(pd.concat([df, df[["loss"]]], axis=1))


def test_nan_as_a_text_is_a_run_that_diverged() -> None:
    df = made_up_sweep({"mup": 0.0}, seeds=1)
    before = transfer(df, draws=50).optima["diverged"].sum()
    df["loss"] = df["loss"].astype(object)
    df.loc[df.index[0], "loss"] = "NaN"
    assert transfer(df, draws=50).optima["diverged"].sum() == before + 1


def test_runs_that_halving_stopped_are_told_of() -> None:
    df = made_up_sweep({"mup": 0.0}, seeds=1)
    assert not transfer(df, draws=50).notes
    far = (np.log2(df["lr"]) + 5).abs() > 3
    df.loc[far, ["status", "loss"]] = ["stopped", np.nan]
    (note,) = transfer(df, draws=50).notes
    assert note.startswith(f"{far.sum()} of {len(df)} runs were stopped by successive halving")


def test_an_optimum_at_the_edge_is_told_from_one_that_may_lie_beyond_it() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"width": width, "lr": 2.0**x, "seed": seed,
         "loss": 2 + 0.02 * (x - best) ** 2 + 0.004 * rng.standard_normal()}
        for width, best in ((64, -6.5), (128, -4.3), (256, -2.0))
        for x in range(-9, -3)
        for seed in range(2)
    ]  # fmt: skip
    found = transfer(pd.DataFrame(rows))
    assert found.optima["flag"].tolist() == ["", "edge", "edge"]
    inside, beyond = found.optima["log2_opt"][1:]
    assert inside < -4 and beyond == -4
    sentence = found.verdicts["all"].sentence
    assert "Optimum at the edge of the grid at width 256." in sentence
    assert "The grid ends before the loss clearly rises at width 128, so that" in sentence


def test_depth_that_grows_along_with_width_is_told_of() -> None:
    df = made_up_sweep({"mup": 0.0})
    deep = df.assign(n_layer=np.where(df["width"] > 64, 4, 2))
    told = "Runs differ in n_layer (2 to 4), with which the best lr may move."
    assert told in transfer(deep).verdicts["mup"].sentence
    assert told not in transfer(deep.assign(n_layer=2)).verdicts["mup"].sentence
    # Of parameters width and depth are parts.
    sizes = deep.assign(params=deep["width"] ** 2)
    assert told not in transfer(sizes, scale="params").verdicts["mup"].sentence
