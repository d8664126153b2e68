"""The specs of the steps: pilot, range, sweep, shorter and repeats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paramz.analysis.answer import BATCHES, STEPS
from paramz.sweeps.spec.config import SEED, leaves, merged
from paramz.tuning.cost import LONG, SHORT, WARM_UP, Cost
from paramz.tuning.proxies import Design
from paramz.tuning.source import Source

# Octaves of the range in which a learning rate is looked for; refinement goes on beyond them.
_RANGE = (-14, 2)
# Octaves between the values of the range; of the sweep on either side of the best of it, and
# between its values. (With 2 octaves in steps of 1, the first run of all, of a byte-level GPT in 3
# CPU-minutes, left the optimum of the smallest proxy open above.)
_COARSE, _HALF, _STEP = 2, 3, 1.5
# Trials of a queue may take so many times what the pilot says before they are ended.
_PATIENCE = 4.0
_PILOT_MINUTES = 30


@dataclass(frozen=True)
class Setting:
    """What the specs of all steps have in common.

    Attributes:
        source: what is tuned.
        hp: the hyperparameter.
        base: config values beside those of the source.
        limited: trials need a time limit, as on a cluster.
        gpus: trials get a GPU each, unless the source says otherwise.
    """

    source: Source
    hp: str
    base: Mapping[str, Any]
    limited: bool
    gpus: bool

    @property
    def steps(self) -> str:
        """What the number of steps is called in the config."""
        return self._called(STEPS)

    @property
    def batch(self) -> str:
        """What the batch size is called."""
        return self._called(BATCHES)

    def _called(self, names: Sequence[str]) -> str:
        known = {**leaves(self.config), **dict.fromkeys(self.source.takes or ())}
        return next((name for name in names if name in known), names[0])

    @property
    def config(self) -> dict[str, Any]:
        """The values that all trials have."""
        return merged(self.source.base, self.base)

    @property
    def seeds(self) -> bool:
        """Whether trials can be repeated with other seeds."""
        return self.source.reached(SEED)

    def spec(self, axes: Mapping[str, Any], minutes: float, **more: Any) -> dict[str, Any]:
        """A spec with these axes; trials of a queue are ended after so many minutes."""
        resources = dict(self.source.fields.get("resources") or {})
        if self.limited:
            resources.setdefault("minutes", math.ceil(minutes))
        if self.gpus:
            resources.setdefault("gpus", 1)
        content = self.source.sweep(axes, self.base, **more)
        names = {name.strip() for title in axes for name in title.split(",")}
        content["base"] = {k: v for k, v in content["base"].items() if k not in names}
        return content | ({"resources": resources} if resources else {})


def pilot(setting: Setting, widths: Sequence[tuple[int, int | None]], steps: int | None) -> Any:
    """Few steps at some widths, to see what they take; whole trials where steps cannot be set."""
    axes: dict[str, Any] = {}
    if steps is not None and steps > LONG:
        axes[setting.steps] = [WARM_UP, SHORT, LONG]  # the first ones load data and compile
    axes |= {**_sizes(widths), setting.hp: [2.0 ** (sum(_RANGE) // 2 - 2)]}
    content = setting.spec(axes | _seed(setting, 1), _PILOT_MINUTES)
    if steps is not None and setting.steps not in axes:
        content["base"][setting.steps] = steps
    return content


def coarse(setting: Setting, design: Design, cost: Cost) -> Any:
    """The hyperparameter over a wide range at the smallest proxy."""
    axes = _sizes([(design.widths[0], design.depths[0])]) | {
        setting.hp: {"log2": list(_RANGE), "step": _COARSE}
    }
    refine = {"axis": setting.hp, "rounds": 3, "narrowest": _COARSE}
    return _long(setting, axes | _seed(setting, 1), [design.widths[0]], cost, design, refine=refine)


def sweep(setting: Setting, design: Design, cost: Cost, center: float | None) -> Any:
    """The hyperparameter around the best of the range, at every proxy.

    Args:
        setting: what all specs share.
        design: the proxies.
        cost: what trials take.
        center: log2 of the best of the range; None where the source says which values to try.
    """
    grid = setting.source.axes.get(setting.hp)
    if center is not None:
        grid = _around(center)
    axes = _sizes(zip(design.widths, design.depths, strict=True)) | {setting.hp: grid}
    refine = {"axis": setting.hp, "rounds": 3, "narrowest": _STEP / 2}
    axes |= _seed(setting, design.seeds)
    return _long(setting, axes, design.widths, cost, design, refine=refine)


def shorter(setting: Setting, design: Design, cost: Cost, best: float) -> Any:
    """The hyperparameter in shorter runs of the smallest proxy, around its best value there."""
    middle = round(math.log2(best))
    axes = {
        setting.steps: list(design.shorter),
        **_sizes([(design.widths[0], design.depths[0])]),
        setting.hp: _around(middle),
    }
    refine = {"axis": setting.hp, "rounds": 3, "narrowest": _STEP / 2}
    axes |= _seed(setting, design.seeds)
    return _long(setting, axes, [design.widths[0]], cost, design, refine=refine)


def repeats(
    setting: Setting, design: Design, cost: Cost, values: Mapping[int | None, float]
) -> Any:
    """Every proxy at the chosen value, from which the loss is predicted.

    Args:
        setting: what all specs share.
        design: the proxies.
        cost: what trials take.
        values: the value for each number of steps.
    """
    axes = _sizes(zip(design.widths, design.depths, strict=True))
    if len(values) > 1:
        axes[f"{setting.steps}, {setting.hp}"] = [[steps, lr] for steps, lr in values.items()]
    else:
        axes[setting.hp] = list(values.values())
    axes |= _seed(setting, design.repeats)
    return _long(setting, axes, design.widths, cost, design)


def _long(
    setting: Setting,
    axes: Mapping[str, Any],
    widths: Sequence[int],
    cost: Cost,
    design: Design,
    **more: Any,
) -> Any:
    minutes = 1 + _PATIENCE * cost.trial(max(widths), design.steps) / 60
    content = setting.spec(axes, minutes, **more)
    titles = [name.strip() for title in axes for name in title.split(",")]
    if design.steps is not None and setting.steps not in titles:
        content["base"][setting.steps] = design.steps
    return content


def _sizes(pairs: Any) -> dict[str, Any]:
    """The axis of widths, with depths beside them if they move together."""
    pairs = list(pairs)
    if all(depth is None for _, depth in pairs):
        return {"width": [width for width, _ in pairs]}
    return {"width, depth": [list(pair) for pair in pairs]}


def _around(center: float) -> dict[str, Any]:
    """Values on either side of one, wide enough that the loss rises on both."""
    return {"log2": [center - _HALF, center + _HALF], "step": _STEP}


def _seed(setting: Setting, number: int) -> dict[str, Any]:
    return {SEED: list(range(number))} if setting.seeds else {}
