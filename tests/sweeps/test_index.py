"""The index says what the files say, whatever happened to it, and beside any number of writers."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from paramz.sweeps import Store, load
from paramz.sweeps.spec.config import config_key
from paramz.sweeps.store import index as indexes
from paramz.sweeps.store import log
from paramz.sweeps.store.index import read_index
from paramz.sweeps.store.status import status


def record(n, status="ok", loss=None, **other):
    config = {"n": n}
    fields = {"key": config_key(config), "status": status, "error": None, "config": config}
    return fields | {"metrics": {"loss": n if loss is None else loss}, "seconds": 1.0} | other


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "run").create()
    made.set_trials({config_key({"n": n}): {"n": n} for n in range(40)})
    for n in range(20):
        made.save(record(n, traceback="long " * 100))
    return made


@pytest.fixture(params=[20_000, 0], ids=["every file is compared", "as in a large store"])
def _checked(request, monkeypatch):
    monkeypatch.setattr(indexes, "CHECKED", request.param)
    monkeypatch.setattr(indexes, "_SETTLED", -(10**18))  # the clock's tick does not matter here


pytestmark = pytest.mark.usefixtures("_checked")


def truth(store):
    """What the files say, read one by one."""
    return {key: found["metrics"]["loss"] for key in store.finished() if (found := store.read(key))}


def shown(store):
    counts = status(store).counts
    table = load(store.root)
    found = dict(zip(table["key"], table["loss"], strict=True))
    assert sum(counts[name] for name in ("ok", "failed", "diverged", "stopped")) == len(found)
    return found


def test_results_are_read_from_their_lines_and_not_from_their_files(store, monkeypatch):
    monkeypatch.setattr(Store, "read", lambda *_: pytest.fail("a file was read"))
    assert len(load(store.root)) == 20 and status(store).counts["ok"] == 20
    assert all("traceback" not in found for found in store.records())


@pytest.mark.parametrize("looks", [0, 1, 2])
@pytest.mark.parametrize(
    "damage",
    ["no index", "no log", "torn line", "nul bytes", "garbage", "repeated", "shorter", "snapshot"],
)
def test_whatever_happened_to_the_index_the_files_decide(store, damage, looks):
    for _ in range(looks):
        shown(store)
    path = store.root / "index" / log.log_name()
    content = path.read_bytes()
    match damage:
        case "no index":
            shutil.rmtree(path.parent)
        case "no log":
            path.unlink()
        case "torn line":
            path.write_bytes(content[: len(content) // 2])
        case "nul bytes":
            path.write_bytes(content[:300] + b"\0" * 400 + content[700:])
        case "garbage":
            path.write_bytes(b'{"id": [1], "record": 3}\n[]\n\xff\n{"retired": 1}\n' + content)
        case "repeated":
            path.write_bytes(content * 2)
        case "shorter":
            path.write_bytes(content[:-1])
        case "snapshot":
            (path.parent / "snapshot.npz").write_bytes(b"PK\x03\x04 no archive")
    store.save(record(30))
    assert shown(store) == truth(store) and len(truth(store)) == 21
    assert shown(store) == truth(store)


def test_results_that_were_removed_or_put_aside_are_gone(store):
    shown(store)
    store.result(config_key({"n": 3})).unlink()
    store.retire(config_key({"n": 4}))
    assert shown(store) == truth(store) and len(truth(store)) == 18


@pytest.mark.parametrize("logged", [True, False], ids=["with its line", "whose line was lost"])
def test_a_result_that_replaces_one_put_aside_is_shown(store, logged, monkeypatch):
    shown(store)
    store.retire(config_key({"n": 4}))
    if not logged:
        monkeypatch.setattr("paramz.sweeps.store.store.append", lambda *_: False)
    store.save(record(4, loss=44))
    monkeypatch.undo()
    assert shown(store)[config_key({"n": 4})] == 44


def test_a_reader_who_may_not_write_sees_the_same(store, monkeypatch):
    shutil.rmtree(store.root / "index")
    monkeypatch.setattr(indexes, "append", lambda *_: False)
    assert shown(store) == truth(store) and not (store.root / "index").exists()


def test_every_machine_has_a_log_of_its_own(store, monkeypatch):
    for n, name in ((21, "a-1.jsonl"), (22, "b-1.jsonl"), (23, "a-1.jsonl")):
        monkeypatch.setattr(log, "log_name", lambda name=name: name)
        store.save(record(n))
    assert {p.name for p in (store.root / "index").glob("*.jsonl")} >= {"a-1.jsonl", "b-1.jsonl"}
    monkeypatch.setattr(Store, "read", lambda *_: pytest.fail("a file was read"))
    assert len(load(store.root)) == 23


def test_a_store_of_before_without_an_index_is_read(store):
    shutil.rmtree(store.root / "index")
    assert shown(store) == truth(store)
    lines = (store.root / "index" / log.log_name()).read_text().splitlines()
    assert len(lines) == 20


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_index import record
from paramz.sweeps import Store
store = Store(Path(sys.argv[1]))
for n in range(100):
    assert store.save(record(1000 * int(sys.argv[2]) + n))
"""


def test_it_is_right_beside_many_writers(store):
    here = os.path.dirname(__file__)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(store.root), str(n), here])
        for n in (1, 2, 3)
    ]
    (store.root / "trials.jsonl").unlink()  # every result counts
    before = 0
    while any(writer.poll() is None for writer in writers):
        found = shown_keys(store)
        assert before <= len(found) <= 320
        before = len(found)
    assert all(writer.returncode == 0 for writer in writers)
    assert len(shown_keys(store)) == 320 == len(truth(store)) and shown(store) == truth(store)


def shown_keys(store):
    return read_index(store.root, store.read).rows["key"].tolist()


def test_a_result_changed_by_hand_is_noticed_in_a_small_store(store):
    shown(store)
    path = store.result(config_key({"n": 4}))
    path.write_text(json.dumps(record(4, loss=44.5)))
    if indexes.CHECKED:
        assert shown(store)[path.stem] == 44.5
    shutil.rmtree(store.root / "index")
    assert shown(store)[path.stem] == 44.5
