"""`paramz tune` on training functions whose answer is known, and on a script."""

import json
import math
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tuned_task
from typer.testing import CliRunner

import paramz
from paramz.check.jobs import table
from paramz.cli import app
from paramz.sweeps import Sweep
from paramz.sweeps.running.launcher import Launcher, LaunchReport, Live, Options
from paramz.sweeps.running.refine import begin_round, next_round
from paramz.sweeps.running.runner import prepare
from paramz.sweeps.spec.target import load_target
from paramz.tuning.coordinates import _wanted, can_check
from paramz.tuning.cost import Cost, measured
from paramz.tuning.horizon import horizon_of
from paramz.tuning.proxies import Wanted, choose
from paramz.tuning.question import Budget, Target
from paramz.tuning.source import Source, read_source
from paramz.tuning.specs import Setting, pilot
from paramz.tuning.stage import Stages
from paramz.tuning.work import Work

HERE = Path(__file__).parent
FUNCTION = f"{HERE / 'tuned_functions.py'}:train"
WITH_TASK = f"{HERE / 'tuned_task.py'}:task"
TAKES = Cost((32.0,), (1e-4,), 0.01)
SCRIPT = HERE.parent / "sweeps" / "train_script.py"


def run_here(sweep, store, options):
    """Run a sweep without processes for its trials, which take most of the time."""
    missing = prepare(sweep, store, options.retry, options.changed)
    while missing:
        run_all(sweep, store, missing)
        missing = next_round(sweep, store)
        begin_round(store, missing)
    return LaunchReport({})


def run_all(sweep, store, missing):
    function = load_target(sweep.target)
    for key, config in missing.items():
        directory = store.trial(key)
        directory.mkdir(parents=True, exist_ok=True)
        seconds = TAKES.trial(config["width"], config.get("steps"))
        fields = {"key": key, "status": "ok", "error": None, "config": config, "seconds": seconds}
        metrics = function(config, SimpleNamespace(directory=directory))
        store.save({**fields, "metrics": metrics})


def trials_take(monkeypatch, cost):
    """What the pilot says, and what all trials take."""
    monkeypatch.setattr("paramz.tuning.tune.measured", lambda runs: cost)
    monkeypatch.setattr(sys.modules[__name__], "TAKES", cost)


@pytest.fixture
def quick(monkeypatch):
    here = Launcher(lambda o: True, run_here, run_here, lambda s: Live(), lambda s: [], False)
    monkeypatch.setattr("paramz.tuning.tune.LOCAL", here)


def tune(out, target="width=512", source=FUNCTION, budget="1cpu-hour", **more):
    return paramz.tune(source, target, budget, out=out, **more)


