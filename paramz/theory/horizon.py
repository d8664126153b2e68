"""Another batch size or number of steps: named rules for lr, decay, momentum and epsilon.

A parametrization transfers hyperparameters between models that are trained for as many steps at the
same batch size. When the run itself changes, these rules say how they move with the ratios of batch
size and number of steps (target / base; the ratio of tokens is their product).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from paramz.theory.families import family as find_family
from paramz.theory.power import ONE, Power

HALF = Fraction(1, 2)
BATCH = Power(batch=1)
STEPS = Power(steps=1)


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """How hyperparameters move with batch size and number of steps, for one optimizer column.

    Attributes:
        lr, weight_decay, eps: factors on those at the base; decay is stated for p -= lr wd p.
        forgetting: factor on 1 - beta, of every beta and momentum.
    """

    lr: Power = ONE
    weight_decay: Power = ONE
    forgetting: Power = ONE
    eps: Power = ONE


# By rule, then by the column of the tables. The exponents are those that the papers derive for
# Adam, and for SGD, whose step is linear in the gradient. The rules differ from each other: at a
# fixed number of tokens "token-horizon" leaves lr alone, where "sde" multiplies it by batch^1/2.
HORIZONS: Mapping[str, Mapping[str, Horizon]] = MappingProxyType(
    {
        # Square-root rule: the same stochastic differential equation at another batch size.
        # Malladi et al. 2022 (arXiv 2205.10287) definitions 4.2 and 4.3; SGD: Li et al. 2019.
        # Decay keeps its time scale in tokens: lr * wd ~ batch.
        "sde": {
            "adam": Horizon(
                lr=BATCH**HALF, weight_decay=BATCH**HALF, forgetting=BATCH, eps=BATCH**-HALF
            ),
            "sgd": Horizon(lr=BATCH),
        },
        # The same with the length of the run as the equation's time: a run with more tokens goes
        # over the same path in finer steps. Mlodozeniec et al. 2025 (arXiv 2512.22382).
        "completed": {
            "adam": Horizon(
                lr=STEPS**-HALF, weight_decay=STEPS**-HALF, forgetting=1 / STEPS, eps=STEPS**HALF
            ),
        },
        # The averaging time 1 / (lr * wd) of AdamW stays the same part of the run.
        # Wang and Aitchison 2024 (arXiv 2405.13698).
        "timescale": {"adam": Horizon(weight_decay=1 / STEPS)},
        # Fitted on language models: lr ~ tokens^-0.32. Bjorck et al. 2024 (arXiv 2409.19913).
        "token-horizon": {"adam": Horizon(lr=(BATCH * STEPS) ** Fraction(-8, 25))},
    }
)


def transfer_run(
    rule: str,
    optimizer: Any,
    *,
    lr: float,
    weight_decay: float | None = None,
    eps: float | None = None,
    betas: tuple[float, float] | None = None,
    momentum: float | None = None,
    batch: float = 1.0,
    steps: float = 1.0,
) -> dict[str, Any]:
    """Hyperparameters for another batch size or number of steps, ready for `Plan.param_groups`.

    Args:
        rule: a key of `HORIZONS`: sde, completed, timescale or token-horizon.
        optimizer: name, class or instance.
        lr: at the base run.
        weight_decay: at the base run; left out of the result if left out here, as all below.
        eps: at the base run.
        betas: at the base run.
        momentum: at the base run.
        batch: batch size of the target run / that of the base run.
        steps: its number of steps / that of the base run.

    Raises:
        ValueError: the rule is unknown or has no column for this optimizer, or a beta would leave
            [0, 1): the batch grew so much that the run cannot follow.

    >>> transfer_run("sde", "adamw", lr=0.001, betas=(0.9, 0.99), batch=4, steps=1 / 4)
    {'lr': 0.002, 'betas': (0.6, 0.96)}
    """
    if rule not in HORIZONS:
        raise ValueError(f"no horizon rule {rule!r}; there are {', '.join(HORIZONS)}")
    column = find_family(optimizer).column
    if column not in HORIZONS[rule]:
        raise ValueError(
            f"the horizon rule {rule!r} has no column {column}; it has {', '.join(HORIZONS[rule])}"
        )
    horizon, ratios = HORIZONS[rule][column], {"batch": batch, "steps": steps}
    changed: dict[str, Any] = {"lr": lr * horizon.lr(ratios)}
    if weight_decay is not None:
        changed["weight_decay"] = weight_decay * horizon.weight_decay(ratios)
    if eps is not None:
        changed["eps"] = eps * horizon.eps(ratios)
    forgetting = horizon.forgetting(ratios)
    if betas is not None:
        changed["betas"] = tuple(_forget(beta, forgetting) for beta in betas)
    if momentum is not None:
        changed["momentum"] = _forget(momentum, forgetting)
    return changed


def _forget(beta: float, factor: float) -> float:
    changed = 1.0 - factor * (1.0 - beta)
    if not 0.0 <= changed < 1.0:
        raise ValueError(
            f"1 - beta = {1.0 - beta:.4g} times {factor:.4g} is more than 1: at this batch size "
            "the optimizer would have to forget faster than it steps; grow the batch less"
        )
    return round(changed, 12)
