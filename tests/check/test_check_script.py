"""Coordinate checks of users' own scripts, through paramz.record."""

import json
import re
import subprocess
import sys
from pathlib import Path

import check_script
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import paramz
from paramz.check.callback import FOLDER, STEPS
from paramz.check.jobs import Check
from paramz.check.script import gather_script, script_sweep
from paramz.cli import app
from paramz.sweeps import Store
from paramz.sweeps.running.command import words_of
from paramz.sweeps.running.trial import Trial

SCRIPT = Path(check_script.__file__)
ARGUMENTS = ["--width={width}", "--lr={lr}", "--seed", "{seed}", "--scheme={parametrization}"]
WORDS = ["python", str(SCRIPT), *ARGUMENTS]
WIDTHS = [32, 64, 128, 256]


def sweep(scheme="mup", words=WORDS, **more):
    check = Check(parametrization=scheme, **{"widths": WIDTHS, "seeds": 1, **more})
    return script_sweep(words, check, folder=Path.cwd(), minutes=5)


def recorded(folder, monkeypatch, *words, steps=3, main=check_script.main):
    """What a script writes, run in this process."""
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv(FOLDER, str(folder))
    monkeypatch.setenv(STEPS, str(steps))
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 0
    return json.loads((folder / "rows.json").read_text())


def measured(root, wanted, monkeypatch):
    """A store with the results of a check, whose scripts ran in this process."""
    store = Store(root).create()
    for key, config in wanted.trials.items():
        trial = Trial(store.trial(key), key)
        words = words_of(wanted.as_command, config, trial)
        assert words[0] == "env" and words[3] == sys.executable
        recorded(trial.directory, monkeypatch, *words[5:])
        done = {"status": "ok", "error": None, "metrics": {}, "seconds": 1.0}
        store.save({"key": key, "config": config, **done})
    return store


@pytest.mark.parametrize(("scheme", "outcome"), [("mup", "pass"), ("sp", "fail")])
def test_a_script_passes_under_mup_and_fails_under_sp(scheme, outcome, tmp_path, monkeypatch):
    wanted = sweep(scheme)
    table = gather_script(wanted, measured(tmp_path, wanted, monkeypatch))
    verdict = paramz.judge(table)
    assert verdict.outcome == outcome, verdict.sentence
    assert verdict.sentence.split(": ")[1].startswith(f"{scheme} with script, width 32 to 256")
    # With a plan or without, and for the readout's bias, too.
    roles = dict(zip(table.module, table.role, strict=True))
    assert (roles["embed"], roles["mix.0"], roles["head"]) == ("input", "hidden", "output")
    last = set(table[table["last"]].module)
    assert last == {"head"}
    if scheme == "sp":
        assert verdict.culprit in ("mix.0", "mix.2", "head")


