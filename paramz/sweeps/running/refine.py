"""Successive refinement: first a coarse range, then trials around the optimum of each setting.

For every setting of the other axes, with losses averaged over seeds, the optimum over the refined
axis is bracketed. If it lies inside the range that was tried, the midpoints between it and its two
neighbours (in log2) are added; if it lies at an end, the next point beyond that end is added. A
round costs at most two trials per setting and seed, whereas halving the step over the whole range
would double the number of trials. A seed that failed by an error is left out of the average.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

from paramz.sweeps.spec.axes import names_of
from paramz.sweeps.spec.config import SEED, Config, config_key, encode, leaves, merged
from paramz.sweeps.spec.spec import Sweep
from paramz.sweeps.store.record import Record
from paramz.sweeps.store.store import Store


def refinement(records: Iterable[Record], axis: str, narrowest: float) -> dict[str, Config]:
    """The trials that would refine the optimum over an axis.

    Args:
        records: results, including those of earlier refinements.
        axis: the config leaf to refine, which has positive values, such as a learning rate.
        narrowest: distance in octaves; an optimum whose neighbours are nearer is not refined.

    Returns:
        New configs by key; none if every optimum is known well enough.

    Raises:
        ValueError: a value of the axis is not a positive number, or the axis has one value only.
    """
    groups: dict[str, dict[float, list[tuple[Config, float]]]] = {}
    known = set()
    for record in records:
        config = record["config"]
        known.add(record["key"])
        flat = leaves(config)
        value = flat.pop(axis, None)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value <= 0:
            raise ValueError(
                f"cannot refine {axis!r}: it must be a positive number in every config, "
                f"got {value!r}; the configs have {', '.join(leaves(config))}"
            )
        flat.pop(SEED, None)
        group = groups.setdefault(json.dumps(flat, sort_keys=True), {})
        group.setdefault(value, []).append((config, _loss(record)))
    if groups and all(len(points) == 1 for points in groups.values()):
        raise ValueError(f"cannot refine {axis!r}: it takes one value only")
    found: dict[str, Config] = {}
    for points in groups.values():
        curve = {value: _mean(losses) for value, losses in points.items()}
        for value in _next_values(curve, narrowest):
            for config, _ in next(iter(points.values())):
                new = merged(config, {axis: value})
                found[config_key(new)] = new
    return {key: config for key, config in found.items() if key not in known}


def _loss(record: Record) -> float:
    """The loss of a trial: infinite if it diverged or was stopped, NaN if it failed by an error."""
    if record["status"] == "failed":
        return math.nan
    loss = float(record["metrics"].get("loss", "nan")) if record["status"] == "ok" else math.inf
    return loss if math.isfinite(loss) else math.inf


def _mean(points: list[tuple[Config, float]]) -> float:
    """The mean over seeds. A crash says nothing of its value, unless every seed crashes there."""
    losses = [loss for _, loss in points if not math.isnan(loss)]
    return sum(losses) / len(losses) if losses else math.inf


def _next_values(curve: Mapping[float, float], narrowest: float) -> list[float]:
    """Which values to try next, given the loss at some values."""
    values = sorted(curve)
    best = min(range(len(values)), key=lambda i: curve[values[i]])
    if len(values) < 2 or not math.isfinite(curve[values[best]]):
        return []
    if best in (0, len(values) - 1):
        neighbour = values[1] if best == 0 else values[-2]
        return [_rounded(values[best] * (values[best] / neighbour))]
    return [
        _rounded(math.sqrt(values[best] * values[other]))
        for other in (best - 1, best + 1)
        if abs(math.log2(values[other] / values[best])) > narrowest * (1 + 1e-9)
    ]


def _rounded(value: float) -> float:
    """The value with its log2 rounded to 1/1024, so that equal points have equal keys."""
    return float(2.0 ** (round(1024 * math.log2(value)) / 1024))


def next_round(sweep: Sweep, store: Store) -> dict[str, Config]:
    """The next round of refinement of a sweep whose earlier trials have all ended.

    Returns:
        The new trials; none if the sweep asks for no refinement, its rounds or its budget are used
        up, or every optimum is known well enough.

    Raises:
        ValueError: the axis cannot be refined.
    """
    if sweep.refine is None or store.rounds() >= sweep.refine.rounds:
        return {}
    asked = store.trials()
    records = (record for record in store.records() if record["key"] in asked)
    new = refinement(records, sweep.refine.axis, sweep.refine.narrowest)
    if sweep.budget.trials is not None:
        room = max(0, sweep.budget.trials - len(asked))
        new = dict(list(new.items())[:room])
    return new


def begin_round(store: Store, trials: Mapping[str, Config]) -> None:
    """Write down that a sweep asks for the trials of a round of refinement."""
    store.set_trials(trials, f"refined-{store.rounds() + 1}")


def carry_over(sweep: Sweep, store: Store) -> None:
    """Keep what rounds of an earlier spec have added only where it refines a trial of this one.

    Points of other settings, such as of another number of steps, would be taken for points of the
    same curve where nothing else tells them apart. What is kept counts as no round, so that the
    settings that are new have rounds of their own. Nothing changes for the same spec.
    """
    added: dict[str, Config] = {}
    rounds = list(store.refinements())
    for path in rounds:
        added |= store.trials_of(path.stem)
    if not added or _asks_for(store, sweep):
        return
    axes = [name for title in sweep.axes for name in names_of(title)]
    axes = [sweep.refine.axis] if sweep.refine else axes
    known = {(axis, _setting(config, axis)) for config in sweep.trials.values() for axis in axes}
    kept = {
        key: config
        for key, config in added.items()
        if any((axis, _setting(config, axis)) in known for axis in axes)
    }
    store.set_trials(kept, "refined-0")
    for path in rounds:
        if path.stem != "refined-0":
            path.unlink(missing_ok=True)


def _asks_for(store: Store, sweep: Sweep) -> bool:
    """Whether a directory asks for the trials of a spec and, but for refinement, for no others."""
    try:
        return store.trials_of("trials").keys() == sweep.trials.keys()
    except ValueError:  # the file is broken, and will be written again
        return False


def _setting(config: Config, axis: str) -> str:
    """A config but for its value of an axis."""
    return encode({name: value for name, value in leaves(config).items() if name != axis})
