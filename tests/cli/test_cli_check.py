"""paramz check and paramz plan: exit codes, files and messages."""

import inspect
import io
import json
import re
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paramz.check.jobs import Check
from paramz.cli import app
from paramz.cli.check import check, progress_bar

ROOT = Path(__file__).parents[2]
MLP = f"{ROOT / 'sweeps' / 'train_mlp.py'}:task"
SMALL = ["--widths", "32,64,128,256", "--seeds", "2", "--steps", "1"]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_check_passes_under_mup_and_exits_1_under_sp(tmp_path: Path) -> None:
    assert run("check", MLP, *SMALL)[0] == 0
    code, output = run("check", MLP, *SMALL, "-p", "sp", "--out", str(tmp_path))
    assert code == 1
    assert "FAIL: sp with adamw" in output
    saved = json.loads((tmp_path / "coord" / "sp-adamw.json").read_text())
    assert saved["passed"] is False
    assert run("check", MLP, *SMALL, "-p", "sp", "--expect-fail")[0] == 0


def test_a_terminal_shows_progress_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", shown := Terminal())
    with progress_bar() as show:
        assert show is not None
        time.sleep(0.02)
        show(0.001)
        show(0.5)
    assert "measuring" in shown.getvalue() and "50%" in shown.getvalue()
    assert re.search(r"about \d+m?\d*s left", shown.getvalue())
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with progress_bar() as show:
        assert show is None


def test_a_poor_batch_is_one_line_before_the_verdict(tmp_path: Path) -> None:
    (tmp_path / "few.py").write_text(FEW)
    _, output = run("check", f"{tmp_path / 'few.py'}:task", "--widths", "16,32", "--steps", "1")
    first, *_ = output.splitlines()
    assert first.startswith("warning: the loss is a mean over 8 targets only: its gradient is off")
    assert "UserWarning" not in output and "check.py" not in output


FEW = """
import paramz, torch
from torch import nn

def task(config, trial=None):
    batch = torch.randn(8, 4), torch.arange(8) % 2
    net = lambda width: nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))
    return paramz.Task(net, lambda step: batch)
"""


def test_json_is_one_document() -> None:
    _, output = run("check", MLP, *SMALL, "--json")
    assert json.loads(output)["tolerance"] == 0.1


def test_bad_input_exits_2_with_the_reason() -> None:
    for arguments, message in [
        (["check", "nofile.py:task"], "no file nofile.py"),
        (["check", MLP, "-p", "mupp"], "unknown parametrization 'mupp'"),
        (["check", MLP, "--optimizer", "adamv"], "neither torch.optim nor paramz has 'adamv'"),
        (["check", MLP, "--optimizer", "lion"], "paramz has rules for 'lion', but neither"),
        (["check", MLP, "--widths", "64,x"], "--widths 64,x: write whole numbers with commas"),
        (["check", MLP, "--lr", "abc"], "--lr abc: write numbers with commas between"),
        (["plan", MLP, "--width", "64", "--base-width", "32", "-p", "x"], "unknown"),
        (
            ["plan", MLP, "--width", "64", "--base-width", "32", "--optimizer", "adamm"],
            "error: paramz does not know the optimizer 'adamm'",
        ),
    ]:
        code, output = run(*arguments)
        assert code == 2
        assert message in output


def test_plan_prints_a_table_or_lines_that_fit_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for columns in (80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        code, output = run("plan", MLP, "--width", "256", "--base-width", "64")
        assert code == 0
        assert "hidden.weight" in output
        assert "fan_in^-1 = 0.25" in output
        assert max(map(len, output.splitlines())) <= columns
        assert (" tensor " in output) == (columns == 200)
    code, output = run("plan", MLP, "--width", "256", "--base-width", "64", "--json")
    assert json.loads(output)["parametrization"]["name"] == "mup"


BRANCHES = """
import torch
from torch import nn
import paramz


class Net(nn.Module):
    def __init__(self, width, depth=3):
        super().__init__()
        self.embed, self.read = nn.Linear(6, width), nn.Linear(width, 2)
        self.stages = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(width, 2 * width), "fall": nn.Linear(2 * width, width)})
            for _ in range(depth)
        )

    def forward(self, x):
        x = self.embed(x)
        for stage in self.stages:
            x = x + stage["fall"](torch.relu(stage["up"](x)))
        return self.read(x)


def task(config):
    return paramz.Task(
        Net,
        batch=lambda step: (torch.ones(4, 6), torch.zeros(4, dtype=torch.long)),
        roles={r"^read": "output"} if config.get("roles") else {},
        branches=paramz.Branches(inside=r"^stages[.][0-9]+[.]", ends=r"[.]fall$"),
    )
"""


def test_plan_uses_the_branches_and_roles_of_the_task(tmp_path: Path) -> None:
    (tmp_path / "branches.py").write_text(BRANCHES)
    task = f"{tmp_path / 'branches.py'}:task"
    sizes = ["--width", "32", "--base-width", "16", "-p", "mup+completep"]
    code, output = run("plan", task, *sizes, "--json")
    assert code == 0, output
    rows = {row["name"]: row for row in json.loads(output)["rows"]}
    assert rows["stages.2.fall.weight"]["ends"] is True
    assert rows["stages.2.up.weight"]["block"] == "stages.2"
    assert rows["embed.weight"]["block"] is None
    _, output = run("plan", task, *sizes, "--set", "roles=true", "--json")
    rows = {row["name"]: row for row in json.loads(output)["rows"]}
    assert rows["read.weight"]["why"] == "roles['^read']"


def test_the_defaults_of_the_verb_are_those_of_the_function() -> None:
    defaults = {name: p.default for name, p in inspect.signature(check).parameters.items()}
    shared = ("widths", "depths", "experts", "ranks", "densities", "base_width")
    shared += ("parametrization", "optimizer")
    assert [defaults[name] for name in shared] == [getattr(Check, name) for name in shared]
    assert (defaults["steps"], defaults["seeds"]) == (Check.steps, Check.seeds)
    assert (defaults["lr"], Check.lr) == ("2^-8", 2**-8)


MASKED = """
import torch
from torch import nn
from torch.nn.utils import prune

import paramz


def net(width, density=1.0):
    layers = [nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    if density < 1:
        mask = torch.rand(width, width).argsort(1) < round(density * width)
        prune.custom_from_mask(layers[2], "weight", mask)
    return nn.Sequential(*layers, nn.Linear(width, 4))


def task(config):
    torch.manual_seed(0)
    batch = torch.randn(64, 8), torch.arange(64) % 4
    return paramz.Task(build=net, batch=lambda step: batch)
"""


def test_a_check_over_densities_of_masks(tmp_path) -> None:
    (tmp_path / "masked.py").write_text(MASKED)
    options = ("--densities", "1,0.5,0.25,0.125", "--base-width", "64", "--steps", "2", "--json")
    for scheme, passes in (("mup+s-mup", True), ("mup", False)):
        code, output = run("check", f"{tmp_path}/masked.py:task", *options, "-p", scheme)
        found = json.loads(output)
        assert (code == 0, found["sentence"][:4]) == (passes, "PASS" if passes else "FAIL"), output
        assert "density 0.125 to 1" in found["sentence"]
