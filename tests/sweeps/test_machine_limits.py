"""What the machine does not have: room on its disk, CPUs, memory and GPUs for more trials."""

import errno
import os
from functools import partialmethod

import pytest
from process_tools import wanted

from paramz.sweeps import Store
from paramz.sweeps.running import pool as pool_module
from paramz.sweeps.running import runner
from paramz.sweeps.running.capacity import capacity
from paramz.sweeps.running.recording import Recorder
from paramz.sweeps.running.runner import prepare
from paramz.sweeps.running.stopping import Stop
from paramz.sweeps.spec.resources import Need


def test_a_full_disk_is_told_as_trials_that_finished_and_trials_that_never_began(
    tmp_path, monkeypatch, capsys
):
    sweep = wanted("numbered", axes={"n": [1, 2, 3, 4, 5]})
    store = Store(tmp_path / "run")
    trials = prepare(sweep, store)
    begun = []

    def refuses(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def claims(folder, claim=pool_module.claim):
        if len(begun) == 2:
            refuses()
        begun.append(folder.name)
        return claim(folder)

    monkeypatch.setattr(pool_module, "claim", claims)
    monkeypatch.setattr(Store, "save", refuses)
    monkeypatch.setattr(Recorder, "write_rest", partialmethod(at_once, Recorder.write_rest))
    tally = runner.run_trials(sweep, store, trials, Stop(), workers=1)
    assert tally.unsaved == set(begun) and tally.refused == trials.keys() - set(begun)
    assert (tally.left, tally.complete, store.finished()) == (5, False, set())
    said = capsys.readouterr().err
    assert "2 trials finished, but the disk did not take their results (is it full?)" in said
    assert "3 trials were not begun, because the disk did not take their first file" in said


def at_once(recorder, write_rest, patience):
    write_rest(recorder, patience=0)


@pytest.mark.parametrize(
    ("need", "gpus", "memory_gb", "most"),
    [
        ({"memory_gb": 10}, [], 25, 2),
        ({"memory_gb": 100}, [], 25, 1),
        ({"gpus": 0.5}, ["0"], None, 2),
        ({"gpus": 2}, ["0", "1", "2", "3"], None, 2),
        ({"gpus": 1}, [], 1000, 64),  # without a GPU they run on CPUs
        ({"cpus": 32}, ["0"], 1000, 2),
    ],
)
def test_the_number_of_workers_respects_what_a_trial_needs(
    monkeypatch, need, gpus, memory_gb, most
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64))
    default = {"cpus": 1, "gpus": 0, "nodes": 1, "memory_gb": 2, "minutes": None}
    assert capacity([Need(**default | need)], gpus, memory_gb) == most
