"""Tables and verbs that say what is true: no column replaced, nothing shown that is not asked for,
nothing deleted that may be wanted, and readers who may not write."""

import errno
import json
import os
import shutil
import time

import pandas as pd
import pytest
from typer.testing import CliRunner

from paramz.analysis.report import write_report
from paramz.cli import app
from paramz.sweeps import Store, load, run
from paramz.sweeps.spec.config import config_key
from paramz.sweeps.store import attempt as attempts
from paramz.sweeps.store.attempt import STALE, claim, holder


def record(config, metrics=None, **other):
    fields = {"key": config_key(config), "status": "ok", "error": None, "config": config}
    return fields | {"metrics": metrics or {"loss": 1.5}, "seconds": 2.0} | other


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "run").create()


def kept(store, *records):
    for one in records:
        assert store.save(one)
    store.set_trials({one["key"]: one["config"] for one in records})
    return load(store.root)


@pytest.mark.parametrize("name", ["key", "status", "error", "seconds", "asked"])
def test_a_config_value_and_a_metric_never_replace_a_column_of_the_table(store, name):
    (row,) = kept(store, record({name: 7}, {"loss": 1.0, name: 8})).to_dict("records")
    assert row[f"config.{name}"] == 7 and row[f"metric.{name}"] == 8
    assert row["status"] == "ok" and row["seconds"] == 2.0 and row["error"] is None


def test_a_metric_called_like_the_config_value_of_another_trial_has_its_own_column(store):
    table = kept(
        store,
        record({"optimizer": "sgd", "momentum": 0.9}),
        record({"optimizer": "adam"}, {"loss": 1.0, "momentum": 5.0}),
    ).set_index("optimizer")
    assert table.loc["sgd", "momentum"] == 0.9 and pd.isna(table.loc["adam", "momentum"])
    assert table.loc["adam", "metric.momentum"] == 5.0


def test_even_a_prefixed_name_replaces_nothing(store):
    config = {"lr": 1, "metric.lr": 2, "config": {"key": 3}, "key": 4}
    (row,) = kept(store, record(config, {"loss": 1.0, "lr": 5})).to_dict("records")
    values = [v for v in row.values() if v in (1, 2, 3, 4, 5) and not isinstance(v, bool)]
    assert sorted(set(values)) == [1, 2, 3, 4, 5]


@pytest.fixture
def narrowed(sweep, tmp_path):
    """A sweep whose axis lost one of three values after all had run."""
    axes = {"width": [32, 64, 128], "lr": {"log2": [-4, -2]}}
    run(sweep("train", axes=axes), tmp_path / "run", workers=1)
    run(sweep("train", axes=axes | {"width": [32, 64]}), tmp_path / "run")
    return tmp_path / "run"


def test_results_that_are_no_longer_asked_for_are_counted_alike_by_all_verbs(narrowed):
    said = call("status", narrowed).stdout
    assert "6 trials: 6 ok" in said
    assert "3 results are of values that the sweep no longer asks for, and left out" in said
    assert json.loads(call("status", narrowed, "--json").stdout)["unasked"] == 3
    collected = call("collect", narrowed).stdout
    assert collected.startswith("6 trials in") and "3 results are of values" in collected
    assert sorted(set(pd.read_csv(narrowed / "results.csv")["width"])) == [32, 64]
    whole = json.loads(call("collect", narrowed, "--all", "--json").stdout)
    assert whole["rows"] == 9 and whole["left_out"] == 0
    table = pd.read_csv(narrowed / "results.csv")
    assert table.loc[table["width"] == 128, "asked"].tolist() == [False] * 3
    assert len(load(narrowed)) == 6 and len(load(narrowed, unasked=True)) == 9
    page = write_report(narrowed).path.read_text()
    assert "6 finished trials" in page and "3 results are of values that the sweep" in page


def test_without_the_list_of_trials_every_result_counts_and_that_is_said(narrowed):
    (narrowed / "trials.jsonl").unlink()
    said = call("status", narrowed).stdout
    assert "9 trials: 9 ok" in said and "trials.jsonl is missing" in said
    assert len(load(narrowed)) == 9


@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "a round"])
def test_prune_refuses_when_it_does_not_know_what_is_wanted(narrowed, damage):
    path = narrowed / "trials.jsonl"
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_text("")
    elif damage == "torn":
        path.write_text(path.read_text()[:-20])
    else:
        (narrowed / "refined-2.jsonl").write_text(path.read_text().splitlines()[0] + "\n")
    before = sorted(narrowed.rglob("*"))
    said = call("prune", narrowed, "--yes", "--checkpoints")
    assert said.exit_code == 2 and said.stderr.startswith("error: ")
    name = "refined-1.jsonl" if damage == "a round" else "trials.jsonl"
    assert name in said.stderr and sorted(narrowed.rglob("*")) == before


def test_prune_leaves_a_trial_that_a_process_is_running(narrowed):
    folder = Store(narrowed).trial("0" * 16)
    claim(folder)
    call("prune", narrowed, "--yes")
    assert folder.exists() and len(load(narrowed, unasked=True)) == 6


def other_host(path, age):
    text = json.loads(path.read_text()) | {"host": "elsewhere", "pid": 1}
    path.write_text(json.dumps(text))
    os.utime(path, (time.time() - age,) * 2)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["touch", "unlink"])