def call(*arguments):
    return CliRunner().invoke(app, ["tune", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished tuning of width alone, run as users do."""
    here = tmp_path_factory.mktemp("tuned")
    spec = here / "task.yaml"
    spec.write_text(f"train: {FUNCTION}\naxes: {{seed: [0, 1]}}\n")
    said = call(spec, "--target", "width=512", "--budget", "1cpu-hour", "--out", here / "tune")
    assert said.exit_code == 0, said.output
    return here / "tune"


def test_the_decision_has_the_known_optimum_and_loss(folder):
    found = json.loads((folder / "decision.json").read_text())
    assert abs(math.log2(found["value"]) + 6) < 0.05
    assert found["lo"] <= 2**-6 <= found["hi"]
    true = 2 + 8 / 512**0.7
    assert abs(found["forecast"]["mean"] / true - 1) < 0.002
    assert found["forecast"]["lo"] <= true <= found["forecast"]["hi"]
    assert found["transfer"]["outcome"] == "pass"
    # A function has no model to look into: the only doubt.
    assert found["doubts"] == ["coordinates were not checked"]


def test_the_page_has_the_answer_first_and_commands_that_exist(folder):
    page = (folder / "decision.md").read_text()
    lines = page.splitlines()
    assert lines[0] == "# width=512"
    assert lines[2].startswith("**With care: see the doubts.** Train width=512 with lr = 0.015")
    assert lines[4].startswith("Its loss will be 2.10")
    commands = re.findall(r"^paramz (\w+) (.*?)(?=  #)", page, re.MULTILINE)
    assert [verb for verb, _ in commands] == ["report", "sweep", "fit"]
    for verb, arguments in commands[1:]:  # another test writes a report, which takes seconds
        said = CliRunner().invoke(app, [verb, *arguments.split()])
        assert said.exit_code == 0, (verb, said.output)


def test_the_same_command_repeats_nothing(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/results/*.json")}
    page = (folder / "decision.md").read_text()
    spec = folder.parent / "task.yaml"
    said = call(spec, "--target", "width=512", "--budget", "1cpu-hour", "--out", folder)
    assert said.exit_code == 0 and "trials to run" not in said.stderr
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*/results/*.json")} == before
    assert (folder / "decision.md").read_text() == page


def test_an_edited_spec_is_used_as_it_is(tmp_path, quick):
    out = tmp_path / "tune"
    tune(out, "width=256", budget="30cpu-minutes")
    spec = out / "sweep.yaml"
    spec.write_text(spec.read_text().replace("  - 32\n", "", 1))
    said = []
    found = tune(out, "width=256", budget="40cpu-minutes", say=said.append)
    assert f"{spec} was edited; it is used as it is" in said
    assert found.proxies[0].startswith("widths 48, 64:")
    assert "from 48 to 64" in found.transfer.text  # those of width 32 are there, too
    repeated = Sweep.from_yaml(out / "repeats.yaml")  # what follows from it is written anew
    assert {config["width"] for config in repeated.configs()} == {48, 64}


def test_a_drift_stops_the_decision_and_says_why(tmp_path, quick):
    found = tune(tmp_path / "tune", "width=256", settings={"drift": -0.7})
    assert found.outcome == "stopped" and found.value is None
    assert "the best lr of the proxies is none for the target" in found.doubts[0]
    assert "-0.7" in found.doubts[0]
    assert "no value can be given" in (tmp_path / "tune" / "decision.md").read_text()


def test_a_longer_run_is_reached_by_a_rule_and_a_law_of_both(tmp_path, quick, monkeypatch):
    """The target's steps cost too much: proxies train for fewer, and both laws are seen."""
    trials_take(monkeypatch, Cost((32.0, 64.0), (0.01, 0.02), 0.0))
    found = tune(tmp_path / "tune", "width=1024,steps=6400", budget="30cpu-minutes")
    steps = found.moved.ratios["steps"]
    assert steps > 1 and found.moved.rule == "token-horizon"
    best = 2.0 ** (-6 - 0.32 * math.log2(6400 / 100))
    assert abs(math.log2(found.value / best)) < 0.1
    assert "which agrees" in found.moved.measured
    true = 2 + 8 / 1024**0.7 + 30 / 6400**0.8
    assert abs(found.forecast.mean / true - 1) < 0.002
    assert f"the target trains for {steps:.0f} times the steps of the proxies" in found.doubts[1]
    assert "Moved to 16 times the steps by the rule" in (tmp_path / "tune/decision.md").read_text()


def test_a_rule_that_shorter_runs_contradict_is_a_doubt(tmp_path, quick, monkeypatch):
    trials_take(monkeypatch, Cost((32.0, 64.0), (0.01, 0.02), 0.0))
    found = tune(
        tmp_path / "tune", "width=1024,steps=6400", budget="30cpu-minutes", settings={"moves": -0.3}
    )
    assert any("which disagrees" in doubt for doubt in found.doubts)


def test_too_few_widths_for_a_law_are_no_prediction(tmp_path, quick):
    found = tune(tmp_path / "tune", "width=256")
    assert found.value is not None and found.forecast.mean is None
    assert "need 5 widths, there are 3" in found.forecast.missing
    assert "Its loss is not predicted" in (tmp_path / "tune" / "decision.md").read_text()


def test_a_script_goes_through_tune_and_report(tmp_path):
    """An argparse script with a CSV log that does not import paramz, named as in its own folder."""
    shutil.copy(SCRIPT, tmp_path / "train.py")
    spec = tmp_path / "script.yaml"
    spec.write_text(
        "command: [python, train.py, --n-embd, '{width}', --lr, '{lr}', "
        "--out, '{trial.directory}']\n"
        "metrics: {file: '{trial.directory}/log.csv', step: iter, loss: val loss}\n"
    )
    out = tmp_path / "tune"
    said = call(spec, "--target", "width=256", "--budget", "20cpu-minutes", "--out", out)
    assert said.exit_code == 0, said.output
    found = json.loads((out / "decision.json").read_text())
    assert abs(math.log2(found["value"]) + 6) < 0.3
    assert "--task train.py:task" in found["coordinates"]["text"]
    assert "one seed" in " ".join(found["doubts"])
    report = CliRunner().invoke(app, ["report", str(out / "sweep")])
    assert report.exit_code == 0, report.output


@pytest.mark.parametrize(
    ("line", "checks"),
    [
        ("paramz.record(model, step)", True),
        ("    record(model, step)", True),
        ("recorder.record(1)  # paramz", False),
        ("", False),
    ],
)
def test_a_script_that_records_has_its_coordinates_checked(tmp_path, line, checks):
    (tmp_path / "train.py").write_text(f"if True:\n    import paramz\n{line}\n")
    fields = {"command": "python train.py {width} --lr={lr}", "metrics": {"pattern": "x"}}
    source = Source(fields, None, {"context": 8}, folder=tmp_path)
    setting = Setting(source, "lr", {}, limited=False, gpus=False)
    work = Work(Target(256), Budget(60, "cpu"), setting, None, None)
    assert can_check(work) is checks
    if checks:
        configs = list(_wanted(work, 32, 2**-8).sweep.configs())
        assert [config["width"] for config in configs] == [256, 128, 64, 32]
        assert {config["context"] for config in configs} == {8}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "depth=3"}, "--target depth=3: width is missing"),
        ({"target": "width=512,heads=4"}, "'heads=4' is none of width, depth, steps, batch_size"),
        ({"target": "width=512,steps=9,tokens=9"}, "give tokens or steps"),
        ({"target": "width=60"}, "the target's width is 60: proxies from 32"),
        ({"target": "width=512,tokens=1e9"}, "tokens=1e\\+09 are how many steps"),
        ({"budget": "8 gpus"}, "--budget 8 gpus: write a number and hours or minutes"),
        ({"source": "nowhere.py:train"}, "no file nowhere.py"),
        ({"rule": "guess"}, "no horizon rule 'guess'; there are sde, completed"),
        ({"hp": "weight_decay"}, "--hp weight_decay: where its best value may lie"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(tmp_path, changes, message):
    asked = {"source": FUNCTION, "target": "width=512", "budget": "1cpu-hour", **changes}
    with pytest.raises(ValueError, match=message):
        paramz.tune(out=tmp_path / "tune", **asked)
    assert not (tmp_path / "tune").exists()


def test_a_budget_that_pays_for_nothing_says_what_would_do(tmp_path):
    cost = Cost((32.0,), (1.0,), 0.0)
    wanted = Wanted((32, 48, 64), lambda width: None, 100)
    with pytest.raises(ValueError, match=r"\(widths 32, 48, 64, 1 seed, 50 steps\) takes 5363 s"):
        choose(wanted, cost, 60.0)
    budget = Budget.parse("1cpu-minute")  # of which each trial takes two
    with pytest.raises(ValueError, match="give 2.95 CPU-hours more, or fewer steps"):
        choose(wanted, cost, 60.0, lambda seconds: budget.say(2 * seconds))


def test_two_widths_of_a_spec_are_refused_with_the_way_out(tmp_path):
    spec = tmp_path / "s.yaml"
    spec.write_text(f"train: {FUNCTION}\naxes: {{width: [64, 256]}}\n")
    with pytest.raises(ValueError, match="three widths or more, or leave width out of the spec's"):
        paramz.tune(str(spec), "width=512", "1cpu-hour", out=tmp_path / "tune")


@pytest.mark.parametrize("steps", [10, 1000])
def test_a_pilot_knows_what_a_trial_takes(tmp_path, steps):
    """Two seconds to start, and a hundredth of a second per step and per 32 of width."""
    setting = Setting(read_source(FUNCTION, {}), "lr", {}, limited=False, gpus=False)
    configs = list(Sweep(**pilot(setting, [(32, None), (64, None)], steps)).configs())
    runs = pd.DataFrame(configs)
    runs["seconds"] = 2 + runs["steps"] * runs["width"] / 3200
    # Of a run that is short itself, the pilot makes the whole: its start is among its steps.
    assert measured(runs).trial(64, steps) == pytest.approx(2 + steps * 64 / 3200)
    assert runs["steps"].max() <= 16


def test_a_command_without_a_place_for_the_rate_is_refused(tmp_path):
    spec = tmp_path / "script.yaml"
    spec.write_text("command: [python, x.py, '{width}']\nmetrics: {pattern: '(?P<loss>.)'}\n")
    said = call(spec, "--target", "width=512", "--budget", "1cpu-hour", "--out", tmp_path / "tune")
    assert said.exit_code == 2
    assert "the command has no {lr}" in said.stderr and '--lr "{lr}"' in said.stderr


def test_on_a_cluster_the_same_command_goes_on_until_it_decides(tmp_path, monkeypatch):
    sent = []

    def submit(sweep, store, options):
        missing = prepare(sweep, store, options.retry, options.changed)
        if not missing and (missing := next_round(sweep, store)):
            begin_round(store, missing)
        sent.append((sweep, store, missing))
        return LaunchReport({}, ("submitted",))

    queue = Launcher(lambda o: True, submit, submit, lambda s: Live(), lambda s: [], True)
    monkeypatch.setattr("paramz.cli.tune.launcher_for", lambda options: queue)
    asked = [FUNCTION, "--target", "width=256", "--budget", "1gpu-hour", "--out", tmp_path / "t"]
    asked += ["--profile", tmp_path / "cluster.yaml"]
    said = call(*asked)
    assert said.exit_code == 3, said.output
    assert "the step pilot waits for its trials" in said.stderr
    for _ in range(9):
        if said.exit_code != 3:
            break
        run_all(*sent[-1])  # the cluster does its work
        said = call(*asked)
    assert said.exit_code == 0, said.output
    needs = [sweep.need(next(sweep.configs())) for sweep, _, _ in sent]
    assert {need.gpus for need in needs} == {1} and all(need.minutes for need in needs)
    folders = [store.root.name for _, store, _ in sent]
    assert list(dict.fromkeys(folders)) == ["pilot", "range", "sweep", "repeats"]
    assert folders.count("sweep") >= 2  # rounds of refinement


def test_on_a_cluster_a_trial_that_always_fails_is_left_out(tmp_path):
    sent, said = [], []

    def submit(sweep, store, options):
        missing = prepare(sweep, store, options.retry, options.changed)
        sent.append(len(missing))
        for key, config in missing.items():
            failed = config["width"] == 64
            fields = {"key": key, "status": "failed" if failed else "ok", "config": config}
            fields |= {"error": "no memory" if failed else None, "seconds": 1.0}
            store.save({**fields, "metrics": {} if failed else {"loss": 1.0}})
        return LaunchReport({})

    queue = Launcher(lambda o: True, submit, submit, lambda s: Live(), lambda s: [], True)
    stages = Stages(tmp_path, queue, Options(), said.append, {})
    content = {"train": FUNCTION, "axes": {"width": [32, 64], "lr": [0.1]}}
    for _ in range(2):
        runs = stages.run("some", stages.spec("some", content, "Two."))
        assert list(runs.width) == [32]
    assert sent == [2] and "1 failed and are left out" in said[-1]


def test_a_width_at_which_trials_fail_is_a_doubt(tmp_path, quick, monkeypatch):
    plain = run_all

    def no_memory(sweep, store, missing):
        fits = {key: config for key, config in missing.items() if config["width"] < 128}
        plain(sweep, store, fits)
        for key in missing.keys() - fits.keys():
            fields = {"key": key, "status": "failed", "error": "no memory", "seconds": 1.0}
            store.save({**fields, "config": missing[key], "metrics": {}})

    monkeypatch.setattr(sys.modules[__name__], "run_all", no_memory)
    found = tune(tmp_path / "tune")
    assert found.outcome == "careful"
    doubts = [doubt for doubt in found.doubts if "failed" in doubt]
    assert any("of the step sweep failed, at width 128 (all of it): what is" in d for d in doubts)


def test_a_check_that_fails_stops_before_the_sweep(tmp_path, quick):
    found = tune(tmp_path / "tune", source=WITH_TASK, settings={"parametrization": "sp"})
    assert found.outcome == "stopped" and found.coordinates.outcome == "fail"
    assert "the coordinate check fails" in found.doubts[0]
    assert not (tmp_path / "tune" / "sweep.yaml").exists()


class Reached(Exception):
    """What is known when the step after the check begins."""


@pytest.mark.parametrize(("good", "tried"), [(-14, (-8, -11, -14)), (None, (-8, -11, -14, -17))])
def test_a_check_that_diverges_is_made_again_at_a_lower_rate(
    tmp_path, quick, monkeypatch, good, tried
):
    rates = []

    def measure(sweep, _):
        (lr,) = sweep.base["lrs"]
        rates.append(math.log2(lr))
        rms = 1.0 if rates[-1] == good else math.inf
        rows = [
            ("mup", "adamw", width, 0, lr, 1, "1", "hidden", quantity, rms, False)
            for width in (32, 64, 128, 256)
            for quantity in ("delta", "update")
        ]
        return table("width", rows)

    def swept(known):
        raise Reached(known)

    monkeypatch.setattr("paramz.tuning.coordinates.gather", measure)
    monkeypatch.setattr("paramz.tuning.tune._swept", swept)
    with pytest.raises(Reached) as reached:
        tune(tmp_path / "tune", source=WITH_TASK)
    found = reached.value.args[0].coordinates
    assert tuple(rates) == tried
    assert found.outcome == ("undecided" if good is None else "pass")
    assert f"lr {2.0 ** tried[-1]:.4g}" in found.text


def test_the_values_of_every_tensor_are_those_of_the_plan(tmp_path, quick):
    found = tune(tmp_path / "tune", "width=512,batch_size=32", source=WITH_TASK)
    assert found.coordinates.outcome == "pass" and found.doubts == ()
    assert found.outcome == "ready"
    net = tuned_task.task({}).build
    plan = paramz.make_plan(net(512), "mup", base=net, base_width=32)
    expected = {}
    for group in plan.param_groups(net(512), "adamw", lr=found.value, split="tensor"):
        expected[group["names"][0]] = (group["lr"], group["eps"])
    told = {
        name: (group.settings["lr"], group.settings["eps"])
        for group in found.groups
        for name in group.tensors
    }
    assert told == expected
    # What nobody set at the base is no value to train with, such as torch's weight decay.
    assert set(found.groups[0].settings) == {"lr", "eps"}
    assert found.cost.parameters == sum(p.numel() for p in net(512).parameters())


def test_tokens_are_steps_of_as_many_as_a_batch_of_the_task_has(tmp_path, quick):
    found = tune(tmp_path / "tune", "width=256,tokens=25600", source=WITH_TASK)
    assert {c["steps"] for c in Sweep.from_yaml(tmp_path / "tune" / "sweep.yaml").configs()} == {
        100
    }
    assert found.cost.tokens == 25600


def test_proxies_have_the_targets_shape_under_a_rule_for_depth(tmp_path, quick):
    scheme = {"parametrization": "mup+completep"}
    found = tune(tmp_path / "tune", "width=1024,depth=32", settings=scheme)
    swept = Sweep.from_yaml(tmp_path / "tune" / "sweep.yaml")
    pairs = {(config["width"], config["depth"]) for config in swept.configs()}
    assert {(64, 2), (128, 4), (256, 8)} <= pairs
    assert "the target's shape" in " ".join(found.proxies)
    plain = tune(tmp_path / "plain", "width=256,depth=32")
    swept = Sweep.from_yaml(tmp_path / "plain" / "sweep.yaml")
    assert {config["depth"] for config in swept.configs()} == {32}
    assert "depth 32, that of the target" in " ".join(plain.proxies)


def test_a_target_is_written_with_all_its_digits():
    target = Target.parse("width=4096,batch_size=1048576,steps=1234567")
    assert Target.parse(target.text) == target
    assert Target.parse("width=4096,tokens=20e9").text == "width=4096,tokens=2e+10"


def test_an_interval_as_wide_as_all_rules_tests_none():
    noise = np.random.default_rng(0)
    rows = [
        {"width": 32, "lr": 2.0**x, "steps": steps, "seed": seed,
         "loss": 2 + 0.03 * (x + 6.2 + 0.32 * math.log2(steps / 100)) ** 2
         + 0.06 * noise.standard_normal()}
        for steps in (100, 200, 400) for x in (-10, -8.5, -7, -5.5, -4) for seed in (0, 1)
    ]  # fmt: skip
    runs = pd.DataFrame(rows)
    long = runs["steps"] == 400
    found = horizon_of("token-horizon", "adamw", runs[long], runs[~long], "steps")
    assert found.agrees is None
    assert found.text.endswith("which is too wide an interval to test the rule")


def test_trials_that_are_faster_than_the_pilot_buy_a_larger_design(tmp_path, quick, monkeypatch):
    """On a busy machine, or with much to start, four fifths of a small budget were left."""
    trials_take(monkeypatch, Cost((32.0, 64.0, 128.0), (0.008, 0.016, 0.032), 0.0))
    slow = Cost((32.0, 64.0, 128.0), (0.01, 0.02, 0.04), 0.5)
    monkeypatch.setattr("paramz.tuning.tune.measured", lambda runs: slow)
    runs = []
    for _ in range(2):  # the same command goes by the same plans
        said = []
        out, target = tmp_path / "tune", "width=512,steps=100"
        found = tune(out, target, budget="2cpu-minutes", say=said.append)
        runs.append([line for line in said if line.startswith("widths ")])
    assert runs[0] == runs[1]
    first, last = runs[0]
    assert first.startswith("widths 32, 64, 128:")
    assert last.startswith("widths 32, 48, 64, 96, 128:")
    assert found.proxies[0] == last and found.forecast.mean is not None


def test_a_deficit_of_the_pilot_is_part_of_what_is_missing():
    cost, wanted = Cost((32.0,), (1.0,), 0.0), Wanted((32, 48, 64), lambda width: None, 100)
    with pytest.raises(ValueError, match="take 40 s of trials more than the budget") as caught:
        choose(wanted, cost, -40.0)
    takes, more = (
        float(re.search(p, str(caught.value))[1]) for p in (r"takes (\d+)", r"give (\d+)")
    )
    assert more == takes + 40
