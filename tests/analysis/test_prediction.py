import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import store_runs
from typer.testing import CliRunner

from paramz.analysis.limits import rises
from paramz.analysis.prediction import Question, predict_each, predict_loss
from paramz.cli import app
from paramz.cli.fit import one_scale, parse_point


def width_sweep(scatter: float = 0.0005) -> pd.DataFrame:
    """muP on a power law; SP better nowhere, and diverged at the largest width."""
    rng = np.random.default_rng(0)
    rows = []
    for name in ("sp", "mup"):
        for width in (32, 48, 64, 96, 128, 192, 256, 384):
            for seed in (0, 1, 2):
                loss = (2.3 + 9 / width) * (1 + scatter * rng.standard_normal())
                bad = name == "sp" and width == 384
                rows.append(
                    {
                        "parametrization": name,
                        "width": width,
                        "lr": 0.01,
                        "seed": seed,
                        "loss": np.nan if bad else loss,
                        "status": "diverged" if bad else "ok",
                    }
                )
    return pd.DataFrame(rows)


def only_mup() -> pd.DataFrame:
    df = width_sweep()
    return df[df["parametrization"] == "mup"]


def test_a_larger_model_is_predicted_from_the_smaller_ones() -> None:
    (found,) = predict_loss(only_mup(), [1024, 2048])
    truth = 2.3 + 9 / np.array([1024, 2048])
    assert (abs(found.ahead["mean"] / truth - 1) < 0.005).all()
    assert (found.ahead["lo"] < found.ahead["mean"]).all()
    assert (found.ahead["mean"] < found.ahead["hi"]).all()
    assert list(found.trial.held_out["scale"]) == [256, 384]
    assert found.trial.holdout_error["error"].abs().max() < 0.005
    assert list(found.points["seeds"]) == [3] * 8


def test_scales_are_compared_at_the_value_tuned_on_the_smallest() -> None:
    df = pd.concat([only_mup().assign(lr=lr, loss=only_mup()["loss"] + abs(lr - 0.02)) for lr in
                    (0.01, 0.02, 0.04)])  # fmt: skip
    assert predict_loss(df)[0].hp == pytest.approx(0.02)
    assert predict_loss(df, value=0.04)[0].hp == pytest.approx(0.04)
    with pytest.raises(
        ValueError, match="mup at lr 0.03: not run; the values of lr are 0.01, 0.02"
    ):
        predict_loss(df, value=0.03)


def test_a_scale_that_diverged_ends_the_law() -> None:
    with pytest.raises(ValueError, match="sp at lr 0.01: diverged at width 384, so the losses lie"):
        predict_loss(width_sweep())


def test_too_few_scales_are_counted_with_the_ways_out() -> None:
    df = only_mup()
    few = df[df["width"] < 96]
    with pytest.raises(
        ValueError, match="'power' needs 4 values of width .* you have 3: run 1 more, or take"
    ):
        predict_loss(few, [1024])
    with pytest.raises(
        ValueError, match=r"needs 6 values .* you have 5: run 1 more, or hold out fewer"
    ):
        predict_loss(df[df["width"] < 192], [1024], hold=2)
    (found,) = predict_loss(df[df["width"] < 192], [1024], hold=1)
    assert len(found.trial.held_out) == 1
    (found,) = predict_loss(df[df["width"] < 128], [1024], hold=0)
    assert "predicted from the smaller ones: none" in found.sentences("width", "lr")[1]


def test_as_many_scales_are_held_out_as_their_number_allows() -> None:
    df = only_mup()
    held = []
    for most in (128, 192, 256):
        (found,) = predict_loss(df[df["width"] < most], [1024])
        held.append(len(found.trial.held_out))
        careful = [text for text in found.warnings if "to hold out as a test; run" in text]
        assert len(careful) == (held[-1] < 2)
    assert held == [0, 1, 2]


def test_a_loss_that_turns_and_rises_late_says_so() -> None:
    """A bowl bends everywhere, which was taken for noise: tuned at 32, too high a rate at 2048."""
    widths = 32 * 2 ** np.arange(7)
    turns = 2 + 3 / widths**0.5 + 0.02 * (0.7 * np.log2(widths / 32)) ** 2
    found = predict_loss(pd.DataFrame({"width": widths, "lr": 0.01, "loss": turns}), 4096)[0]
    assert any("the loss rises with width beyond 256" in text for text in found.warnings)