def test_whoever_cannot_write_sees_that_an_attempt_is_dead(store, monkeypatch, step, code):
    folder = store.trial("abc")
    mine = claim(folder)

    def refused(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(attempts.Path, step, refused)
    other_host(mine.path, STALE + 60)
    assert holder(folder) is None
    other_host(mine.path, 1)
    assert holder(folder)["host"] == "elsewhere"


def sweep_of_four_widths(store):
    """A finished sweep whose optimum and loss follow laws, and one trial that has not run."""
    found = [
        record({"width": w, "lr": 2.0**k, "seed": s}, {"loss": loss})
        for w in (32, 64, 128, 256)
        for k in range(-7, -2)
        for s in (0, 1)
        for loss in [1 + 2 / w**0.5 + 0.1 * (k + 5) ** 2 + 0.001 * s]
    ]
    kept(store, *found)
    missing = {config_key({"width": 512}): {"width": 512}}
    store.set_trials({one["key"]: one["config"] for one in found} | missing)
    return store.root


# Arguments after the directory, exit code, what is said and what could not be done.
READERS = {
    "status": ([], 0, "41 trials: 39 ok", ""),
    "watch": ([], 0, "39 ok", ""),
    "logs": ([], 0, "no failed trials", ""),
    "prune": ([], 0, "nothing to prune", ""),
    "fit": (["--predict", "width=1024", "--hold", "0"], 0, "width", ""),
    "report": ([], 2, "Best lr", "transfer.png"),
    "collect": ([], 2, "", "results.csv"),
    "retry": ([], 2, "", "may not write there"),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_every_reading_verb_works_for_a_user_who_may_not_write(store, tmp_path, monkeypatch):
    """It says what it could not write, and writes it where it may (--out)."""
    folder, elsewhere = sweep_of_four_widths(store), tmp_path / "elsewhere"
    (folder / "spec.yaml").write_text("train: json:loads\n")
    shutil.rmtree(folder / "index")
    elsewhere.mkdir()
    for verb, (options, *_) in READERS.items():
        if verb != "retry":  # imports what it needs, which the other user may not read
            call(verb, folder, *options)
    for made in ("report.html", "results.csv", *(p.name for p in folder.glob("*.png"))):
        (folder / made).unlink()
    shutil.rmtree(folder / "index", ignore_errors=True)
    victim = store.result(min(store.trials()))
    victim.write_text("{")
    before = sorted(folder.rglob("*"))
    for place in (folder, *folder.parents):
        if len(place.parts) > 2:
            place.chmod(0o755)
    elsewhere.chmod(0o777)
    os.seteuid(65534)
    try:
        said = {verb: call(verb, folder, *rest[0]) for verb, rest in READERS.items()}
        for verb, out in (("report", elsewhere), ("collect", elsewhere / "t.csv")):
            said[f"{verb} elsewhere"] = call(verb, folder, "--out", out)
    finally:
        os.seteuid(0)
    for verb, done in said.items():
        _, code, text, refused = READERS.get(verb, (0, 0, "", ""))
        assert done.exit_code == code, (verb, done.output, done.exception)
        assert text in done.stdout, (verb, done.output)
        if refused:
            assert refused in done.stderr and "may not write there" in done.stderr, done.stderr
        if verb not in ("retry", "prune"):
            assert f"warning: {victim}: it is not complete JSON; it cannot be" in done.stderr, verb
    assert sorted(folder.rglob("*")) == before
    assert len(pd.read_csv(elsewhere / "t.csv")) == 39 and (elsewhere / "report.html").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 99}, "it has format 99 of a later version; this one reads 1"),
        ({"format": "x"}, "its format is 'x'"),
        ({"metrics": []}, "its metrics are not a mapping"),
        ({"metrics": {"loss": [1]}}, r"its metric 'loss' is \[1\], which is no number"),
        ({"metrics": {"loss": "low"}}, "its metric 'loss' is 'low', which is no number"),
        ({"metrics": {"loss": None}}, "its metric 'loss' is None"),
        ({"metrics": {"loss": True}}, "its metric 'loss' is True"),
        ({"error": 3}, "its error is not a text"),
        ({"seconds": "long"}, "its seconds are 'long'"),
        ({"config": [1]}, "its config is not a mapping"),
        ({"code": "abc"}, "its code is not a mapping"),
        ({"status": "done"}, "it is not a result of the trial"),
    ],
)
def test_a_result_of_wrong_types_breaks_no_reader(store, change, reason):
    good, bad = record({"lr": 1}, format=1), record({"lr": 2}, format=1) | change
    store.save(good)
    store.result(config_key({"lr": 2})).write_text(json.dumps(bad))
    store.set_trials({config_key({"lr": n}): {"lr": n} for n in (1, 2)})
    with pytest.warns(UserWarning, match=reason):
        assert len(load(store.root)) == 1
    later = "later version" in reason
    assert store.result(config_key({"lr": 2})).exists() == later  # kept for that version
    said = call("status", store.root)
    assert said.exit_code == 0 and "1 ok" in said.stdout


def test_a_broken_list_of_trials_is_one_message(store):
    (store.root / "trials.jsonl").write_text('{"key": "a", "config": {}}\n{"key": "b"}\n')
    for verb in ("status", "watch", "logs", "collect", "prune", "retry", "cancel"):
        said = call(verb, store.root)
        assert said.exit_code == 2 and "trials.jsonl:2: not a trial with key" in said.stderr, verb
