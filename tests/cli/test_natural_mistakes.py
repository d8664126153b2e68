"""What a newcomer gets wrong is refused before anything runs, in one line that says what to do."""

import pytest
from typer.testing import CliRunner

from paramz.cli import app
from paramz.sweeps.running.worker import _why

FUNCTIONS = """
import torch
from torch import nn
import paramz

def train(config):
    if config.get("fail"):
        raise RuntimeError("boom")
    return {"loss": (config["lr"] - 0.1) ** 2 + 1.0 / config["width"]}

def model(width):
    return nn.Linear(4, width)

def of_dict(config):
    return {"loss": 1.0}

def raising(config):
    return config["nokey"]

def no_build(config):
    return paramz.Task(lambda width: nn.Linear(width, oops), lambda step: 1)
"""


def call(*arguments):
    said = CliRunner().invoke(app, [str(each) for each in arguments])
    assert said.exception is None or isinstance(said.exception, SystemExit), said.exception
    return said


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.py").write_text(FUNCTIONS)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model", "model takes width, as functions do that build a model, and this needs a task"),
        ("of_dict", "of_dict returned dict, and this needs a task: a function (config) -> paramz"),
        ("raising", "KeyError: nokey (lab.py:18, in raising)"),
        ("no_build", "NameError: name 'oops' is not defined (lab.py:21, in <lambda>)"),
    ],
)
def test_a_check_of_what_is_no_task(lab, name, message):
    said = call("check", f"lab.py:{name}", "--widths", "16,32")
    assert said.exit_code == 2 and said.stderr.startswith(f"error: {message}"), said.stderr


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("train: nopkg.lab:train", "there is no module 'nopkg', neither in "),
        ("train: lab.py:trian", "lab.py defines no function 'trian'; it has: train, model"),
        ("train: gone.py:train", "train: no file gone.py in"),
        ("train: lab.py:train\nrefine: {axis: lrr}", "refine.axis is 'lrr', which is no axis; the"),
    ],
)
def test_a_sweep_of_what_there_is_not(lab, spec, message):
    (lab / "spec.yaml").write_text(f"{spec}\naxes: {{lr: [0.1, 0.2], width: [8, 16]}}\n")
    said = call("sweep", "spec.yaml")
    assert said.exit_code == 2 and message in said.stderr
    assert not (lab / "runs").exists()


def test_a_spec_and_its_results_and_its_script_are_told_apart(lab):
    (lab / "runs/spec/results").mkdir(parents=True)
    (lab / "spec.yaml").write_text("train: lab.py:train\naxes: {lr: [0.1]}\n")
    for arguments, message in (
        (["sweep", "lab.py"], "which names it: train: lab.py:train, or command: [python, lab.py"),
        (["sweep", "lab.py:of_dict"], "lab.py:of_dict is Python, and a sweep is described in a"),
        (["sweep", "runs/spec"], "paramz retry runs/spec goes on with what is missing"),
        (["status", "spec.yaml"], "its results are in a directory, runs/spec unless --out"),
    ):
        said = call(*arguments)
        assert said.exit_code == 2 and message in said.stderr, said.stderr
    assert call("cancel", "runs/spec").stdout == "0 jobs cancelled\n"  # without asking a queue


def test_a_check_of_a_command_over_depths_names_the_way_out(lab):
    script = "python lab.py --depth {depth} --lr {lr}"
    said = call("check", "--command", script, "--depths", "2,4", "--out", "runs/x")
    assert said.exit_code == 2 and not (lab / "runs").exists()
    assert "over depth blocks are compared with those of the smallest model" in said.stderr
    assert "paramz check file.py:task with the same option" in said.stderr


def test_halving_without_optuna(lab, monkeypatch):
    monkeypatch.setattr("paramz.cli.sweep.find_spec", lambda name: None)
    halving = "halving: {over: lr, min_steps: 1}"
    (lab / "spec.yaml").write_text(f"train: lab.py:train\naxes: {{lr: [0.1, 0.2]}}\n{halving}\n")
    said = call("sweep", "spec.yaml")
    assert said.exit_code == 2
    assert said.stderr == "error: halving needs optuna: pip install 'torch-paramz[sweeps]'\n"


def test_a_report_of_nothing(lab):
    (lab / "empty").mkdir()
    said = call("report", "empty")
    assert (
        said.exit_code == 2 and "empty holds no run: a run is a folder with results/" in said.stderr
    )


def test_a_report_and_a_fit_of_a_run_that_failed_and_of_columns_that_are_not_there(lab):
    axes = "axes: {lr: [0.05, 0.1, 0.2], width: [8, 16]}"
    (lab / "bad.yaml").write_text(f"train: lab.py:train\n{axes}\nbase: {{fail: true}}\n")
    (lab / "good.yaml").write_text(f"train: lab.py:train\n{axes}\n")
    assert call("sweep", "bad.yaml", "--workers", 1).exit_code == 1
    for arguments in (["report", "runs/bad"], ["fit", "runs/bad", "--predict", "width=64"]):
        said = call(*arguments)
        assert said.exit_code == 1
        assert "runs/bad: no trial has ended well: 6 failed, most often with: Run" in said.stderr
        assert "paramz logs runs/bad shows them" in said.stderr
    assert not (lab / "runs/bad/report.html").exists()
    assert call("sweep", "good.yaml", "--workers", 1).exit_code == 0
    for option, value in (("--hp", "lrr"), ("--loss", "accuracy"), ("--scale", "depth")):
        said = call("report", "runs/good", option, value)
        assert said.exit_code == 2 and f"has no column '{value}'; it has: key, st" in said.stderr


def test_a_file_that_cannot_be_imported_shows_its_own_lines(lab):
    (lab / "imports.py").write_text("import nopkg\n")
    try:
        exec(compile("import nopkg", "imports.py", "exec"))
    except ImportError as error:
        why = _why(error)
    first, *rest = why.splitlines()
    assert first == "the training function cannot be imported:"
    assert rest[-1] == "ModuleNotFoundError: No module named 'nopkg'" and "importlib" not in why


TABLE = "width,lr,loss\n" + "".join(
    f"{width},{lr},{(lr - 3) ** 2 + 8 / width}\n" for width in (8, 16, 32, 64) for lr in range(1, 6)
)


def test_one_column_named_for_two_things(tmp_path):
    table = tmp_path / "runs.csv"
    table.write_text(TABLE)
    for words in (["--hp", "loss"], ["--loss", "lr"], ["--scale", "lr"]):
        said = call("report", table, *words)
        assert said.exit_code == 2 and "one column is named for two things" in said.stderr


def test_a_table_without_times_has_no_cost(tmp_path):
    table = tmp_path / "runs.csv"
    table.write_text(TABLE)
    assert call("report", table).exit_code == 0
    page = (tmp_path / "runs-report" / "report.html").read_text(encoding="utf-8")
    assert "no times in 20 trials" in page and "hours" not in page
