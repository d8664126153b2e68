import json
import sys

import pytest

from paramz.sweeps import run
from paramz.sweeps.running.halving import Race, Stopped, group


def test_trials_that_fall_behind_are_stopped_and_the_best_of_each_width_is_not(sweep, tmp_path):
    """Width 100 is worse than any of width 0, and must not be measured against it."""
    axes = {"width": [0, 100], "lr": {"log2": [-9, -1]}}
    halving = {"over": "lr", "min_steps": 3, "reduction": 3}
    table = run(sweep("curve", axes=axes, halving=halving), tmp_path / "run", workers=1)
    assert set(table["status"]) == {"ok", "stopped"} and len(table) == 18
    best = table[table["lr"] == 2**-5]
    assert best["status"].tolist() == ["ok", "ok"]
    stopped = table[table["status"] == "stopped"]
    assert stopped["loss"].isna().all()
    assert set(stopped["lr"]) >= {2**-3, 2**-2, 2**-1}  # with one worker they come last
    assert stopped["error"].str.match("behind its competitors at step (3|9|27|81) with").all()
    steps = sum(len(path.read_text().splitlines()) for path in tmp_path.rglob("history.jsonl"))
    assert steps < 0.7 * 18 * 81


def test_an_interrupted_trial_goes_on_with_its_own_record(tmp_path):
    config = {"lr": 0.5, "width": 64}
    rule = {"over": "lr", "min_steps": 2, "reduction": 3}
    Race(tmp_path, "key", config, **rule).report(1, 5.0)
    again = Race(tmp_path, "key", config, **rule)
    again.report(2, 4.0)
    again.finish("ok", 4.0)
    (trial,) = again._study.get_trials()
    assert trial.intermediate_values == {1: 5.0, 2: 4.0} and trial.value == 4.0


@pytest.mark.parametrize("before", ["failed", "ok", "stopped"])
def test_a_trial_that_runs_again_does_not_compete_with_itself(tmp_path, before):
    """A loss that is off in the last digit, as on GPUs, ended the best trial."""
    rule = {"over": "lr", "min_steps": 2, "reduction": 3}
    first = Race(tmp_path, "best", {"lr": 0.5}, **rule)
    first.report(2, 1.0)
    first.finish(before, 1.0)
    Race(tmp_path, "best", {"lr": 0.5}, **rule).report(2, 1.0 + 1e-6)
    with pytest.raises(Stopped, match="behind its competitors at step 2"):
        Race(tmp_path, "other", {"lr": 1.0}, **rule).report(2, 1.1)


def test_a_trial_does_not_compete_with_those_of_other_code(tmp_path):
    """The code of before had lower losses, such as of an easier task."""
    rule = {"over": "lr", "min_steps": 2, "reduction": 3}
    Race(tmp_path, "a", {"lr": 0.5}, **rule, code="before").report(2, 1.0)
    Race(tmp_path, "b", {"lr": 1.0}, **rule, code="now").report(2, 3.0)
    with pytest.raises(Stopped):
        Race(tmp_path, "c", {"lr": 2.0}, **rule, code="now").report(2, 4.0)


def test_groups_differ_in_everything_but_the_axis_and_the_seed():
    base = {"width": 64, "lr": 0.5, "seed": 0}
    assert group(base, "lr") == group(base | {"lr": 1, "seed": 3}, "lr")
    assert group(base, "lr") != group(base | {"width": 128}, "lr")


def test_without_optuna_the_trial_fails_with_the_cure(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'torch-paramz\[sweeps\]'"):
        Race(tmp_path, "key", json.loads("{}"), "lr", 2, 3)
