"""A further launcher takes one entry in paramz.cli.launchers; every verb then knows it."""

import json
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from paramz.cli import app
from paramz.cli.launchers import launcher_for
from paramz.cli.sweep import RetryChoice
from paramz.slurm.launcher import SLURM
from paramz.sweeps import Store, Sweep
from paramz.sweeps.running.launcher import Launcher, LaunchError, LaunchReport, Live, Options, Retry
from paramz.sweeps.running.local import LOCAL
from paramz.sweeps.running.runner import prepare
from paramz.sweeps.spec.shard import Shard


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class Nodes:
    """Computers that a sweep's trials are sent to, up to the point where they would run."""

    def __init__(self):
        self.away = False
        self.sent = {}

    def submit(self, sweep, store, options):
        self._answer()
        self.sent = prepare(sweep, store, options.retry)
        return LaunchReport({"sent": len(self.sent)}, (f"{len(self.sent)} trials sent",), code=0)

    def preview(self, sweep, store, options):
        return LaunchReport({"would": len(sweep.trials)}, (f"would send {len(sweep.trials)}",))

    def live(self, store):
        self._answer()
        return Live({"sent": len(self.sent)} if self.sent else {}, frozenset(self.sent))

    def cancel(self, store):
        self._answer()
        ids, self.sent = sorted(self.sent), {}
        return ids

    def _answer(self):
        if self.away:
            raise LaunchError("the nodes do not answer: are they switched on?")


@pytest.fixture
def nodes(monkeypatch):
    """The launcher in place of Slurm's."""
    nodes = Nodes()
    launcher = Launcher(
        accepts=lambda options: options.profile is not None,
        submit=nodes.submit,
        preview=nodes.preview,
        live=nodes.live,
        cancel=nodes.cancel,
        returns_at_once=True,
    )
    monkeypatch.setattr("paramz.slurm.launcher.SLURM", launcher)
    return nodes


@pytest.fixture
def command(spec_file, tmp_path):
    path = spec_file("axes: {width: [1, 2], lr: [0.5]}\n")
    return ["sweep", path, "--out", tmp_path / "run", "--profile", tmp_path / "nodes.yaml"]


def test_sweep_status_retry_and_cancel_reach_it(nodes, command, tmp_path):
    out = tmp_path / "run"
    assert call(*command, "--dry-run").stdout == "would send 2\n" and not out.exists()
    assert call(*command).stdout == "2 trials sent\n"
    assert json.loads(call(*command, "--json").stdout) == {"sent": 2}
    assert call("status", out).stdout.splitlines() == [f"{out}: 2 trials: 2 queued", "jobs: 2 sent"]
    assert call("retry", out, "--profile", "nodes.yaml").stdout == "2 trials sent\n"
    assert call("cancel", out).stdout == "2 jobs cancelled\n"
    assert call("status", out).stdout == f"{out}: 2 trials: 2 waiting\n"


def test_without_a_profile_the_sweep_runs_here(nodes, command):
    assert call(*command[:-2]).exit_code == 0
    assert nodes.sent == {} and len(Store(command[3]).finished()) == 2


def test_a_share_goes_with_each_launcher(nodes, spec_file, tmp_path):
    """One half runs here, the other on the nodes; neither has a trial of the other."""
    path = spec_file("axes: {width: [1, 2, 3, 4, 5, 6], lr: [0.5]}\n")
    here, there = ["--shard", "1/2"], ["--shard", "2/2", "--profile", tmp_path / "nodes.yaml"]
    assert call("sweep", path, *here, "--out", tmp_path / "a").exit_code == 0
    assert call("sweep", path, *there, "--out", tmp_path / "b").exit_code == 0
    halves = Store(tmp_path / "a").finished(), set(nodes.sent)
    assert all(halves) and halves[0] | halves[1] == set(Sweep.from_yaml(path).trials)
    assert not halves[0] & halves[1]


def test_slurm_is_given_a_share(spec_file, tmp_path):
    path = spec_file("axes: {width: [1, 2, 3, 4, 5, 6], lr: [0.5]}\nresources: {minutes: 1}\n")
    profile = Path(__file__).parents[2] / "slurm" / "cpu.yaml"
    options = ["--profile", profile, "--out", tmp_path / "run", "--dry-run", "--json"]
    packed = [
        json.loads(call("sweep", path, "--shard", f"{n}/2", *options).stdout)["trials"]
        for n in (1, 2)
    ]
    shares = [len(Sweep.from_yaml(path).share(Shard(n, 2)).trials) for n in (1, 2)]
    assert packed == shares and sum(packed) == 6 and all(packed)


def test_what_it_cannot_do_is_one_message(nodes, command, tmp_path):
    call(*command)
    nodes.away = True
    for refused in (call(*command), call("cancel", tmp_path / "run")):
        assert refused.exit_code == 2
        assert refused.stderr == "error: the nodes do not answer: are they switched on?\n"
    shown = call("status", tmp_path / "run")
    assert shown.exit_code == 0
    assert "the queue could not be asked: the nodes do not answer" in shown.stdout


def test_watch_asks_again_as_long_as_trials_are_missing_and_says_so(
    nodes, command, tmp_path, monkeypatch
):
    """The nodes do not answer at first; then they have two trials queued, then none."""
    call(*command)
    nodes.away = True
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            nodes.away = False
        if len(looks) == 4:
            nodes.sent = {}

    monkeypatch.setattr("paramz.cli.status.time.sleep", sleep)
    shown = call("watch", tmp_path / "run", "--every", "7")
    assert shown.exit_code == 0 and looks == [7] * 4
    lines = [line.partition(" ")[2] for line in shown.stdout.splitlines()]
    missing, queued = (
        f"{tmp_path / 'run'}: 2 trials: 2 {state}" for state in ("waiting", "queued")
    )
    assert lines[0] == missing and lines[4] == lines[5] == queued
    assert shown.stdout.count("the nodes do not answer: are they switched on?; asking again") == 2


def test_watch_ends_without_an_answer_when_all_trials_have_results(nodes, command, tmp_path):
    assert call(*command[:-2]).exit_code == 0
    nodes.away = True
    assert call("watch", tmp_path / "run").exit_code == 0


def test_the_options_alone_decide_where_a_sweep_runs():
    assert launcher_for(Options(workers=2)) is LOCAL
    assert launcher_for(Options(profile="h100.yaml")) is SLURM


def test_the_command_line_offers_every_way_to_retry():
    assert [choice.value for choice in RetryChoice] == list(get_args(Retry))
