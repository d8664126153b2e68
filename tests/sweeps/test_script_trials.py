"""Scripts that do not import paramz, as the trials of a sweep."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from process_tools import runs, wait_for

from paramz.sweeps import Sweep, load, run
from paramz.sweeps.running.command import words_of
from paramz.sweeps.running.events import LevelLog
from paramz.sweeps.running.launcher import Options
from paramz.sweeps.running.runner import prepare, run_missing
from paramz.sweeps.running.stopping import Stop
from paramz.sweeps.running.tail import CsvRows, Lines
from paramz.sweeps.running.trial import Trial
from paramz.sweeps.spec.code import code_of
from paramz.sweeps.spec.yamlfile import SpecError
from paramz.sweeps.store.merge import merge
from paramz.sweeps.store.store import Store

SCRIPT = Path(__file__).parent / "train_script.py"
CSV = {"file": "{trial.directory}/log.csv", "step": "iter", "loss": "val loss"}
PARAMZ = [sys.executable, "-c", "from paramz.cli import main; main()"]


def script(*more, metrics=CSV, axes=None, **rest):
    words = ["python", str(SCRIPT), "--out", "{trial.directory}", *more]
    return Sweep(command=words, metrics=metrics, axes=axes or {}, **rest)


def history(root):
    (path,) = root.glob("trials/*/history.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_script_with_a_csv_log_is_swept(tmp_path):
    axes = {"width": [64, 128], "lr": [0.01, 2**-6]}
    sweep = script("--n-embd", "{width}", "--lr={lr}", axes=axes)
    table = run(sweep, tmp_path / "run", workers=2)
    assert (table.status == "ok").all()
    assert table.set_index(["width", "lr"]).loss[64, 2**-6] == pytest.approx(2 + 3 / 5 + 8 / 64)
    assert table["file.loss"].tolist() == pytest.approx(table.loss + 1)
    store = Store(tmp_path / "run")
    key = table.key[0]
    log = (store.trial(key) / "log.txt").read_text()
    assert log.startswith(f"$ {sys.executable} {SCRIPT} --out")
    lines = (store.trial(key) / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3, 4]


def test_a_command_runs_in_the_folder_that_its_spec_names(tmp_path):
    (tmp_path / "specs").mkdir()
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "train.py").write_text("import os\nprint('loss', 1, os.getcwd())")
    spec = tmp_path / "specs" / "here.yaml"
    spec.write_text(
        "command: [python, train.py]\ncwd: ../lab\nmetrics: {pattern: 'loss (?P<loss>.)'}\n"
    )
    (row,) = run(Sweep.from_yaml(spec), tmp_path / "run").to_dict("records")
    assert (row["status"], row["loss"]) == ("ok", 1)
    spec.write_text("train: lab:train\ncwd: lab\n")
    with pytest.raises(SpecError, match="cwd is for a command"):
        Sweep.from_yaml(spec)


@pytest.mark.parametrize(
    ("log", "metrics"),
    [
        ("json", {"file": "{trial.directory}/*.jsonl", "loss": "val.loss"}),
        ("print", {"pattern": r"iter (?P<iter>\d+): loss (?P<loss>\S+),", "step": "iter"}),
        (
            "tensorboard",
            {"file": "{trial.directory}/tb", "format": "tensorboard", "loss": "val/loss"},
        ),
        ("wandb", {"file": "{trial.directory}/wandb", "loss": "val/loss"}),
    ],
)
def test_metrics_are_read_from_every_kind_of_log(tmp_path, log, metrics):
    (row,) = run(script("--log", log, metrics=metrics), tmp_path / "run").to_dict("records")
    assert (row["status"], row["error"]) == ("ok", None)
    assert row["loss"] == pytest.approx(2 + (6.6439 - 6) ** 2 / 10 + 3 / 5 + 8 / 64, abs=1e-3)
    lines = history(tmp_path / "run")
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert all("loss" in line for line in lines)


def test_the_result_may_be_the_mean_of_the_last_losses(tmp_path):
    (row,) = run(script(metrics={**CSV, "average": 2}), tmp_path / "run").to_dict("records")
    assert row["loss"] == pytest.approx(2 + 0.041465 + (3 / 4 + 3 / 5) / 2 + 8 / 64, abs=1e-4)


def test_a_loss_that_diverges_ends_the_command(tmp_path):
    began = time.monotonic()
    (row,) = run(script("--fail", "diverges"), tmp_path / "run").to_dict("records")
    assert (row["status"], row["error"]) == ("diverged", "loss nan at step 2")
    assert time.monotonic() - began < 60


def test_a_command_whose_trial_ends_takes_along_what_it_has_started(tmp_path):
    sweep = script("--fail", "child", "--pause", "1", loss_limit=0.1)
    (row,) = run(sweep, tmp_path / "run").to_dict("records")
    assert row["status"] == "diverged"
    (child,) = (tmp_path / "run").glob("trials/*/child")
    wait_for(lambda: not runs(int(child.read_text())))


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (["--fail", "raises"], "exit code 1: .*ValueError: a bad batch"),
        (["--fail", "killed"], r"killed by SIGKILL \(out of memory\?\)"),
        (["--no-such-flag"], "exit code 2: .*unrecognized arguments: --no-such-flag"),
        (["--steps", "0"], "left no metric 'val loss' in .*log.csv: no such file"),
        (["--log", "json"], "left no metric 'val loss' in .*log.csv: no such file"),
    ],
)
def test_a_command_that_fails_says_why(tmp_path, more, error):
    (row,) = run(script(*more), tmp_path / "run").to_dict("records")
    assert row["status"] == "failed"
    assert re.search(error, row["error"]), row["error"]


def test_slurm_s_warning_which_every_process_gets_does_not_end_a_command(tmp_path):
    words = "import os; os.kill(os.getpid(), 12); print('loss 2.5')"
    sweep = Sweep(command=["python", "-c", words], metrics={"pattern": r"loss (?P<loss>\S+)"})
    assert signal.SIGUSR2 == 12
    (row,) = run(sweep, tmp_path / "run").to_dict("records")
    assert (row["status"], row["loss"]) == ("ok", 2.5), row["error"]


def test_a_missing_column_names_those_that_are_there(tmp_path):
    sweep = script(metrics={**CSV, "loss": "valloss"})
    (row,) = run(sweep, tmp_path / "run").to_dict("records")
    assert "no metric 'valloss' in" in row["error"]
    assert "which has iter, loss, val loss" in row["error"]


def test_a_program_that_does_not_exist_fails_the_trial(tmp_path):
    sweep = Sweep(command=["no-such-program"], metrics={"pattern": "(?P<loss>.)"})
    (row,) = run(sweep, tmp_path / "run").to_dict("records")
    assert row["status"] == "failed" and "no-such-program cannot be run in" in row["error"]


def test_an_interrupted_command_saves_and_is_resumed(tmp_path):
    hold = tmp_path / "hold"
    hold.touch()
    resume = ["--resume", "{trial.directory}/ckpt.json"]
    sweep = script("--steps", "6", "--hold", str(hold), resume=resume)
    store = Store(tmp_path / "run")
    stop = Stop()

    def interrupt():
        wait_for(lambda: list(store.root.glob("trials/*/history.jsonl")))
        stop.request()

    threading.Thread(target=interrupt, daemon=True).start()
    tally = run_missing(sweep, store, Options(workers=1, stop=stop))
    assert tally.left == 1 and not tally.saved
    hold.unlink()
    (row,) = run(sweep, store.root).to_dict("records")
    assert row["status"] == "ok"
    steps = [line["step"] for line in history(store.root)]
    assert steps == list(range(6))  # none twice: it went on from its checkpoint
    log = next(store.root.glob("trials/*/log.txt")).read_text()
    assert "saved, good bye" in log and log.count("--resume") == 1


def test_resume_words_wait_for_the_checkpoint_that_they_name(tmp_path):
    sweep = script(resume="--resume {trial.directory}/ckpt.json")
    again = Trial(tmp_path, "k", attempt=2)
    assert "--resume" not in words_of(sweep.as_command, {}, again)
    (tmp_path / "ckpt.json").write_text("{}")
    assert words_of(sweep.as_command, {}, again)[-2:] == ["--resume", f"{tmp_path}/ckpt.json"]
    assert "--resume" not in words_of(sweep.as_command, {}, Trial(tmp_path, "k", attempt=1))


def test_what_was_in_the_log_before_the_trial_is_not_its_result(tmp_path):
    (tmp_path / "old.csv").write_text("iter,val loss\n0,0.001\n")
    sweep = script(metrics={**CSV, "file": str(tmp_path / "old.csv")})
    (row,) = run(sweep, tmp_path / "run").to_dict("records")
    assert row["status"] == "failed" and "left no metric" in row["error"]


def write_spec(folder, text):
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


GOOD = "metrics: {file: '{trial.directory}/log.csv'}\naxes: {width: [1, 2], lr: [1]}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "command: a {widht} {lr}", r"{widht} is no value of a config; known are lr, trial"),
        (GOOD + "command: a {width}", "the axis 'lr' does not reach the command, so its trials"),
        (GOOD + "command: 'a \"b'", "command: .* cannot be split into words: No closing quotation"),
        (GOOD + "command: []", "command"),
        (GOOD + "command: a {lr} {width}\ntrain: a.py:b", "no file a.py"),
        (GOOD, "give train .* or command"),
        ("command: a", "metrics is missing: where does the command leave its loss"),
        ("command: a\nmetrics: {pattern: '('}", "no regular expression"),
        ("command: a\nmetrics: {pattern: 'x'}", "pattern has no group called 'loss'"),
        ("command: a\nmetrics: {file: x.log}", "what is 'x.log'.* give format"),
        ("command: a\nmetrics: {file: '{trial.directory}/history.jsonl'}", "written by paramz"),
        ("command: a\nmetrics: {}", "give either file .* or pattern"),
        (
            "command: a {w} {lr}\nmetrics: {file: 'out/{lr}.csv'}\naxes: {lr: [1, 2], w: [1, 2]}",
            "file 'out/{lr}.csv' is one for all values of w, so that trials which run at once",
        ),
    ],
)
def test_mistakes_in_a_command_are_found_when_the_spec_is_read(tmp_path, text, message):
    path = write_spec(tmp_path, text)
    with pytest.raises(SpecError, match=message):
        Sweep.from_yaml(path)


def test_logs_that_are_told_apart_by_the_axes_are_taken():
    metrics = {"file": "out/{lr}-{seed}.csv"}
    axes = {"lr": [1, 2], "seed, x": [[1, 2], [3, 4]], "w": [7]}
    assert Sweep(command="a {lr} {seed} {x} {w}", metrics=metrics, axes=axes)


def test_words_are_never_seen_by_a_shell(tmp_path):
    path = write_spec(
        tmp_path,
        'command: \'echo "{text}" {{text}} {"a":1} ; rm -rf $HOME\'\n'
        "metrics: {pattern: '(?P<loss>x)'}\naxes: {text: ['a b; $(x)']}\n",
    )
    words = words_of(Sweep.from_yaml(path).as_command, {"text": "a b; $(x)"}, Trial(tmp_path))
    assert words == ["echo", "a b; $(x)", "{text}", "{a:1}", ";", "rm", "-rf", "$HOME"]


def test_an_edited_script_is_other_code_and_a_moved_one_is_not(tmp_path):
    path = tmp_path / "train.py"
    path.write_text("import helper\n")
    (tmp_path / "helper.py").write_text("a = 1\n")
    spec = write_spec(tmp_path, "command: python train.py\nmetrics: {pattern: '(?P<loss>.)'}\n")

    def source(spec):
        return code_of(Sweep.from_yaml(spec).target, {})["source"]

    before = source(spec)
    (tmp_path / "helper.py").write_text("a = 2\n")
    assert source(spec) != before
    (tmp_path / "helper.py").write_text("a = 1\n")
    assert source(spec) == before
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert source(moved / "spec.yaml") == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("run.sh", ["bash", "run.sh"]),
        ("gpt.yaml", ["python", "train.py", "--config=gpt.yaml"]),
        ("train.py", ["sh", "-c", "cd {trial.directory} && exec python3 $OLDPWD/train.py"]),
        ("train.py", ["sh", "-c", "python3 'train.py' --lr 1"]),
    ],
)
def test_files_that_the_words_name_are_part_of_the_code(tmp_path, name, words):
    (tmp_path / "train.py").write_text("a = 1\n")
    (tmp_path / name).write_text("a: 1\n")
    text = f"command: {json.dumps(words)}\nmetrics: {{pattern: '(?P<loss>.)'}}\n"
    spec = write_spec(tmp_path, text.replace("$OLDPWD", str(tmp_path)))
    before = code_of(Sweep.from_yaml(spec).target, {})["source"]
    (tmp_path / name).write_text("a: 2\n")
    assert code_of(Sweep.from_yaml(spec).target, {})["source"] != before


def test_results_of_another_command_line_are_told_of(tmp_path):
    run(script(), tmp_path / "run")
    with pytest.warns(UserWarning, match="1 result is of other code than python .*--steps 6 is"):
        prepare(script("--steps", "6"), Store(tmp_path / "run"))


def test_shares_of_a_command_can_be_merged(tmp_path):
    sweep = script("--lr", "{lr}", axes={"lr": [0.01, 0.02]})
    run(sweep, tmp_path / "a")
    run(sweep, tmp_path / "b")
    merge(Store(tmp_path / "all"), [Store(tmp_path / "a"), Store(tmp_path / "b")])
    assert len(load(tmp_path / "all")) == 2


def test_the_command_line_runs_a_command_and_shows_it_beforehand(tmp_path):
    spec = write_spec(
        tmp_path,
        f"command: [python, {SCRIPT}, --lr, '{{lr}}', --out, '{{trial.directory}}']\n"
        "metrics: {file: '{trial.directory}/log.csv', loss: val loss}\naxes: {lr: [0.01]}\n",
    )
    out = str(tmp_path / "run")
    shown = subprocess.run([*PARAMZ, "sweep", spec, "--out", out, "--dry-run"], capture_output=True)
    assert shown.stdout.decode().startswith(f"python {SCRIPT} --lr '{{lr}}'")
    assert subprocess.run([*PARAMZ, "sweep", spec, "--out", out]).returncode == 0
    assert len(load(out)) == 1


def test_lines_of_a_file_that_is_written_anew_are_read_from_its_start(tmp_path):
    path = tmp_path / "log.csv"
    rows = CsvRows(Lines(str(path)))
    assert rows() == []
    path.write_text("step;loss\n1;2\n2;")
    assert rows() == [{"step": 1, "loss": 2}]
    path.write_text("step;loss\n1;2\n2;3\n")
    assert rows() == [{"step": 2, "loss": 3}]
    path.write_text("step,x\n7,8\n")
    assert rows() == [{"step": 7, "x": 8}]
    os.utime(path, (1, 1))
    (tmp_path / "log2.csv").write_text("step\tloss\n1\tnan\n")
    rows = CsvRows(Lines(str(tmp_path / "log*.csv")))
    assert str(rows()) == "[{'step': 1.0, 'loss': nan}]"


def test_records_across_blocks_are_put_together(tmp_path):
    whole = [os.urandom(10), os.urandom(70_000), os.urandom(5)]
    content = bytearray(b":W&B\x00\x00\x00")
    for record in whole:
        left, first = record, True
        while left or first:
            room = 32768 - len(content) % 32768
            if room < 7:
                content += bytes(room)
                continue
            part, left = left[: room - 7], left[room - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}
            content += b"\0\0\0\0" + len(part).to_bytes(2, "little")
            content.append(kind[first, not left])
            content += part
            first = False
    path = tmp_path / "run.wandb"
    log = LevelLog(path)
    path.write_bytes(content[:40_000])
    assert list(log.records()) == whole[:1]
    path.write_bytes(content)
    assert list(log.records()) == whole[1:]
    assert list(log.records()) == []
    log._at = 1 << 28  # far into a large log, of which only what is new is read
    with open(path, "r+b") as file:
        file.seek(log._at)
        file.write(b"\0\0\0\0\2\0\1ab")
    tracemalloc.start()
    assert list(log.records()) == [b"ab"]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20


@pytest.mark.parametrize(
    ("name", "ends", "metrics"),
    [
        ("log.jsonl", '{"loss": 3}\n{"loss": 2}', {"file": "{trial.directory}/log.jsonl"}),
        ("log.csv", "loss\n3\n2", {"file": "{trial.directory}/log.csv"}),
        ("all.json", '{\n "loss": 2,\n "note": "x"\n}', {"file": "{trial.directory}/all.json"}),
        ("", "loss 3\nloss 2", {"pattern": r"loss (?P<loss>\S+)"}),
    ],
)
def test_a_last_line_without_an_end_is_the_result(tmp_path, name, ends, metrics):
    write = "print(end=sys.argv[2])"
    if name:
        write = f"open(sys.argv[1] + '/{name}', 'w').write(sys.argv[2])"
    sweep = Sweep(
        command=["python", "-c", f"import sys; {write}", "{trial.directory}", ends],
        metrics=metrics,
    )
    (row,) = run(sweep, tmp_path / "run").to_dict("records")
    assert (row["status"], row["loss"]) == ("ok", 2.0), row["error"]


def test_metrics_that_are_written_over_those_of_before_are_the_result(tmp_path):
    words = (
        "import json, sys, time\n"
        "for loss in (0.5, 0.3, 0.1):\n"
        "    with open(sys.argv[1] + '/now.json', 'w') as file:\n"
        "        file.write(json.dumps({'loss': loss}) + '\\n')\n"
        "    time.sleep(0.5)\n"
    )
    sweep = Sweep(
        command=["python", "-c", words, "{trial.directory}"],
        metrics={"file": "{trial.directory}/now.json"},
    )
    (row,) = run(sweep, tmp_path / "run").to_dict("records")
    assert (row["status"], row["loss"]) == ("ok", 0.1), row["error"]
    assert [line["loss"] for line in history(tmp_path / "run")][-1] == 0.1


def test_a_log_that_is_written_again_with_more_lines_goes_on_where_it_was(tmp_path):
    path = tmp_path / "log.csv"
    rows = CsvRows(Lines(str(path)))
    path.write_text("step,loss\n1,2\n")
    assert rows() == [{"step": 1, "loss": 2}]
    path.unlink()
    path.write_text("step,loss\n1,2\n2,3\n3,4")  # as pandas writes a whole table each time
    assert rows() == [{"step": 2, "loss": 3}]
    assert rows(True) == [{"step": 3, "loss": 4}]
    path.write_text("step,loss\n1,9\n2,9\n")
    assert rows() == [{"step": 1, "loss": 9}, {"step": 2, "loss": 9}]


def test_a_line_that_was_there_before_is_no_result_though_it_has_no_end(tmp_path):
    (tmp_path / "old.json").write_text('{"val loss": 0.001}')
    sweep = script(metrics={"file": str(tmp_path / "old.json"), "loss": "val loss"})
    (row,) = run(sweep, tmp_path / "run").to_dict("records")
    assert row["status"] == "failed" and "left no metric" in row["error"]
