"""Error rates of the coordinate check: right plans, and the same plans with one fault planted.

python benchmarks/check_power.py                      # all architectures of tests/zoo.py
python benchmarks/check_power.py Llama GPT-2          # some of them
python benchmarks/check_power.py --held-out           # those that were kept aside (see HELD_OUT)
python benchmarks/check_power.py --axes               # over depth and over experts

All checks are made at the defaults of `paramz.coord_check`. Writes one row per check to
benchmarks/results/check_power.csv (rows of other architectures stay), and prints the rates: false
alarms (a right plan fails), misses (a fault passes), and of the faults found how often the culprit
and the cause are right. An undecided check counts as half an error.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import pandas as pd  # noqa: E402
import torch  # noqa: E402
import zoo_hf  # noqa: E402
from _axis_faults import Axis, AxisCheck, axes  # noqa: E402
from torch import nn  # noqa: E402
from zoo import PLANNED, ZOO, Animal  # noqa: E402

import paramz  # noqa: E402
from paramz.plan.on_model import set_scale_  # noqa: E402

RESULTS = HERE / "results" / "check_power.csv"
# Kept aside while the judge was made, and reported by themselves.
ALL = {**ZOO, **PLANNED}
HELD_OUT = ("OPT", "GPT-NeoX", "Whisper", "GRU", "DeepONet")
EPS = 1e-3  # larger than the gradients of wide models

Plant = Callable[[nn.Module, paramz.Plan, float], None]


@dataclass(frozen=True)
class Planted(paramz.Task):
    """A task whose parametrized models get a fault.

    Attributes:
        plant: given the model, its plan and width / base width.
    """

    plant: Plant = lambda model, plan, ratio: None

    def parametrize_(self, model: nn.Module, *args: Any, **options: Any) -> paramz.Plan:
        """The plan, after the fault was planted."""
        plan = super().parametrize_(model, *args, **options)
        self.plant(model, plan, _ratio(plan))
        return plan


@dataclass(frozen=True)
class Fault:
    """One thing made wrong.

    Attributes:
        name: of its kind.
        target: the tensor or module.
        culprits: modules that may rightly be named.
        causes: words of which the cause has to hold one.
        task: with the fault, where it is in the model or its plan.
        optimizer: with the fault, where it is in the groups.
    """

    name: str
    target: str
    culprits: tuple[str, ...]
    causes: tuple[str, ...]
    task: paramz.Task
    optimizer: Any = "adamw"
    options: dict[str, Any] = field(default_factory=dict)


def _ratio(plan: paramz.Plan) -> float:
    return max((ratio for row in plan.rows for ratio in row.widths), default=1.0)


def task_of(animal: Animal) -> Planted:
    """An architecture as a task without a fault."""
    batch = animal.batch()
    return Planted(animal.build, lambda step: batch, roles=animal.roles)


def faults(animal: Animal) -> Iterator[Fault]:
    """All faults that can be planted in an architecture."""
    task = task_of(animal)
    plan = task.make_plan(animal.build(128), "mup", base_width=64)
    hidden = [r.name for r in plan.rows if r.role == "hidden" and len(r.shape) > 1]
    inputs = [r.name for r in plan.rows if r.role == "input" and len(r.shape) > 1]
    outputs = [r.name for r in plan.rows if r.role == "output"]
    tied = [path for r in plan.rows for path in r.readouts]
    if hidden:
        middle, early = hidden[len(hidden) // 2], hidden[len(hidden) // 5]
        yield Fault(
            "hidden lr without 1/m", middle, _near(middle), ("learning rate",), task,
            _with_rate(middle, lambda m: m),
        )  # fmt: skip
        yield Fault(
            "hidden tensor as output", early, _near(early), ("init of",),
            replace(task, roles={**task.roles, re.escape(early): "output"}),
        )  # fmt: skip
        yield Fault(
            "hidden tensor as input", early, _near(early), ("init of", "learning rate"),
            replace(task, roles={**task.roles, re.escape(early): "input"}),
        )  # fmt: skip
    if outputs:
        last = outputs[-1]

        def larger(model: nn.Module, plan: paramz.Plan, m: float) -> None:
            model.get_parameter(last).data.mul_(m**0.5)

        yield Fault(
            "readout init m^-1/2", last, (*_near(last), "(model)"), ("readout",),
            replace(task, plant=larger),
        )  # fmt: skip
    if inputs:
        first = inputs[0]
        yield Fault(
            "embedding lr times 1/m", first, _near(first), ("learning rate",), task,
            _with_rate(first, lambda m: 1 / m),
        )  # fmt: skip
        path = _near(first)[0]

        def factor(model: nn.Module, plan: paramz.Plan, m: float) -> None:
            model.get_submodule(path).register_forward_hook(lambda *call: call[-1] * m**0.5)

        yield Fault(
            "sqrt(d) in the forward", path, (path,), ("factor in the forward", "operation"),
            replace(task, plant=factor),
        )  # fmt: skip
    if tied:

        def untied(model: nn.Module, plan: paramz.Plan, m: float) -> None:
            for path in plan.multipliers:
                model.get_submodule(path).register_forward_pre_hook(
                    lambda module, args, f=1 / plan.multipliers[path]: (args[0] * f, *args[1:])
                )

        yield Fault(
            "tied readout without its multiplier", tied[0], (*tied, "(model)"),
            ("tied", "multiplier"), replace(task, plant=untied),
        )  # fmt: skip
    yield Fault("epsilon unscaled", "", (), ("epsilon",), task, _with_eps)


def attention_fault(family: str) -> Fault:
    """1/sqrt(d_head) where the size of heads grows."""
    batch = ZOO[family].batch()

    def plain(model: nn.Module, plan: paramz.Plan, m: float) -> None:
        for scale in plan.attention:
            if scale.module in modules:
                set_scale_(model, scale, scale.plain)

    build = zoo_hf.factory(family, heads="size")
    task = Planted(build, lambda step: batch, plant=plain)
    narrow = build(128)
    plan = task.make_plan(narrow, "mup", base_width=64)
    # A factor on embeddings is held in the same way, and is no fault of attention.
    modules = tuple(
        scale.module
        for scale in plan.attention
        if not isinstance(narrow.get_submodule(scale.module), nn.Embedding)
    )
    return Fault("1/sqrt(d_head), heads grow", "", modules, ("attention scale",), task)


def _near(name: str) -> tuple[str, ...]:
    """The modules that apply a tensor: torch's attention applies its out_proj's weight itself."""
    module = name.rpartition(".")[0]
    return (module, module.removesuffix(".out_proj"))


def _with_rate(name: str, factor: Callable[[float], float]) -> Any:
    def made(plan: paramz.Plan, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        wrong = model.get_parameter(name)
        groups = []
        for group in plan.param_groups(model, "adamw", lr=lr):
            rest = [p for p in group["params"] if p is not wrong]
            if len(rest) < len(group["params"]):
                rate = group["lr"] * factor(_ratio(plan))
                groups.append({**group, "params": [wrong], "lr": rate})
            if rest:
                groups.append({**group, "params": rest})
        return torch.optim.AdamW(groups)

    return made


def _with_eps(plan: paramz.Plan, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    groups = plan.param_groups(model, "adamw", lr=lr)
    return torch.optim.AdamW([{**group, "eps": EPS} for group in groups])


def checked(name: str, fault: Fault | None, task: paramz.Task, scheme: str) -> dict[str, Any]:
    """One check, as a row of the table."""
    began = time.process_time()
    row: dict[str, Any] = {"architecture": name, "fault": fault.name if fault else scheme}
    row["target"] = fault.target if fault else ""
    optimizer = fault.optimizer if fault else "adamw"
    verdict = paramz.judge(paramz.coord_check(task, optimizer=optimizer, parametrization=scheme))
    row |= {"outcome": verdict.outcome, "culprit": verdict.culprit or ""}
    if fault and verdict.outcome == "fail":
        cause = verdict.finding.partition("Cause: ")[2]
        named = row["culprit"].partition("(input)")[0].partition("#")[0]
        row["culprit_right"] = not fault.culprits or named in fault.culprits
        row["cause_right"] = any(word in cause for word in fault.causes)
    row["finding"] = verdict.finding
    row["seconds"] = round(time.process_time() - began, 1)
    return row


def rows_of(name: str) -> Iterator[dict[str, Any]]:
    """All checks of one architecture; those with sizes inside that stay have no faults planted."""
    animal = ALL[name]
    task = task_of(animal)
    yield checked(name, None, task, "mup")
    yield checked(name, None, task, "sp")
    if name in PLANNED:
        return
    found = list(faults(animal))
    if name in zoo_hf.FAMILIES:
        try:
            fault = attention_fault(name)
            found += [fault] if fault.culprits else []
        except (ValueError, TypeError) as error:
            print(f"{name}: heads cannot grow: {str(error)[:80]}")
    for fault in found:
        yield checked(name, fault, fault.task, "mup")


def axis_row(axis: Axis, check: AxisCheck) -> dict[str, Any]:
    """One check over depth or experts, as a row of the table."""
    began = time.process_time()
    base = min(next(iter(axis.sizes.values())))
    verdict = paramz.judge(
        paramz.coord_check(
            axis.task,
            **axis.sizes,
            **axis.options,
            parametrization=check.scheme,
            optimizer=check.optimizer(base, axis.size),
        )
    )
    row = {"architecture": axis.name, "fault": check.fault, "target": check.target}
    row |= {"outcome": verdict.outcome, "culprit": verdict.culprit or ""}
    if not check.fault.startswith("mup") and verdict.outcome == "fail":
        row["culprit_right"] = check.culprit in row["culprit"]
        cause = verdict.finding.partition("Cause: ")[2]
        row["cause_right"] = any(word in cause for word in check.causes)
    return {**row, "finding": verdict.finding, "seconds": round(time.process_time() - began, 1)}


def parts(df: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The table in its parts.

    Of models that were added after the judge was made, most have sizes inside that stay. There it
    may be the plan that is wrong and not the check, so they stand by themselves.
    """
    held, axis = (
        df.architecture.isin(HELD_OUT),
        df.architecture.str.contains(", (?:depth|experts)$"),
    )
    later = df.architecture.isin(PLANNED)
    found = {
        "over width": df[~held & ~axis & ~later],
        "over width, kept aside": df[held],
        "over width, sizes inside and later models": df[later],
        "over depth and experts": df[axis],
    }
    return {title: part for title, part in found.items() if len(part)}


