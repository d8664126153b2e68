"""Shares of a sweep on machines that share no disk, and what brings them together."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from paramz.cli import app
from paramz.sweeps import Store, Sweep, load, run
from paramz.sweeps.running.runner import prepare, reopen
from paramz.sweeps.spec.shard import Shard

LAB = """
import os
def train(config):
    if config["lr"] == 3 and os.environ.get("FAULT"):
        raise RuntimeError("no luck")
    return {"loss": config["lr"] + config["seed"] / 10}
"""
MAIN = "from paramz.cli import main; main()"
SPEC = "train: lab.py:train\naxes: {lr: [1, 2, 3], seed: [0, 1, 2, 3]}\n"


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def machine(tmp_path, name):
    """A folder with the project, as a checkout on a machine of its own."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "lab.py").write_text(LAB)
    (folder / "spec.yaml").write_text(SPEC)
    return folder


def test_two_machines_run_a_sweep_and_their_directories_are_merged(tmp_path):
    """The example of docs/sweeps.md, with a folder in the place of each machine."""
    machines = [machine(tmp_path, name) for name in ("first", "second")]
    commands = [
        subprocess.Popen(
            [sys.executable, "-c", MAIN, "sweep", "spec.yaml", "--shard", f"{n}/2"],
            cwd=folder,
            stderr=subprocess.PIPE,
        )
        for n, folder in enumerate(machines, 1)
    ]
    for command in commands:
        assert command.communicate()[0] is None and command.returncode == 0
    parts = [f / f"runs/spec-{n}of2" for n, f in enumerate(machines, 1)]
    sizes = [len(load(part)) for part in parts]
    assert sum(sizes) == 12 and min(sizes) > 0
    for part, size in zip(parts, sizes, strict=True):
        assert f"{size} trials: {size} ok" in call("status", part).stdout
    whole = tmp_path / "whole"
    said = call("merge", whole, *parts)
    assert said.exit_code == 0 and "12 results taken" in said.stdout
    again = json.loads(call("merge", whole, *parts, "--json").stdout)
    assert (again["taken"], again["same"], again["kept"]) == (0, 12, [])
    assert "12 trials: 12 ok" in call("status", whole).stdout
    alone = run(Sweep.from_yaml(machines[0] / "spec.yaml"), tmp_path / "alone", workers=1)
    columns = ["key", "status", "lr", "seed", "loss"]
    assert load(whole)[columns].equals(alone[columns])
    assert prepare(Sweep.from_yaml(machines[1] / "spec.yaml"), Store(whole)) == {}


def test_every_trial_belongs_to_one_share_and_a_share_is_not_refined(tmp_path):
    folder = machine(tmp_path, "one")
    (folder / "spec.yaml").write_text(SPEC + "refine: {axis: lr}\n")
    whole = Sweep.from_yaml(folder / "spec.yaml")
    assert len(whole.trials) == 12
    shares = [whole.share(Shard(n, 5)) for n in range(1, 6)]
    assert sorted(key for share in shares for key in share.trials) == sorted(whole.trials)
    assert all(share.refine is None for share in shares) and whole.refine is not None


def test_a_share_is_reopened_as_that_share(tmp_path):
    whole = Sweep.from_yaml(machine(tmp_path, "one") / "spec.yaml")
    store = Store(tmp_path / "run")
    mine = prepare(whole.share(Shard(1, 2)), store)
    assert reopen(store).trials == mine and len(mine) < 12
    with pytest.raises(ValueError, match="holds share 1/2, this is share 2/2; give every share"):
        prepare(whole.share(Shard(2, 2)), store)
    prepare(whole, store)  # the rest may be run in the same place
    with pytest.raises(ValueError, match="holds a whole sweep, this is share 1/2"):
        prepare(whole.share(Shard(1, 2)), store)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "-1/2", "1/0", "1/2/3"])
def test_a_share_that_there_is_not_is_refused(tmp_path, text):
    folder = machine(tmp_path, "one")
    said = call("sweep", folder / "spec.yaml", "--shard", text, "--out", tmp_path / "run")
    assert said.exit_code == 2 and f"--shard {text}: write which share" in said.stderr


def test_a_success_replaces_a_failure_and_different_results_are_told(tmp_path, monkeypatch):
    folder = machine(tmp_path, "one")
    sweep = Sweep.from_yaml(folder / "spec.yaml")
    monkeypatch.setenv("FAULT", "1")
    run(sweep, tmp_path / "a", workers=1)
    monkeypatch.delenv("FAULT")
    run(sweep, tmp_path / "b", workers=1)
    a, b = Store(tmp_path / "a"), Store(tmp_path / "b")
    key = next(key for key, config in sweep.trials.items() if config["lr"] == 1)
    b.result(key).write_text(json.dumps(b.read(key) | {"metrics": {"loss": 99.0}}))
    (b.trial(key) / "checkpoint.pt").write_text("weights")
    said = call("merge", a.root, b.root)
    assert said.exit_code == 1 and "4 in place of failures, 7 there already" in said.stdout
    assert f"1 trials have different results, and {a.root} keeps its own: {key}" in said.stdout
    assert a.read(key)["metrics"]["loss"] == 1.0 and (load(a.root)["status"] == "ok").all()
    assert len(list(a.root.glob("trials/*/result-0001.json"))) == 4


def test_an_interrupted_trial_keeps_what_it_saved(tmp_path):
    sweep = Sweep.from_yaml(machine(tmp_path, "one") / "spec.yaml")
    part = Store(tmp_path / "part")
    key = next(iter(prepare(sweep.share(Shard(1, 2)), part)))
    (part.trial(key) / "deep").mkdir(parents=True)
    (part.trial(key) / "deep/checkpoint.pt").write_text("weights")
    assert call("merge", tmp_path / "whole", part.root).exit_code == 0
    assert (Store(tmp_path / "whole").trial(key) / "deep/checkpoint.pt").read_text() == "weights"


def test_results_of_another_function_are_not_merged(tmp_path):
    sweep = Sweep.from_yaml(machine(tmp_path, "one") / "spec.yaml")
    prepare(sweep, Store(tmp_path / "a"))
    (tmp_path / "other.py").write_text(LAB)
    prepare(Sweep(train=f"{tmp_path}/other.py:train"), Store(tmp_path / "b"))
    said = call("merge", tmp_path / "whole", tmp_path / "a", tmp_path / "b")
    assert said.exit_code == 2 and "results of different training functions" in said.stderr
    assert not os.path.exists(tmp_path / "whole")
