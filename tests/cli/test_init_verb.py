"""A new project, the options that every command line has, and what the wheel carries."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paramz.cli import app
from paramz.sweeps import Sweep

ROOT = Path(__file__).parents[2]


def paramz(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_new_project_can_be_planned_and_swept_and_is_never_overwritten(tmp_path):
    lab = tmp_path / "lab"
    said = paramz("init", lab)
    assert said.exit_code == 0 and "paramz sweep sweep.yaml" in said.output
    assert sorted(path.name for path in lab.iterdir()) == [
        "analysis.ipynb", "slurm.yaml", "sweep.yaml", "train_lm.py", "train_loop.py",
    ]  # fmt: skip
    sweep = Sweep.from_yaml(lab / "sweep.yaml")
    assert sweep.target == f"{lab}/train_lm.py:train"
    planned = paramz("plan", lab / "train_lm.py:task", "--width", "64", "--base-width", "32")
    assert planned.exit_code == 0 and "readout" in planned.output
    assert said.output.count(str(lab)) == 1  # in the line that enters it
    again = paramz("init", lab)
    assert again.exit_code == 2 and "exists already; choose another folder" in again.output


@pytest.mark.slow
def test_the_notebook_of_a_new_project_runs_on_its_sweep(tmp_path):
    paramz("init", tmp_path)
    text = (tmp_path / "sweep.yaml").read_text()
    text = text.replace("steps: 80", "steps: 3").replace("[32, 64, 128, 256]", "[8, 16, 32, 64]")
    (tmp_path / "sweep.yaml").write_text(text)
    assert paramz("sweep", tmp_path / "sweep.yaml", "--out", tmp_path / "runs/sweep").exit_code == 0
    command = [sys.executable, "-m", "pytest", "--nbmake", tmp_path / "analysis.ipynb", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_notebook_is_one(tmp_path):
    paramz("init", tmp_path)
    cells = json.loads((tmp_path / "analysis.ipynb").read_text())["cells"]
    assert {cell["cell_type"] for cell in cells} == {"markdown", "code"}


def test_every_verb_has_help_and_the_program_a_version():
    assert paramz("--version").output.startswith("paramz 0.")
    assert "Exit codes: 0 if all is well" in paramz("-h").output
    assert "--install-completion" in paramz("-h").output
    for verb in ("plan", "check", "sweep", "fit", "init"):
        assert paramz(verb, "-h").exit_code == 0


def test_help_flows_and_names_types_in_words():
    said = {verb: paramz(verb, "-h").output for verb in ("check", "tune", "plan", "merge")}
    for text in said.values():
        assert not {"<bool>", "<str>", "<path>", "<list[Path]>"} & set(text.split())
    assert "For example: paramz tune train.py:train --target width=4096" in said["tune"]
    assert "pairs (pattern," in said["plan"]  # brackets would be taken for markup
    # A paragraph of a docstring is filled, and not broken where its source is.
    paragraph = said["check"].split("Exits with")[1].split("╭")[0].strip().splitlines()
    assert all(len(line) > 60 for line in paragraph[:-1])


@pytest.mark.slow
def test_the_wheel_carries_specs_and_training_functions(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("demo_lm.yaml", "train_lm.py", "train_loop.py", "slurm/h100.yaml"):
        assert f"paramz/examples/{name}" in names
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "installed")
    code = "from paramz.cli.init import examples; print(examples())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path / "installed",
        env={"PYTHONPATH": str(tmp_path / "installed"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout.strip() == str(tmp_path / "installed" / "paramz" / "examples"), done.stderr
