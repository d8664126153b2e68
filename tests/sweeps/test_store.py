import errno
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from paramz.sweeps import load
from paramz.sweeps.spec.config import config_key
from paramz.sweeps.store import attempt as attempts
from paramz.sweeps.store.attempt import claim, holder
from paramz.sweeps.store.clock import Clock
from paramz.sweeps.store.store import Store, open_store


def record(status="ok", error=None, metrics=None, **config):
    metrics = {"loss": 1.5} if metrics is None else metrics
    named = {"key": config_key(config), "status": status, "error": error, "config": config}
    return named | {"metrics": metrics, "seconds": 2.0}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "run").create()


def test_load_has_one_row_per_trial_and_a_column_per_leaf(store):
    store.save(record(width=64, adam={"lr": 0.5}, metrics={"loss": 1.5, "width": 3}))
    store.save(record(width=128, status="diverged", metrics={"loss": "inf"}))
    table = load(store.root).sort_values("width")
    leaves = {"width", "adam.lr", "loss", "metric.width"}
    assert set(table.columns) == {"key", "status", "error", "seconds"} | leaves
    assert table["loss"].tolist() == [1.5, float("inf")]
    assert table["adam.lr"].isna().tolist() == [False, True]


def test_load_of_an_empty_store_is_an_empty_table(store):
    assert list(load(store.root).columns) == ["key", "status", "error", "loss", "seconds"]


def test_load_elsewhere_lists_the_sweeps_there(store):
    with pytest.raises(FileNotFoundError, match=r"holds no sweep .*sweeps there: .*/run"):
        load(store.root.parent / "rum")


def test_the_first_result_wins(store):
    assert store.save(record(width=64))
    assert not store.save(record(width=64, metrics={"loss": 9.0}))
    assert load(store.root)["loss"].tolist() == [1.5]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"key": "', "it is not complete JSON"),
        ("", "it is not complete JSON"),
        ("[1, 2]", "it is not a result of the trial that it is named after"),
        (json.dumps(record(width=128)), "it is not a result of the trial that it is named after"),
    ],
)
def test_a_broken_file_is_quarantined_and_reported(store, content, reason):
    key = config_key({"width": 64})
    for n in (1, 2):  # a second one does not overwrite the first
        store.result(key).write_text(content)
        with pytest.warns(UserWarning, match=reason):
            assert len(load(store.root)) == 0
        assert len(list((store.root / "quarantine").iterdir())) == n
    assert key not in store.finished()


def test_a_full_disk_leaves_nothing_behind(store, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(record(width=64))
    assert list(store.results.iterdir()) == []


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o007])
def test_permissions_are_the_umask_of_the_user(store, umask):
    before = os.umask(umask)
    try:
        store.save(record(width=64))
        mine = claim(store.trial("abc"))
    finally:
        os.umask(before)
    files = [store.result(config_key({"width": 64})), mine.path]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o666 & ~umask] * 2


def test_retired_results_are_kept(store):
    done = record(width=64, status="failed", error="no luck")
    for _ in range(2):
        store.save(done)
        store.retire(done["key"])
    kept = sorted(path.name for path in store.trial(done["key"]).iterdir())
    assert kept == ["result-0001.json", "result-0002.json"] and store.finished() == set()


def test_open_store_refuses_other_directories(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no sweep"):
        open_store(tmp_path)


def test_a_trial_is_claimed_once_until_its_attempt_ends(store):
    folder = store.trial("abc")
    first = claim(folder)
    assert claim(folder) is None and holder(folder)["pid"] == os.getpid()
    first.end("interrupted")
    second = claim(folder)
    assert second.number == 2 and second.spent >= 0 and holder(folder) is not None


def test_time_counts_over_attempts_until_there_is_a_result(store):
    """One that failed over its time limit failed again at once, when it was to run again."""
    folder = store.trial("abc")
    first = claim(folder)
    time.sleep(0.01)
    first.end("interrupted")
    second = claim(folder)
    assert second.spent >= 0.01
    second.end("failed")
    assert claim(folder).spent == 0.0


def test_the_claim_of_a_dead_process_is_free_at_once(store):
    folder = store.trial("abc")
    code = (
        "import sys, pathlib, paramz.sweeps.store.attempt as a; a.claim(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    assert holder(folder) is None and claim(folder).number == 2


def test_the_claim_of_another_machine_goes_stale_with_its_heartbeat(store, monkeypatch):
    folder = store.trial("abc")
    theirs = claim(folder)
    text = json.loads(theirs.path.read_text()) | {"host": "elsewhere", "job": "12_3"}
    theirs.path.write_text(json.dumps(text))
    assert claim(folder) is None
    old = time.time() - attempts.STALE - 1
    os.utime(theirs.path, (old, old))
    mine = claim(folder)
    assert mine.number == 2 and theirs.superseded() and not mine.superseded()


@pytest.fixture
def job(monkeypatch):
    """Make this process part of a Slurm job that was requeued so many times."""

    def be(restart):
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))

    return be


def moved(attempt, **changes):
    """Let an attempt look as if another process had made it."""
    attempt.path.write_text(json.dumps(json.loads(attempt.path.read_text()) | changes))


def test_a_requeued_job_leaves_its_trial_to_its_earlier_run_as_long_as_that_lives(store, job):
    """Slurm has lost sight of the node; the processes there go on working."""
    folder = store.trial("abc")
    job(0)
    theirs = claim(folder)
    moved(theirs, host="elsewhere")
    job(1)
    assert claim(folder) is None
    old = time.time() - attempts.STALE - 1
    os.utime(theirs.path, (old, old))
    assert claim(folder).number == 2 and theirs.superseded()


def test_a_requeued_job_takes_back_at_once_what_its_earlier_run_has_ended(store, job):
    folder = store.trial("abc")
    job(0)
    theirs = claim(folder)
    moved(theirs, host="elsewhere")
    theirs.end("interrupted")
    job(1)
    assert claim(folder).number == 2


def test_ranks_on_other_nodes_join_the_attempt_of_their_own_run_alone(store, job):
    folder = store.trial("abc")
    job(1)
    theirs = claim(folder)
    moved(theirs, host="elsewhere")
    assert attempts.attempt_of(folder, "12_3", 1)["host"] == "elsewhere"
    assert attempts.attempt_of(folder, "12_3", 2) is None
    assert attempts.attempt_of(folder, "12_4", 1) is None
    theirs.end("interrupted")
    assert attempts.attempt_of(folder, "12_3", 1) is None


def test_a_pid_says_nothing_about_a_container_with_the_same_hostname(store):
    folder = store.trial("abc")
    theirs = claim(folder)
    moved(theirs, machine="another", pid=1, born="0")
    assert claim(folder) is None and holder(folder) is not None


def test_an_attempt_whose_directory_was_removed_was_not_taken_over(store):
    mine = claim(store.trial("abc"))
    assert not mine.removed()
    shutil.rmtree(store.trial("abc"))
    assert mine.removed() and not mine.superseded()


def test_a_clock_stands_still_in_suspensions(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(_last=now[0])
    for passed in (0.5, 0.5, 3600.0, 0.5):
        now[0] += passed
        read = clock.seconds()
    assert read == 0.5 + 0.5 + 5.0 + 0.5