def test_outside_of_a_check_nothing_is_done_or_imported(tmp_path):
    code = (
        "import sys, os, paramz\n"
        "paramz.record(object(), 0)\n"
        "ours = {name for name in sys.modules if name.startswith(('paramz', 'torch', 'pandas'))}\n"
        "assert ours == {'paramz', 'paramz.check', 'paramz.check.callback'}, ours\n"
        "assert not os.listdir()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_recording_leaves_the_run_as_it_is(tmp_path, monkeypatch):
    """Dropout, batch statistics and data are drawn as without it."""
    plain = check_script.main(["--max-iters", "3"]).state_dict()
    kept = {}
    step = torch.optim.Adam.step

    def stepped(self, *args, **kwargs):
        done = step(self, *args, **kwargs)
        values = (p.detach().clone() for group in self.param_groups for p in group["params"])
        kept["sum"] = sorted(float(p.double().sum()) for p in values)
        return done

    monkeypatch.setattr(torch.optim.Adam, "step", stepped)
    recorded(tmp_path, monkeypatch)
    trained = [value for name, value in plain.items() if "running" not in name and value.dim()]
    assert kept["sum"] == sorted(float(value.double().sum()) for value in trained)


@pytest.mark.parametrize("wrap", ["compile", "parallel"])
def test_a_wrapped_model_is_recorded_as_the_model_in_it(wrap, tmp_path, monkeypatch):
    plain = recorded(tmp_path / "plain", monkeypatch, steps=1)
    assert recorded(tmp_path / wrap, monkeypatch, "--wrap", wrap, steps=1) == plain


def test_of_several_processes_the_first_records_and_all_end(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(FileNotFoundError):
        recorded(tmp_path, monkeypatch)
    assert list(tmp_path.iterdir()) == []


def test_autocast_of_the_loop_holds_for_what_is_recorded(tmp_path, monkeypatch):
    model = nn.Linear(8, 8)
    seen = []
    model.register_forward_hook(lambda module, args, output: seen.append(output.dtype))

    def main(words):
        for step in range(3):
            paramz.record(model, step)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(torch.ones(4, 8)).square().mean()
            loss.backward()

    recorded(tmp_path, monkeypatch, main=main, steps=2)
    assert set(seen) == {torch.bfloat16} and len(seen) == 2 + 3


def late(words):
    model = nn.Linear(4, 4)
    model(torch.ones(2, 4)).sum().backward()
    paramz.record(model, 0)


def parts(words):
    model = nn.Sequential(nn.Linear(4, 4))
    for step in range(2):
        paramz.record(model, step)
        model[0](torch.ones(2, 4))


def seldom(words):
    model = nn.Linear(4, 4)
    for step in (0, 10):
        paramz.record(model, step)
        model(torch.ones(2, 4))


def two(words):
    for step, model in enumerate([nn.Linear(4, 4), nn.Linear(4, 4)]):
        paramz.record(model, step)


@pytest.mark.parametrize(
    ("main", "said"),
    [
        (late, "first called after a backward pass, and the check starts before training: call"),
        (parts, "the model was not called with gradients: call the model itself, model"),
        (seldom, "came after 10 updates, and after 0 before: call paramz.record"),
        (two, "paramz.record was called with two models"),
    ],
)
def test_a_call_that_measures_nothing_says_what_to_change(main, said, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match=said):
        recorded(tmp_path, monkeypatch, main=main)


def failed(store, key, config, status="failed", error="left no metric 'size' in x"):
    done = {"status": status, "error": error, "metrics": {}, "seconds": 1.0}
    store.save({"key": key, "config": config, **done})


@pytest.mark.parametrize(
    ("lines", "result", "said"),
    [
        (
            None,
            {},
            "width 256, seed 0, lr 0.00390625: the script ended without a call of",
        ),
        (2, {"status": "ok", "error": None}, "ended after 1 updates with paramz.record: let it"),
        (2, {"status": "diverged", "error": "loss nan at step 1"}, "are not finite .*; lower lr"),
        (1, {"status": "diverged", "error": "loss nan at step 0"}, "are not finite .*no lr would"),
        (None, {"error": "the command ended with exit code 2: x"}, "the command ended with exit"),
    ],
)
def test_a_script_that_leaves_no_rows_says_why(lines, result, said, tmp_path):
    wanted = sweep()
    store = Store(tmp_path).create()
    assert gather_script(wanted, store) is None
    key, config = next(iter(wanted.trials.items()))
    if lines is not None:
        store.trial(key).mkdir(parents=True)
        (store.trial(key) / "recorded.jsonl").write_text('{"step": 0, "size": 1}\n' * lines)
    failed(store, key, config, **result)
    with pytest.raises(ValueError, match=said):
        gather_script(wanted, store)


def test_a_name_of_another_scheme_than_the_script_applied_is_refused(tmp_path, monkeypatch):
    words = [*WORDS, "--scheme", "mup"]  # the last one counts
    wanted = sweep("sp", words, widths=[32, 64], seeds=1)
    with pytest.raises(ValueError, match="sp was asked for, and the script's model is under mup"):
        gather_script(wanted, measured(tmp_path, wanted, monkeypatch))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--command", f"python {SCRIPT} --width {{width}} --lr {{lr}}"], "the axis 'seed' does"),
        (["--command", "python t.py --lr {lr}", "--seeds", "1"], "the axis 'width' does not reach"),
        (["--command", "t {width} {lr} {seed}", "-p", "sp"], "parametrization sp does not reach"),
        (["--command", "t {width} {lr} {seed}", "--depths", "2,4"], "a check of a command is over"),
        (["--command", "python no.py {width} {lr} {seed}"], "no file no.py in .*, where the comm"),
        (["--command", "python 'no.py"], "--command python 'no.py: cannot be split into words"),
        (["lab.py:task", "--command", "t"], "give a task .*, not both"),
        ([], "give a task"),
        (["functions.yaml"], "functions.yaml trains .*a check needs the model that it builds"),
    ],
)
def test_what_does_not_reach_the_script_is_refused(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("functions.yaml").write_text("train: lab:train\naxes: {width: [32, 64]}\n")
    result = CliRunner().invoke(app, ["check", *arguments])
    assert result.exit_code == 2
    assert re.search(said, result.output), result.output


def test_a_script_that_never_records_is_run_once_and_told_the_two_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("import sys\nopen('ran', 'a').write(' '.join(sys.argv) + '\\n')\n")
    words = ["--command", "python train.py {width} {lr} {seed}", "--widths", "32,64,128"]
    result = CliRunner().invoke(app, ["check", *words])
    assert result.exit_code == 2
    assert "ended without a call of paramz.record; two lines make it: import" in result.output
    assert [line.split()[1] for line in Path("ran").read_text().splitlines()] == ["32"]


@pytest.mark.slow
def test_the_verb_runs_a_command_and_a_spec(tmp_path):
    """The whole way: processes, a store, verdict, report and exit codes."""
    command = " ".join(WORDS)
    spec = tmp_path / "script.yaml"
    spec.write_text(
        f"command: {json.dumps([*WORDS, '--max-iters={steps}'])}\n"
        "metrics: {file: '{trial.directory}/log.csv'}\n"
        "base: {parametrization: mup, seed: 0, steps: 8}\n"
        "axes: {width: [64], lr: [0.01]}\n"
    )
    small = ["--widths", "32,64,128,256", "--seeds", "1", "--out", str(tmp_path / "run")]
    asked = (
        (0, [str(spec), "-p", "mup"], "PASS: mup with script"),
        (1, ["--command", command, "-p", "sp"], "FAIL: sp with script"),
        (0, ["--command", command, "-p", "sp", "--expect-fail"], "FAIL: sp with script"),
    )
    for code, words, said in asked:
        result = CliRunner().invoke(app, ["check", *words, *small])
        assert result.exit_code == code, result.output
        assert said in result.stdout
    assert sorted(path.name for path in (tmp_path / "run" / "coord").iterdir()) == [
        "mup-script", "mup-script.csv", "mup-script.json",
        "sp-script", "sp-script.csv", "sp-script.json",
    ]  # fmt: skip
    report = CliRunner().invoke(app, ["report", str(tmp_path / "run")])
    assert "PASS: mup with script" in report.stdout and "FAIL: sp with script" in report.stdout


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_model_that_fabric_has_set_up_is_seen_as_it_is(precision, tmp_path, monkeypatch):
    fabric = pytest.importorskip("lightning").Fabric(
        accelerator="cpu", devices=1, precision=precision
    )
    x = torch.ones(4, 3)
    rows = {}
    for name in ("plain", "fabric"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setenv(FOLDER, str(folder))
        monkeypatch.setenv(STEPS, "1")
        torch.manual_seed(0)
        net = lambda width: nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))  # noqa: E731
        model = net(16)
        paramz.parametrize_(model, "mup", base=net, base_width=8)
        called = fabric.setup_module(model) if name == "fabric" else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(SystemExit):
            for step in range(3):
                paramz.record(called, step)
                loss = called(x).sum()
                fabric.backward(loss) if name == "fabric" else loss.backward()
                optimizer.step()
        found = json.loads((folder / "rows.json").read_text())
        assert found["plan"] == "mup"
        rows[name] = {tuple(row[1:5]): row[5] for row in found["rows"]}
    assert rows["fabric"] == pytest.approx(rows["plain"], rel=1e-6 if precision[0] == "3" else 0.1)
