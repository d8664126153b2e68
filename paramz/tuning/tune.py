"""From a task and a target to a decision: the steps in their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paramz.analysis.coordinates import CheckDiverged
from paramz.analysis.transfer import transfer
from paramz.slurm.launcher import SLURM
from paramz.sweeps.running.launcher import Launcher, Options
from paramz.sweeps.running.local import LOCAL
from paramz.sweeps.running.stopping import stop_on_signals
from paramz.theory.horizon import run_rules
from paramz.tuning import specs
from paramz.tuning.conclude import Findings, conclude, stopped
from paramz.tuning.coordinates import can_check, check_seconds, checked
from paramz.tuning.cost import measured
from paramz.tuning.decision import Decision, Finding
from paramz.tuning.forecast import Forecast
from paramz.tuning.horizon import Horizon, by_rule, horizon_of
from paramz.tuning.page import save
from paramz.tuning.proxies import Design, choose, possible_widths
from paramz.tuning.question import Budget, Target
from paramz.tuning.reading import design_of, forecast_of, middle_of, why
from paramz.tuning.replanned import planned_anew
from paramz.tuning.source import read_source
from paramz.tuning.specs import Setting
from paramz.tuning.stage import Stages
from paramz.tuning.work import Work

if TYPE_CHECKING:
    import pandas as pd


def _nothing(text: str) -> None:
    """Tell nobody."""


def tune(
    source: str,
    target: str,
    budget: str,
    *,
    out: str | Path = "runs/tune",
    settings: Mapping[str, Any] | None = None,
    task: str | None = None,
    hp: str = "lr",
    rule: str | None = None,
    profile: str | Path | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = _nothing,
) -> Decision:
    """Find the learning rate and the loss of a large run by small ones: ``paramz tune`` in Python.

    The steps are ordinary sweeps: a pilot for the time of a step, a coordinate check, a wide range
    of the hyperparameter, a sweep over proxies, shorter runs where the target trains for longer,
    and runs at the chosen value from which the loss is predicted. Each has its spec in `out`; one
    that was edited is used as it is. The same call continues, and repeats nothing that is done.

    Args:
        source: ``train.py:train``, ``train.py:task`` (with ``train`` beside it), or a spec of a
            function or a command.
        target: the run to decide, such as ``"width=4096,depth=32,tokens=20e9"``; also ``steps`` and
            ``batch_size``.
        budget: such as ``"8gpu-hours"``, ``"10cpu-minutes"``, or ``"2hours"`` of this machine.
        out: folder of the steps and of the decision.
        settings: config values of all trials, such as ``{"context": 256}``.
        task: the task function, where it is not called ``task`` beside the training function.
        hp: the hyperparameter; for any but ``lr``, a spec must give its axis.
        rule: by which lr moves with batch size and steps, of `paramz.HORIZONS`. What it leaves
            open follows token-horizon under Adam and constant otherwise, and sde in batch size.
        profile: of a Slurm cluster.
        workers: trials at once on this machine; by default what fits.
        say: is told what happens.

    Returns:
        the decision, which is also written to `out` as ``decision.json`` and ``decision.md``.

    Raises:
        ValueError: something that was asked for cannot be done; the message says what to change.
        paramz.tuning.stage.Waiting: trials are queued; the same call later goes on.
        paramz.tuning.stage.Interrupted: a signal asked to stop; the same call goes on.
    """
    launcher = LOCAL if profile is None else SLURM
    with stop_on_signals() as stop:
        options = Options(
            workers=workers, profile=None if profile is None else Path(profile), stop=stop
        )
        asked: dict[str, Any] = {
            "source": source,
            "target": Target.parse(target),
            "budget": Budget.parse(budget),
            "settings": dict(settings or {}),
            "task": task,
            "hp": hp,
            "rule": rule,
        }
        found = decide(asked, Path(out), launcher, options, say)
    save(found, Path(out))
    return found


def decide(
    asked: Mapping[str, Any],
    out: Path,
    launcher: Launcher,
    options: Options,
    say: Callable[[str], None],
) -> Decision:
    """What `tune` does, with what it was asked already read.

    Args:
        asked: source, target, budget, settings, task, hp and rule.
        out: folder of the steps and of the decision.
        launcher: where trials run.
        options: how.
        say: is told what happens.

    Raises:
        ValueError: as for `tune`.
        paramz.tuning.stage.Waiting: as for `tune`.
        paramz.tuning.stage.Interrupted: as for `tune`.
    """
    work = _work(asked, out, launcher, options, say)
    stages, setting = work.stages, work.setting
    widths = work.wanted.fixed or work.wanted.widths or possible_widths(work.target.width)
    timed = [(w, work.depth_of(w)) for w in dict.fromkeys((widths[0], *_doublings(widths)))]
    say("pilot: what a trial takes")
    first = stages.spec(
        "pilot", specs.pilot(setting, timed, work.steps), "Few steps, to see what a trial takes."
    )
    cost = measured(stages.run("pilot", first).rename(columns={setting.steps: "steps"}))
    pays = work.trial_seconds(first, options.workers)
    left = pays - stages.seconds() - (check_seconds(widths[0], cost) if can_check(work) else 0.0)
    priced = lambda seconds: work.budget.say(work.spent(seconds, pays))  # noqa: E731
    chosen = stages.remembered("design", lambda: asdict(choose(work.wanted, cost, left, priced)))
    design = Design.from_json(chosen)
    for line in why(work, design, cost, pays):
        say(line)
    known = Findings(work, design, cost, pays)

    if can_check(work):
        say("coordinates: do activations keep their size?")
        try:
            verdict = checked(work, design.widths[0])
        except CheckDiverged as error:  # the range may still find a rate that trains
            coordinates, finding = Finding("undecided", f"UNDECIDED: {error}"), ""
        else:
            coordinates, finding = Finding(verdict.outcome, verdict.sentence), verdict.finding
        say(coordinates.text)
        known = replace(known, coordinates=coordinates)
        if coordinates.outcome == "fail":
            return stopped(
                known,
                "the coordinate check fails, so no value of small models would be right for the "
                f"target: {finding}",
            )

    known, runs = _swept(known)
    if known.transfer is None or known.transfer.outcome == "fail":
        text = "the sweep cannot be judged" if known.transfer is None else known.transfer.text
        return stopped(
            known, f"the best {setting.hp} of the proxies is none for the target: {text}"
        )
    known = _shorter(known, runs)
    return conclude(replace(known, forecast=_predicted(known)))


def _work(
    asked: Mapping[str, Any],
    out: Path,
    launcher: Launcher,
    options: Options,
    say: Callable[[str], None],
) -> Work:
    """The question in terms of the source, refused here if it cannot be one."""
    source = read_source(asked["source"], asked["settings"], asked["task"])
    target, budget, hp = asked["target"], asked["budget"], asked["hp"]
    needed = ("width", hp, *(["depth"] if target.depth is not None else []))
    for name in needed:
        if not source.reached(name):
            raise ValueError(
                f"the command has no {{{name}}}, so that all its trials would be the same; add an "
                f'argument such as --{name} "{{{name}}}" to it'
            )
    if hp != "lr" and hp not in source.axes:
        raise ValueError(
            f"--hp {hp}: where its best value may lie is known of lr alone; give a spec with an "
            f"axis such as {hp}: {{log2: [-8, 0]}}"
        )
    if budget.of == "wall" and options.profile is not None:
        raise ValueError(
            "a budget in hours of the clock says little on a cluster: write gpu-hours or cpu-hours"
        )
    base: dict[str, Any] = {} if target.depth is None else {"depth": target.depth}
    if source.takes is None:
        if "base_width" not in source.base:
            own = source.axes.get("width")
            base["base_width"] = min(own) if own else possible_widths(target.width)[0]
        base["parametrization"] = source.base.get("parametrization", "mup")
        if target.batch_size is not None and "batch_size" not in source.base:
            base["batch_size"] = target.batch_size
    question = {name: _plain(value) for name, value in asked.items()}
    stages = Stages(out, launcher, options, say, question)
    setting = Setting(source, hp, base, options.profile is not None, budget.of == "gpu")
    work = Work(target, budget, setting, stages, asked["rule"])
    if asked["rule"] is not None:
        run_rules(asked["rule"])
    return work


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Target | Budget) else value


def _doublings(widths: Any) -> list[int]:
    """A width about twice the smallest and one about four times, to be timed beside it."""
    return [min(widths, key=lambda w: abs(math.log(w / (widths[0] * k)))) for k in (2, 4)]


def _swept(known: Findings) -> tuple[Findings, pd.DataFrame]:
    """The sweep over the proxies, around the best of a wide range, and its verdict."""
    work, design, cost = known.work, known.design, known.cost
    stages, setting, hp = work.stages, work.setting, work.setting.hp
    center = None
    if hp not in setting.source.axes:
        stages.say(f"range: where the best {hp} of the smallest proxy lies")
        spec = stages.spec(
            "range", specs.coarse(setting, design, cost), f"Where the best {hp} lies, roughly."
        )
        runs = stages.run("range", spec)
        good = runs[runs["status"] == "ok"]
        means = {float(x): float(y) for x, y in zip(good[hp], good["loss"], strict=True)}
        if not means:
            raise ValueError(f"every run of the range diverged; paramz logs {stages.out / 'range'}")
        center = middle_of(means)
        known = planned_anew(known, runs)
        design, cost = known.design, known.cost
    stages.say(f"sweep: {hp} over the proxies")
    spec = stages.spec(
        "sweep", specs.sweep(setting, design, cost, center), f"The best {hp} of every proxy."
    )
    design = design_of(spec, design, setting.steps)
    runs = stages.run("sweep", spec)
    try:
        found = transfer(runs, hp=hp, scale="width")
    except ValueError as error:
        stages.say(str(error))
        return replace(known, design=design), runs
    (verdict,) = found.verdicts.values()
    stages.say(verdict.text)
    finding = Finding(verdict.outcome, verdict.sentence)
    return replace(known, design=design, transfer=finding, verdict=verdict), runs


def _shorter(known: Findings, runs: pd.DataFrame) -> Findings:
    """Shorter runs of the smallest proxy, where the target trains for longer than the proxies."""
    work, design, cost = known.work, known.design, known.cost
    if not design.shorter or work.setting.hp != "lr":
        return known
    stages, steps = work.stages, work.setting.steps
    stages.say("shorter: does lr move with the number of steps as the rule says?")
    spec = stages.spec(
        "shorter",
        specs.shorter(work.setting, design, cost, known.value),
        "The best lr of shorter runs of the smallest proxy.",
    )
    more = stages.run("shorter", spec)
    horizon: Horizon = horizon_of(work.run_rule, work.optimizer, runs, more, steps)
    stages.say(horizon.text)
    return replace(known, horizon=horizon)


def _predicted(known: Findings) -> Forecast:
    """The proxies at the chosen value, and the loss of the target that they predict."""
    work, design = known.work, known.design
    values = {design.steps: known.value}
    if design.steps is not None and work.setting.hp == "lr":
        for steps in design.shorter:
            ratio = steps / design.steps
            values[steps] = by_rule(work.run_rule, work.optimizer, known.value, steps=ratio)
    stages = work.stages
    stages.say(f"repeats: the proxies at {work.setting.hp} = {known.value:.4g}")
    spec = stages.spec(
        "repeats",
        specs.repeats(work.setting, design, known.cost, values),
        "Every proxy at the chosen value: what the loss is predicted from.",
    )
    return forecast_of(work, design, stages.run("repeats", spec), spec)
