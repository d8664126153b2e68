"""A coordinate check through the sweep machinery: the same table, the same verdict."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from paramz.check.run import coord_check
from paramz.check.sweep import batch_concerns, check_sweep, gather
from paramz.cli import app
from paramz.sweeps import Store, run

ROOT = Path(__file__).parents[2]
MLP = "lab/train_mlp.py:task"  # in the project of the fixture, where every test begins
PROFILE = str(ROOT / "slurm" / "cpu.yaml")
ASKED = {"widths": [32, 64, 128, 256], "seeds": 2, "steps": 1}


def check(*arguments):
    small = ["--widths", "32,64,128,256", "--seeds", "2", "--steps", "1"]
    result = CliRunner().invoke(app, ["check", MLP, *small, "--profile", PROFILE, *arguments])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run folder whose check was measured, by a local pool in place of the cluster's."""
    project = tmp_path_factory.mktemp("project")
    (project / "lab").mkdir()
    for name in ("train_mlp.py", "train_loop.py"):
        shutil.copy(ROOT / "sweeps" / name, project / "lab" / name)
    out = project / "runs" / "check"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        table = run(check_sweep(MLP, minutes=5, **ASKED), out / "coord" / "mup-adamw", workers=2)
    assert (table["status"] == "ok").all() and len(table) == 8
    return out


@pytest.fixture(autouse=True)
def _begin_in_the_project(measured, monkeypatch):
    monkeypatch.chdir(measured.parents[1])


def test_the_gathered_table_is_that_of_a_local_check(measured):
    found = gather(check_sweep(MLP, minutes=5, **ASKED), Store(measured / "coord" / "mup-adamw"))
    pd.testing.assert_frame_equal(found, coord_check(MLP, workers=2, **ASKED), check_exact=True)


def test_the_loss_is_that_of_the_training(measured):
    losses = [record["metrics"]["loss"] for record in _records(measured)]
    assert all(0 < loss < 5 for loss in losses) and len(set(losses)) == len(losses)


def test_the_verb_judges_what_was_measured_and_needs_no_slurm(measured, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    code, output = check("--out", str(measured))
    assert code == 0 and "PASS: mup with adamw" in output
    assert json.loads((measured / "coord" / "mup-adamw.json").read_text())["passed"] is True
    assert len(pd.read_csv(measured / "coord" / "mup-adamw.csv")) > 50


def test_a_moved_project_keeps_what_was_measured_and_tells_of_changed_code(
    measured, tmp_path, monkeypatch
):
    """It is copied in place of moved, for the other tests."""
    moved = shutil.copytree(measured.parents[1], tmp_path / "elsewhere")
    monkeypatch.chdir(moved)
    monkeypatch.setenv("PATH", "/nonexistent")
    code, output = check()
    assert code == 0 and "PASS: mup with adamw" in output and "other code" not in output
    with open(moved / "lab" / "train_loop.py", "a") as file:
        file.write("\nX = 1\n")
    code, output = check()
    assert code == 0 and "warning: 8 results are of other code than lab/train_mlp.py:task" in output
    assert "(both of paramz retry runs/check/coord/mup-adamw)" in output.replace("\n", "")


def test_what_was_not_measured_is_to_be_submitted(measured, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    code, output = check("--out", str(measured), "-p", "sp")
    assert code == 2 and "no command squeue: is this a machine of the cluster?" in output


def test_a_batch_that_is_too_small_is_named_before_anything_is_submitted(measured, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    _, output = check("--out", str(measured), "-p", "sp", "--set", "batch_size=4")
    assert "warning: the loss is a mean over 4 targets only" in output.replace("\n", " ")


def test_a_batch_that_cannot_be_made_here_does_not_stop_the_submission(tmp_path, monkeypatch):
    place = tmp_path / "far.py"
    place.write_text(
        "import paramz, torch\n"
        "print('loud')\n"
        "def task(config):\n"
        "    return paramz.Task(lambda width: torch.nn.Linear(4, width), lambda step: open('no'))\n"
    )
    (said,) = batch_concerns(check_sweep(f"{place}:task", minutes=5, widths=[8, 16]))
    assert "not known here: it cannot be made (FileNotFoundError" in said
    monkeypatch.setenv("PATH", "/nonexistent")
    asked = ["check", f"{place}:task", "--profile", PROFILE, "--json", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 2 and "squeue" in result.stderr
    assert result.stdout == "" and "loud" in result.stderr


def test_prune_keeps_the_rows(measured):
    folder = str(measured / "coord" / "mup-adamw")
    done = CliRunner().invoke(app, ["prune", folder, "--checkpoints", "--yes"])
    assert done.output == "nothing to prune\n"


def test_a_diverged_trial_has_its_rows(tmp_path):
    asked = {"widths": [32, 64], "seeds": 1, "steps": 2, "lr": 1e30, "optimizer": "sgd"}
    sweep = check_sweep(MLP, minutes=5, **asked)
    assert set(run(sweep, tmp_path, workers=2)["status"]) == {"diverged"}
    found = gather(sweep, Store(tmp_path))
    pd.testing.assert_frame_equal(found, coord_check(MLP, workers=2, **asked), check_exact=True)
    assert found["rms"].isna().any()


def test_a_failed_trial_is_named_with_its_error(tmp_path):
    sweep = check_sweep(MLP, minutes=5, widths=[32, 64], seeds=1, steps=1, optimizer="adamv")
    run(sweep, tmp_path, workers=2)
    wanted = "width 64, seed 0: .*neither torch.optim nor paramz has 'adamv'"
    with pytest.raises(ValueError, match=wanted):
        gather(sweep, Store(tmp_path))


def _records(out):
    return list(Store(out / "coord" / "mup-adamw").records())