def test_a_plateau_under_noise_does_not_rise() -> None:
    widths, rng = 32 * 2 ** np.arange(7), np.random.default_rng(0)
    level = 2 + 30 / widths**1.5
    told = [rises(widths, level + 0.005 * rng.standard_normal(7), "width") for _ in range(400)]
    assert sum(text is not None for text in told) <= 8


def test_the_best_of_the_smallest_at_the_end_of_its_grid_is_told_of() -> None:
    lrs = (0.01, 0.02, 0.04)
    df = pd.concat([only_mup().assign(lr=lr, loss=only_mup()["loss"] - lr) for lr in lrs])
    told = "mup at lr 0.04 is the best at width 32 and the largest that was run there"
    assert any(text.startswith(told) for text in predict_loss(df)[0].warnings)
    assert not any(
        "that was run there" in text for text in predict_loss(df, value=0.04)[0].warnings
    )


def test_seeds_may_be_in_another_column_and_far_scales_are_called_by_their_name() -> None:
    (found,) = predict_loss(only_mup().rename(columns={"seed": "trial"}), 8192, seed="trial")
    assert list(found.points["seeds"]) == [3] * 8
    assert any(text.startswith("width lies up to 21.3 times outside") for text in found.warnings)


@pytest.mark.parametrize("shape", ["rising", "a bowl"])
def test_a_loss_that_rises_with_width_says_so(shape: str) -> None:
    widths = np.array([32, 48, 64, 96, 128, 192, 256, 384])
    rise = np.log2(widths / 32) if shape == "rising" else (np.log2(widths / 64)) ** 2
    df = pd.DataFrame({"width": widths, "lr": 0.01, "loss": 2.2 + 0.05 * rise})
    found = predict_loss(df, [1024])[0]
    assert "rises with width" in " ".join(found.warnings)
    told = " ".join(found.sentences("width", "lr"))
    assert "idth 1024: no prediction, for the fitted loss rises with width" in told


def test_a_loss_that_does_not_fall_says_so() -> None:
    df = only_mup()
    df["loss"] = 2.5 + 0.01 * np.random.default_rng(0).standard_normal(len(df))
    told = predict_loss(df)[0].warnings
    assert any("the loss does not clearly fall with width" in text for text in told)


