"""Successive refinement: a coarse range first, then trials only around each scale's optimum.

For each setting of the other axes (seeds aside) the optimum over the refined axis is bracketed. If
it lies inside what was tried, the midpoints to its two neighbours in log2 are added; if it lies at
an end, the next point beyond that end is. A round costs two trials per setting and seed where
halving the step of the whole range would double it.
"""

import json
import math
from collections.abc import Iterable, Mapping

from paramz.sweeps.spec.config import Config, config_key, leaves, merged
from paramz.sweeps.spec.spec import Sweep
from paramz.sweeps.store.store import Record, Store

SEED = "seed"


def refinement(records: Iterable[Record], axis: str, narrowest: float) -> dict[str, Config]:
    """The trials that would refine the optimum over an axis.

    Args:
        records: Results, those of earlier refinements among them.
        axis: The config leaf to refine, positive numbers: a learning rate.
        narrowest: Octaves; an optimum whose neighbours are nearer than this is done.

    Returns:
        New configs by key, none if every optimum is bracketed narrowly enough.

    Raises:
        ValueError: If the axis is not one of positive numbers that varies.
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
        loss = float(record["metrics"].get("loss", "nan")) if record["status"] == "ok" else math.inf
        point = (config, loss if math.isfinite(loss) else math.inf)
        groups.setdefault(json.dumps(flat, sort_keys=True), {}).setdefault(value, []).append(point)
    if groups and all(len(points) == 1 for points in groups.values()):
        raise ValueError(f"cannot refine {axis!r}: it takes one value only")
    found: dict[str, Config] = {}
    for points in groups.values():
        curve = {value: _mean(losses) for value, losses in points.items()}
        for value in _next(curve, narrowest):
            for config, _ in next(iter(points.values())):
                new = merged(config, {axis: value})
                found[config_key(new)] = new
    return {key: config for key, config in found.items() if key not in known}


def _mean(points: list[tuple[Config, float]]) -> float:
    return sum(loss for _, loss in points) / len(points)


def _next(curve: Mapping[float, float], narrowest: float) -> list[float]:
    """Where to look next, given the loss at some values."""
    values = sorted(curve)
    best = min(range(len(values)), key=lambda i: curve[values[i]])
    if len(values) < 2 or not math.isfinite(curve[values[best]]):
        return []
    if best in (0, len(values) - 1):
        beside = values[1] if best == 0 else values[-2]
        return [_exact(values[best] * (values[best] / beside))]
    return [
        _exact(math.sqrt(values[best] * values[other]))
        for other in (best - 1, best + 1)
        if abs(math.log2(values[other] / values[best])) > narrowest * (1 + 1e-9)
    ]


def _exact(value: float) -> float:
    """The same power of two however it was reached: its exponent to 1/1024 of an octave."""
    return float(2.0 ** (round(1024 * math.log2(value)) / 1024))


def add_round(sweep: Sweep, store: Store) -> dict[str, Config]:
    """Add the next round of refinement to a sweep's trials, once all those before have ended.

    Returns:
        The new trials; none if the sweep asks for no refinement, its rounds or its budget are used
        up, or every optimum is known well enough.

    Raises:
        ValueError: If the axis cannot be refined.
    """
    done = store.rounds()
    if sweep.refine is None or done >= sweep.refine.rounds:
        return {}
    asked = store.trials()
    records = (record for record in store.records() if record["key"] in asked)
    new = refinement(records, sweep.refine.axis, sweep.refine.narrowest)
    if sweep.budget.trials is not None:
        room = max(0, sweep.budget.trials - len(asked))
        new = dict(list(new.items())[:room])
    if new:
        store.set_trials(new, f"refined-{done + 1}")
    return new
