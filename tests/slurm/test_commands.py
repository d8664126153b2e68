"""Submission, queue and jobs with small scripts in place of Slurm's commands."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from paramz.cli import app
from paramz.slurm import Profile, submit
from paramz.slurm.order import JobOrder
from paramz.sweeps import Store, load

# An array waits in the queue from its submission until it is cancelled.
COMMANDS = {
    "sbatch": 'cp "$1" {queue}/script; echo Submitted batch job 17',
    "srun": "exit 1",
    "scancel": "echo $@ > {queue}/cancelled; rm {queue}/script",
    "scontrol": 'echo "MaxArraySize            = 33"',
    "sacctmgr": "echo 40",
    "squeue": """
        [ -f {queue}/script ] || exit 0
        name=$(sed -n 's/^#SBATCH --comment=//p' {queue}/script)
        case "$*" in *--format=%i' '*) exit;; esac
        echo "17_0|0|RUNNING|1:30|None|$name"
        echo "17_1|1|PENDING|0:00|Priority|$name"
        echo "17_2|2|COMPLETING|1:30|None|$name"
    """,
}


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Where the scripts keep what was submitted."""
    folder = tmp_path / "queue"
    folder.mkdir()
    for name, text in COMMANDS.items():
        (folder / name).write_text("#!/bin/sh\n" + text.replace("{queue}", str(folder)))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_what_is_submitted_is_known_from_the_queue_and_cancelled(queue, sweep, tmp_path):
    out = tmp_path / "run"
    wanted = sweep("resumable", base={"steps": 3, "sleep": 0}, axes={"seed": [0, 1, 2]})
    profile = Profile(pack={"workers": 1, "minutes": 3}, max_array=3)
    done = submit(wanted, profile, out)
    assert done.jobs == ("17",) and done.packing.trials == 3
    (folder,) = out.glob("slurm/arrays/*")
    orders = [JobOrder.read(folder / f"{i}.json") for i in range(3)]
    assert [order.trials[0][1]["seed"] for order in orders] == [0, 1, 2]
    assert {order.train for order in orders} == {wanted.train}
    again = submit(wanted, profile, out)  # the third job is over and has left no result
    assert (again.packing.trials, again.skipped) == (1, 2)
    shown = call("status", out)
    assert "jobs: 1 running, 1 pending" in shown.stdout
    assert call("cancel", out).stdout == "2 jobs cancelled\n"
    assert (queue / "cancelled").read_text() == "17\n"
    assert "3 trials: 3 waiting" in call("status", out).stdout


def start_job(order, rank, ranks):
    """The job of an order, in a process with the variables that Slurm sets for it."""
    variables = {
        "SUBMITIT_EXECUTOR": "slurm",
        "SLURM_JOB_ID": "17",
        "SLURM_NTASKS": str(ranks),
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NNODES": "1",
        "SLURM_NODELIST": "n0",
        "SLURM_JOB_NODELIST": "n0",
        "SLURM_TASKS_PER_NODE": str(ranks),
    }
    code = "import sys; from paramz.slurm.job import Job; print(Job(sys.argv[1])())"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(order)],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_job_runs_the_trials_of_its_order(queue, sweep, tmp_path):
    out = tmp_path / "run"
    wanted = sweep("resumable", base={"steps": 3, "sleep": 0}, axes={"seed": [0, 1]})
    submit(wanted, Profile(pack={"workers": 2, "minutes": 9}), out)
    (order,) = out.glob("slurm/arrays/*/*.json")
    said, _ = start_job(order, 0, 1).communicate(timeout=60)
    assert "{'ran': 2, 'left to others': 0}" in said
    assert (load(out)["status"] == "ok").all() and Store(out).finished() == set(wanted.trials)


@pytest.mark.parametrize(
    ("fails", "status", "error"),
    [(None, "ok", None), (1, "failed", "rank 1: RuntimeError: no luck")],
)
def test_a_trial_of_two_processes(queue, sweep, tmp_path, fails, status, error):
    out = tmp_path / "run"
    submit(sweep("gather", axes={"fails": [fails]}, resources={"gpus": 2}), Profile(), out)
    (order,) = out.glob("slurm/arrays/*/*.json")
    ranks = [start_job(order, rank, 2) for rank in range(2)]
    said = ranks[1].communicate(timeout=60)[0]
    if fails:  # srun would end the rank that waits
        assert "RuntimeError: rank 1: RuntimeError: no luck" in said
        ranks[0].terminate()
        ranks[0].kill()
    ranks[0].communicate(timeout=60)
    (row,) = load(out).to_dict("records")
    assert (row["status"], row["error"]) == (status, error)
