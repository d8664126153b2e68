"""The further ranks of a trial, on this machine: only the attempt of rank 0 is that of a job."""

import pytest

from paramz.slurm.follower import follow
from paramz.slurm.order import JobOrder
from paramz.sweeps.running.stopping import Stop
from paramz.sweeps.spec.limits import Limits
from paramz.sweeps.store.attempt import claim
from paramz.sweeps.store.store import Store

TRAIN = """
import os, pathlib
def train(config, trial):
    rank = int(os.environ["RANK"])
    {then}
    if rank == 0:
        return {{"loss": 1.0}}
"""


@pytest.mark.parametrize(
    ("then", "error"),
    [
        ("pass", None),
        ("os._exit(3)", "rank 1: the worker process exited with code 3"),
        ("os.kill(os.getpid(), 9)", "rank 1: the worker process was killed by SIGKILL .*memory"),
        ("raise ValueError('odd')", "rank 1: ValueError: odd"),
    ],
)
def test_a_rank_may_return_nothing_and_says_how_it_died(tmp_path, monkeypatch, then, error):
    """What rank 1 returned was a failure of the trial unless it had a loss."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    file = tmp_path / "lab.py"
    file.write_text(TRAIN.format(then=then))
    store = Store(tmp_path / "run").create()
    order = JobOrder(f"{file}:train", Limits(), 1, 1, 0, None, None, 120, (("abc", {"lr": 1}),))
    attempt = claim(store.trial("abc"))  # as rank 0 does
    if error is None:  # it waits for rank 0, which ends now
        monkeypatch.setattr("paramz.slurm.follower.time.sleep", lambda _: attempt.end("ok"))
        follow(store, order, {"RANK": "1"}, Stop())
        assert store.finished() == set()
        return
    with pytest.raises(RuntimeError, match=error):
        follow(store, order, {"RANK": "1"}, Stop())
    assert store.finished() == {"abc"}
