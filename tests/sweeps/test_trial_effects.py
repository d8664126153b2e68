"""What a trial does to its own process and directory: it ends with the trial, or is told."""

import gc
import os
import sys
import types
import weakref

from process_tools import wanted

from paramz.sweeps import Store, Sweep, load, run
from paramz.sweeps.running.pool import Pool
from paramz.sweeps.running.process import Assignment
from paramz.sweeps.running.runner import prepare
from paramz.sweeps.running.stopping import Stop
from paramz.sweeps.running.worker import Tidy


def test_a_trial_that_removes_its_directory_has_failed(tmp_path):
    what = ["nothing", "directory", "directory, made again", "directory, then fails"]
    table = run(wanted("removing", axes={"what": what}), tmp_path / "run", workers=1)
    table = table.set_index("what").loc[what]
    assert table["status"].tolist() == ["ok", "failed", "failed", "failed"]
    for error in table["error"][1:]:
        assert error.startswith("the directory of the trial was removed while it ran")


def test_what_a_trial_changes_for_its_process_ends_with_it(tmp_path, monkeypatch):
    """The first trial finds torch not yet imported, the last imports nothing."""
    monkeypatch.setenv("LAB_FOLDER", os.getcwd())
    sweep = wanted("changing", axes={"changes": [True, False]}, resources={"cpus": 1})
    first = [key for key, config in sweep.trials.items() if config["changes"]]
    store = Store(tmp_path / "run")
    given = prepare(sweep, store)
    order = sorted(given, key=lambda key: key not in first)
    pool = Pool(store, sweep.train, workers=1)
    pool.run([Assignment(key, given[key]) for key in order], Stop())
    table = load(tmp_path / "run").set_index("changes")
    assert (table["status"] == "ok").all(), table["error"].tolist()
    found = table.drop(columns=["key", "error", "seconds"])
    assert found.loc[False].to_dict() == found.loc[True].to_dict()
    assert found.loc[False, "dtype"] == 4 and found.loc[False, "threads"] == 1


def test_what_an_import_prints_is_not_on_stdout(tmp_path, capfd):
    """There the command line writes one document of JSON."""
    source = "print('loud')\ndef train(config):\n    return {'loss': 1.0}\n"
    (tmp_path / "loud.py").write_text(source)
    run(Sweep(train=f"{tmp_path}/loud.py:train"), tmp_path / "run")
    out, err = capfd.readouterr()
    assert out == "" and "loud" in err


def test_whatever_a_trial_raises_leaves_a_traceback(tmp_path):
    (row,) = run(wanted("raising"), tmp_path / "run").to_dict("records")
    assert (row["status"], row["error"]) == ("failed", "KeyboardInterrupt: by hand")
    assert "raise KeyboardInterrupt" in Store(tmp_path / "run").read(row["key"])["traceback"]


def test_numbers_of_numpy_are_numbers(tmp_path):
    (row,) = run(wanted("numbered"), tmp_path / "run").to_dict("records")
    assert (row["status"], row["loss"]) == ("ok", 0.5)


class Cycle:
    """What only a collection frees."""

    def __init__(self):
        self.itself = self


def test_what_a_trial_leaves_behind_is_collected_though_modules_are_set_aside(monkeypatch):
    tidy, kept = Tidy(), Cycle()
    was_kept = weakref.ref(kept)
    gc.disable()
    try:
        for brings in ("made_up_one", None, "made_up_two"):
            if brings:
                monkeypatch.setitem(sys.modules, brings, types.ModuleType(brings))
            left = weakref.ref(Cycle())
            tidy()
            assert left() is None and gc.get_freeze_count() > 1000
            kept = None  # from the second time on it is garbage that was set aside
        assert was_kept() is None
    finally:
        gc.unfreeze()
        gc.enable()