def test_the_command_predicts_and_says_what_it_left_out(tmp_path: Path) -> None:
    store_runs(width_sweep(), tmp_path / "x")
    run = CliRunner()
    plain = run.invoke(app, ["fit", str(tmp_path / "x"), "--predict", "width=1024"])
    assert plain.exit_code == 0, plain.stderr
    law = re.search(
        r"mup: loss = E \+ A / width\^alpha with E = (\S+), A = (\S+), alpha = (\S+), at lr 0.01, "
        r"8 values of width from 32 to 384",
        plain.stdout,
    )
    assert law is not None
    floor, factor, power = map(float, law.groups())
    ahead = re.search(r"mup: width 1024: loss (\S+)", plain.stdout)
    assert ahead is not None
    assert floor + factor / 1024**power == pytest.approx(float(ahead[1]), rel=2e-3)
    assert float(ahead[1]) == pytest.approx(2.35, abs=0.05)
    assert "not fitted: sp at lr 0.01: diverged at width 384" in plain.stdout
    both = ["fit", str(tmp_path / "x"), "--predict", "width=1024", "--json"]
    document = json.loads(run.invoke(app, both).stdout)
    assert document["fits"][0]["predicted"][0]["scale"] == 1024
    assert [h["scale"] for h in document["fits"][0]["held_out"]] == [256, 384]
    assert document["refused"][0].startswith("sp at lr 0.01: diverged")
    wrong = run.invoke(app, ["fit", str(tmp_path / "x"), "--predict", "4096"])
    assert wrong.exit_code == 2
    assert "error: --predict wants name=number, as in width=4096; got '4096'" in wrong.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["width"], "wants name=number"),
        (["=4"], "wants a name and a size above zero"),
        (["width=-4"], "wants a name and a size above zero"),
        (["width=4", "depth=2"], "takes one scale, got depth, width"),
    ],
)
def test_malformed_predictions(given: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_scale([parse_point(text) for text in given])


def test_groups_whose_setting_is_missing_are_predicted_too() -> None:
    """As those are for which no case of a spec applies."""
    widths = np.array([32, 64, 128, 256, 512, 1024, 2048])
    one = pd.DataFrame({"width": widths, "lr": 0.01, "loss": 2 + 3 / widths**0.5})
    df = pd.concat([one.assign(decay="linear"), one.assign(decay=None)])
    found, refused = predict_each(df, ["decay"], Question("width", (4096.0,)))
    assert len(found) == 2 and not refused


def test_a_scale_may_be_a_number_of_numpy() -> None:
    widths = np.array([32, 64, 128, 256, 512, 1024, 2048])
    df = pd.DataFrame({"width": widths, "lr": 0.01, "loss": 2 + 3 / widths**0.5})
    (found,) = predict_loss(df, 2 * df["width"].max())
    assert found.ahead["scale"].tolist() == [4096.0]


def test_values_that_differ_by_rounding_are_one() -> None:
    df = pd.concat([only_mup().assign(lr=lr, loss=only_mup()["loss"] + abs(lr - 0.02)) for lr in
                    (0.01, 0.02, 0.04)])  # fmt: skip
    df["lr"] = df["lr"].where(df["width"] < 256, df["lr"] * 1.0001)
    (found,) = predict_loss(df)
    assert len(found.points) == 8 and not any("left out" in text for text in found.warnings)
    assert predict_loss(df, value=0.0201)[0].hp == pytest.approx(0.02)


def test_scales_without_a_run_at_the_value_are_named() -> None:
    df = pd.concat([only_mup(), only_mup().assign(lr=0.02, loss=only_mup()["loss"] + 0.1)])
    few = df[(df["lr"] == 0.02) | ~df["width"].isin([96, 256])]
    (found,) = predict_loss(few)
    assert "width 96, 256 was not run at mup at lr 0.01, and is left out" in found.warnings
    with pytest.raises(
        ValueError, match="you have 3.*; width 96, .* was not run at mup at lr 0.01"
    ):
        predict_loss(df[(df["lr"] == 0.02) | (df["width"] < 96)])


def test_a_seed_that_ran_at_some_scales_does_not_bend_the_law() -> None:
    df = only_mup()
    df["loss"] += np.where(df["seed"] == 2, 0.1, 0.0)
    full = predict_loss(df, 2048)[0].ahead.iloc[0]
    part = predict_loss(df[(df["seed"] < 2) | (df["width"] < 100)], 2048)[0].ahead.iloc[0]
    assert part["mean"] == pytest.approx(full["mean"], abs=0.003)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"at": 0}, "at=0: a width or lr is above zero"),
        ({"value": -1.0}, "value=-1: a width or lr is above zero"),
        ({"hold": -1}, "hold=-1: it is how many of the largest scales"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(asked: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        predict_loss(only_mup(), **asked)


def test_a_smallest_scale_that_diverged_is_named() -> None:
    df = only_mup()
    with pytest.raises(
        ValueError, match="mup: a run diverged at every lr of width 32, the smallest"
    ):
        predict_loss(df.assign(loss=df["loss"].mask(df["width"] == 32)))


def test_a_scale_of_another_name_is_asked_for_by_an_option_that_the_verb_has(
    tmp_path: Path,
) -> None:
    df = width_sweep().query("parametrization == 'mup'").drop(columns="parametrization")
    df.rename(columns={"width": "hidden_size"}).to_csv(tmp_path / "runs.csv", index=False)
    run = CliRunner()
    plain = run.invoke(app, ["fit", str(tmp_path / "runs.csv")])
    assert plain.exit_code == 2 and "as in --predict hidden_size=512" in plain.stderr
    for option in ("--predict", "hidden_size=512"), ("--map", "hidden_size=width"):
        assert option[0] in plain.stderr
        found = run.invoke(app, ["fit", str(tmp_path / "runs.csv"), *option])
        assert found.exit_code == 0, found.stderr
