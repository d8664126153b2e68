"""Findings of the steps, put together to a decision."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramz.analysis.decide import Verdict
from paramz.theory.horizon import transfer_run
from paramz.tuning.cost import Cost
from paramz.tuning.decision import Costs, Decision, Finding, Moved
from paramz.tuning.forecast import Forecast
from paramz.tuning.horizon import Horizon
from paramz.tuning.model import Model, planned
from paramz.tuning.proxies import Design
from paramz.tuning.reading import why
from paramz.tuning.work import Work

# A held-out error, or half an interval, beyond this share of the loss earns a doubt.
_FAR_OFF = 0.02
# A target that trains for more than so many times the steps of the proxies does, too.
_FAR_STEPS = 10


@dataclass(frozen=True)
class Findings:
    """What the steps found so far.

    Attributes:
        work: the question.
        design: the proxies.
        cost: what trials take.
        pays: seconds of trials that the budget pays for.
        coordinates: the check; None where it was not made.
        transfer: whether the optimum stays; None where it was not judged.
        verdict: the same with the value.
        horizon: what shorter runs say; None where there are none.
        forecast: the loss; None before it was predicted.
    """

    work: Work
    design: Design
    cost: Cost
    pays: float
    coordinates: Finding | None = None
    transfer: Finding | None = None
    verdict: Verdict | None = None
    horizon: Horizon | None = None
    forecast: Forecast | None = None

    @property
    def value(self) -> float:
        """The chosen value, with four digits."""
        assert self.verdict is not None and self.verdict.answer is not None
        return float(f"{self.verdict.answer.value:.4g}")


def stopped(known: Findings, reason: str) -> Decision:
    """The decision that no value can be given, with the reason."""
    stages = known.work.stages
    return Decision(
        target=known.work.target.text,
        outcome="stopped",
        hp=known.work.setting.hp,
        proxies=tuple(why(known.work, known.design, known.cost, known.pays)),
        coordinates=known.coordinates or _no_check(),
        transfer=known.transfer,
        cost=_costs(known, None),
        doubts=(reason,),
        surer=known.verdict.to_decide if known.verdict else (),
        commands=_commands(known, swept=(stages.out / "sweep.yaml").exists()),
    )


def conclude(known: Findings) -> Decision:
    """The decision, when every step has its findings."""
    work, verdict = known.work, known.verdict
    assert verdict is not None and verdict.answer is not None and known.forecast is not None
    moved, refused = _moved(known)
    model, why_not = _model(known, moved)
    doubts = [*_doubts(known), *refused, *why_not]
    factor = moved.values[work.setting.hp] / known.value if moved.values else 1.0
    return Decision(
        target=work.target.text,
        outcome="careful" if doubts else "ready",
        hp=work.setting.hp,
        value=known.value * factor,
        lo=verdict.answer.lo * factor,
        hi=verdict.answer.hi * factor,
        proxies=tuple(why(work, known.design, known.cost, known.pays)),
        coordinates=known.coordinates or _no_check(),
        transfer=known.transfer,
        moved=moved,
        groups=model.groups if model else (),
        factors=model.factors if model else (),
        forecast=known.forecast,
        cost=_costs(known, model),
        doubts=tuple(doubts),
        surer=tuple(_surer(known)),
        commands=_commands(known, swept=True),
    )


def _no_check() -> Finding:
    return Finding(
        "none",
        "not checked: no task was given, and the script does not show its model. Add the lines "
        "import paramz and paramz.record(model, step) to its training loop, or name a function "
        "that returns the model as a paramz.Task with --task train.py:task",
    )


def _moved(known: Findings) -> tuple[Moved, list[str]]:
    """The base values for the target's batch size and steps, and what stands against them."""
    work, hp = known.work, known.work.setting.hp
    given = _settings(work.config)
    steps = 1.0
    if work.steps is not None and known.design.steps is not None:
        steps = work.steps / known.design.steps
    ratios: dict[str, Any] = {"batch": work.batch_ratio, "steps": steps}
    said = known.horizon.text if known.horizon else ""
    if all(ratio == 1 for ratio in ratios.values()):
        return Moved(ratios=ratios, values={hp: known.value, **given}), []
    if hp != "lr":
        text = f"how {hp} moves with batch size and steps is not known: it is that of the proxies"
        return Moved(ratios=ratios, values={hp: known.value, **given}), [text]
    values = transfer_run(work.run_rule, work.optimizer, lr=known.value, **given, **ratios)
    values["lr"] = float(f"{values['lr']:.4g}")
    doubts = []
    if steps != 1 and (known.horizon is None or not known.horizon.agrees):
        doubts.append(said or f"the rule {work.run_rule} for the number of steps was not tested")
    if work.batch_ratio != 1:
        doubts.append(
            f"the rule {work.run_rule} for the batch size ({work.batch_ratio:.3g} times) was not "
            "tested"
        )
    return Moved(work.run_rule, ratios, values, said), doubts


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What else the config sets of the optimizer, in the words of the run rules."""
    options = config.get("options") or {}
    found = {"weight_decay": config.get("weight_decay")}
    found |= {name: options.get(name) for name in ("eps", "betas", "momentum")}
    if isinstance(found["betas"], list):
        found["betas"] = tuple(found["betas"])
    return {name: value for name, value in found.items() if value is not None}


def _model(known: Findings, moved: Moved) -> tuple[Model | None, list[str]]:
    """The plan of the target in numbers; or why there is none."""
    work = known.work
    if work.task is None or work.setting.hp != "lr":
        return None, []
    sizes = {"width": work.target.width}
    base = {"width": int(work.config.get("base_width", known.design.widths[0]))}
    if work.depth_grows:
        assert work.target.depth is not None
        sizes["depth"] = work.target.depth
        base["depth"] = int(work.config.get("base_depth", known.design.depths[0]))
    try:
        return planned(work.task, work.scheme, sizes, base, work.optimizer, moved.values), []
    except (ValueError, TypeError, KeyError) as error:
        return None, [f"the target's plan cannot be made: {error}"]


def _doubts(known: Findings) -> Iterator[str]:
    """Why the decision is not more sure."""
    verdict, forecast = known.verdict, known.forecast
    assert verdict is not None and verdict.answer is not None and forecast is not None
    hp = known.work.setting.hp
    for step in ("range", "sweep", "shorter", "repeats"):
        if failed := known.work.stages.failed(step):
            yield f"{failed}: what is said rests on the others"
    if known.coordinates is None:
        yield "coordinates were not checked"
    elif known.coordinates.outcome != "pass":
        yield "the coordinate check is undecided"
    if verdict.outcome == "undecided":
        yield f"whether the best {hp} stays the same over the proxies is undecided"
    if not (verdict.answer.lo > 0 and math.isfinite(verdict.answer.hi)):
        yield f"the best {hp} lies at an end of its grid"
    if known.design.seeds == 1:
        yield "one seed: how far the optimum moves between seeds was not seen"
    work, own = known.work, known.design.steps
    if work.steps is not None and own is not None and work.steps > _FAR_STEPS * own:
        yield (
            f"the target trains for {work.steps / own:.0f} times the steps of the proxies: lr and "
            "loss are those of rules and laws that were seen over a factor of 4"
        )
    if forecast.mean is None:
        yield f"the loss cannot be predicted: {forecast.missing}"
        return
    assert forecast.lo is not None and forecast.hi is not None
    if (forecast.hi - forecast.lo) / 2 > _FAR_OFF * forecast.mean:
        half = (forecast.hi - forecast.lo) / 2 / forecast.mean
        yield f"the predicted loss is known to {half:.0%} only"
    if any(abs(error) > _FAR_OFF for error in forecast.held_out):
        yield "the law misses a run that was held out by more than 2 %"


def _surer(known: Findings) -> Iterator[str]:
    """What would make the decision surer."""
    assert known.verdict is not None and known.forecast is not None
    yield from known.verdict.to_decide
    if known.coordinates is None:
        yield "a coordinate check: paramz.record in the script, or the task (--task)"
    largest, quarter = known.design.widths[-1], known.work.target.width // 4
    if largest < quarter:
        seconds = known.cost.trial(min(2 * largest, quarter), known.design.steps)
        price = known.work.budget.say(known.work.spent(seconds, known.pays))
        yield (
            f"proxies up to width {min(2 * largest, quarter)} (a trial of which takes {price}): a "
            "larger --budget"
        )
    if known.design.shorter:
        yield (
            f"proxies that train for more than {known.design.steps} of the target's "
            f"{known.work.steps} steps: a larger --budget"
        )


def _costs(known: Findings, model: Model | None) -> Costs:
    work = known.work
    trial = known.cost.trial(work.target.width, work.steps)
    tokens = None
    if work.tokens_each_step is not None and work.steps is not None:
        tokens = work.tokens_each_step * work.batch_ratio * work.steps
    return Costs(
        tuning=work.budget.say(work.spent(work.stages.seconds(), known.pays)),
        budget=work.budget.say(work.budget.seconds),
        target=work.budget.say(work.spent(trial, known.pays)),
        parameters=None if model is None else model.parameters,
        tokens=work.target.tokens or tokens,
    )


def _from_here(name: str) -> str:
    """A function's name relative to the working directory, if it is below that."""
    here = f"{Path.cwd()}/"
    return name.removeprefix(here)


def _commands(known: Findings, *, swept: bool) -> dict[str, str]:
    """What to run next."""
    work, out = known.work, known.work.stages.out
    found = {}
    if swept:
        found[f"paramz report {out / 'sweep'}"] = (
            "curves, optima and the coordinate check in a page"
        )
        found[f"paramz sweep {out / 'sweep.yaml'} --out {out / 'sweep'}"] = (
            "after an edit of the spec; then the same paramz tune"
        )
    if (out / "repeats").is_dir():
        found[f"paramz fit {out / 'repeats'} --predict width={work.target.width}"] = (
            "the law and the prediction"
        )
    if work.task_name is not None:
        base = work.config.get("base_width", known.design.widths[0])
        plan = (
            f"paramz plan {_from_here(work.task_name)} --width {work.target.width} "
            f"--base-width {base} -p {work.scheme} --optimizer {work.optimizer}"
        )
        found[plan] = "which tensor gets what, and why; with --export and --lr for a framework"
    return found