def rates(df: pd.DataFrame) -> dict[str, float]:
    """The error rates, as shares: undecided counts as half an error."""
    right, sp = df[df.fault.str.startswith("mup")], df[df.fault == "sp"]
    wrong = df[~df.fault.str.startswith("mup") & (df.fault != "sp")]
    found = wrong[wrong.outcome == "fail"]

    def share(part: pd.DataFrame, error: str) -> float:
        return float(((part.outcome == error) + 0.5 * (part.outcome == "undecided")).mean())

    return {
        "right plans": len(right),
        "false alarms": share(right, "fail"),
        "SP not failed": share(sp, "pass"),
        "faults": len(wrong),
        "misses": share(wrong, "pass"),
        "culprit right": float(found.culprit_right.astype(bool).mean()),
        "cause right": float(found.cause_right.astype(bool).mean()),
        "median CPU seconds of a check": float(df.seconds.median()),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help="architectures; default: all that are not held out"
    )
    parser.add_argument("--held-out", action="store_true", help="those kept aside")
    parser.add_argument("--axes", action="store_true", help="over depth and over experts")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if asked.axes:
        work = {axis.name: partial(map, partial(axis_row, axis), axis.checks) for axis in axes()}
    else:
        default = [n for n in ALL if (n in HELD_OUT) == asked.held_out]
        work = {name: partial(rows_of, name) for name in asked.names or default}
    table = pd.read_csv(RESULTS) if RESULTS.is_file() else pd.DataFrame()
    for known, rows in work.items():
        new = pd.DataFrame(rows())
        for line in new.itertuples():
            print(f"{known:20} {line.fault:36} {line.outcome:10} {line.culprit}", flush=True)
        kept = table[table.architecture != known] if len(table) else table
        table = pd.concat([kept, new], ignore_index=True)
        table.to_csv(RESULTS, index=False)
    for title, part in parts(table).items():
        print(title, {k: round(v, 3) for k, v in rates(part).items()})
