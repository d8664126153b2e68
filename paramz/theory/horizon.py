"""Another batch size or number of steps: named rules for lr, decay, momentum and epsilon.

A parametrization transfers hyperparameters between models that are trained for as many steps at the
same batch size. When the run itself changes, these rules say how they move with the ratios of batch
size and number of steps (target / base; the ratio of tokens is their product).

Most papers answer one of two questions: another batch size at the same number of tokens, or
another number of tokens at the same batch size. Rules multiply, so ``"sde+token-horizon"`` answers
both: the first moves the batch size, the second then the tokens. A run that changes what no rule
speaks of is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from paramz.theory.families import Family
from paramz.theory.families import family as find_family
from paramz.theory.power import ONE, Power

HALF = Fraction(1, 2)
BATCH = Power(batch=1)
STEPS = Power(steps=1)
TOKENS = BATCH * STEPS


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """How hyperparameters move with batch size and number of steps, for one optimizer column.

    Attributes:
        lr, weight_decay, eps: factors on those at the base; decay is stated for p -= lr wd p, and
            eps for an optimizer that adds it to something of degree 1 in the gradient.
        forgetting: factor on 1 - beta, of every beta and momentum.
    """

    lr: Power = ONE
    weight_decay: Power = ONE
    forgetting: Power = ONE
    eps: Power = ONE

    def __mul__(self, other: Horizon) -> Horizon:
        names = ("lr", "weight_decay", "forgetting", "eps")
        return Horizon(**{name: getattr(self, name) * getattr(other, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class RunRule:
    """A rule for runs that differ in batch size, in tokens, or in both.

    Attributes:
        source: the paper or code, for people.
        moves: what it answers: ``batch`` (at a fixed number of tokens), ``tokens`` (at a fixed
            batch size), or both.
        columns: by optimizer column of the tables. ``muon`` is for Muon, for SOAP, and for Shampoo
            with exponents of -1/4, whose steps do not grow with the gradient, like Adam's. SOAP,
            which is Adam in another basis, reads adam where a rule has no muon.
        spheres: it is for optimizers that keep the norms of their matrices only.
    """

    source: str
    moves: tuple[str, ...]
    columns: Mapping[str, Horizon]
    spheres: bool = False


_SAME = Horizon()
_ADAM_SDE = Horizon(lr=BATCH**HALF, weight_decay=BATCH**HALF, forgetting=BATCH, eps=BATCH**-HALF)
_ROOT = Horizon(lr=BATCH**HALF, weight_decay=BATCH**HALF / TOKENS)
_FITTED = Horizon(lr=TOKENS ** Fraction(-8, 25))

# The rules differ from each other: at a fixed number of tokens "completed" is "sde"; in a longer
# run at the same batch size it takes lr down as steps^-1/2, "token-horizon" as steps^-0.32,
# "nanochat" and "constant" not at all. None of them follows from muP; measure which one holds.
HORIZONS: Mapping[str, RunRule] = MappingProxyType(
    {
        # Square-root rule: the same stochastic differential equation at another batch size.
        # Decay keeps its time scale in tokens: lr * wd ~ batch.
        "sde": RunRule(
            source="Malladi et al. 2022 (arXiv 2205.10287) definitions 4.2 and 4.3; SGD: Li et al. "
            "2019; K-FAC, whose factors are means over examples, is linear in the mean gradient as "
            "SGD is; Muon, SOAP, Shampoo: Adam's argument for a step that does not grow with the "
            "gradient's noise, derived here",
            moves=("batch",),
            columns={
                "adam": _ADAM_SDE,
                "sgd": Horizon(lr=BATCH),
                "muon": _ADAM_SDE,
                "kfac": Horizon(lr=BATCH),
                "foof": Horizon(lr=BATCH),
            },
        ),
        # The same with the length of the run as the equation's time: a run with more tokens goes
        # over the same path in finer steps.
        "completed": RunRule(
            source="Mlodozeniec et al. 2025 (arXiv 2512.22382)",
            moves=("batch", "tokens"),
            columns={
                "adam": Horizon(
                    lr=STEPS**-HALF,
                    weight_decay=STEPS**-HALF,
                    forgetting=1 / STEPS,
                    eps=STEPS**HALF,
                ),
            },
        ),
        # The averaging time 1 / (lr * wd) of AdamW stays the same part of the run; lr stays.
        "timescale": RunRule(
            source="Wang and Aitchison 2024 (arXiv 2405.13698)",
            moves=("tokens",),
            columns={"adam": Horizon(weight_decay=1 / TOKENS)},
        ),
        # Fitted on language models at a fixed batch size.
        "token-horizon": RunRule(
            source="Bjorck et al. 2024 (arXiv 2409.19913): lr ~ tokens^-0.32",
            moves=("tokens",),
            columns={"adam": _FITTED},
        ),
        # The same power, fitted for optimizers that keep the norms of their matrices. No decay.
        "hyperp": RunRule(
            source="HyperP (arXiv 2603.28743) and its code: lr ~ tokens^-0.32; not measured here",
            moves=("tokens",),
            columns={"adam": _FITTED, "muon": _FITTED},
            spheres=True,
        ),
        # lr * wd * steps stays, as in "timescale".
        "nanochat": RunRule(
            source="nanochat's base_train.py (Karpathy 2025): lr ~ batch^1/2 for AdamW and Muon, "
            "decay ~ batch^1/2 / tokens",
            moves=("batch", "tokens"),
            columns={"adam": _ROOT, "muon": _ROOT},
        ),
        # What everyone does who states no rule.
        "constant": RunRule(
            source="no source: a longer run with the hyperparameters of a shorter one",
            moves=("tokens",),
            columns=dict.fromkeys(("adam", "sgd", "muon", "kfac", "foof"), _SAME),
        ),
    }
)


def run_rules(rule: str) -> tuple[RunRule, ...]:
    """The rules of a name; ``"a+b"`` names several, whose powers multiply.

    Raises:
        ValueError: there is no such rule, or two of them answer the same question.

    >>> [rule.moves for rule in run_rules("sde+token-horizon")]
    [('batch',), ('tokens',)]
    """
    names = [name.strip() for name in rule.split("+")]
    for name in names:
        if name not in HORIZONS:
            raise ValueError(
                f"no horizon rule {name!r}; there are {', '.join(HORIZONS)}, and products 'a+b'"
            )
    found = tuple(HORIZONS[name] for name in names)
    moved = [what for one in found for what in one.moves]
    twice = next((what for what in moved if moved.count(what) > 1), None)
    if twice is not None:
        both = " and ".join(n for n, one in zip(names, found, strict=True) if twice in one.moves)
        raise ValueError(
            f"{rule!r}: {both} both say how values move with {twice}; keep one of them"
        )
    return found


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
        rule: a key of `HORIZONS` (sde, completed, timescale, token-horizon, hyperp, nanochat or
            constant),
            or a product such as ``"sde+token-horizon"`` of one for the batch size and one for the
            number of tokens.
        optimizer: name, class or instance.
        lr: at the base run.
        weight_decay: at the base run; left out of the result if left out here, as all below.
        eps: at the base run.
        betas: at the base run.
        momentum: at the base run.
        batch: batch size of the target run / that of the base run.
        steps: its number of steps / that of the base run.

    Raises:
        ValueError: the rule is unknown or has no column for this optimizer; it says nothing of what
            changes (the batch size, or the number of tokens, batch * steps); a ratio is not
            positive; or a beta would leave [0, 1): the batch grew so much that the run cannot
            follow.

    >>> transfer_run("sde", "adamw", lr=0.001, betas=(0.9, 0.99), batch=4, steps=1 / 4)
    {'lr': 0.002, 'betas': (0.6, 0.96)}
    >>> transfer_run("sde+token-horizon", "adamw", lr=0.001, batch=4, steps=2)["lr"]
    0.001028113...
    """
    rules, family = run_rules(rule), find_family(optimizer)
    _refuse_unanswered(rule, rules, batch, steps)
    horizon = _SAME
    for one in rules:
        horizon = horizon * _column(rule, one, family)
    ratios = {"batch": batch, "steps": steps}
    changed: dict[str, Any] = {"lr": lr * horizon.lr(ratios)}
    if weight_decay is not None:
        power = horizon.weight_decay
        if family.decay == "l2-normalised":
            # It is added to the gradient, whose noise falls so, before that is normalised.
            power = power * BATCH**-HALF
        changed["weight_decay"] = weight_decay * power(ratios)
    if eps is not None:
        # Shampoo adds it to G G^T, which is of degree 2, and NorMuon where no size is left.
        changed["eps"] = eps * (horizon.eps**family.eps_shift)(ratios)
    forgetting = horizon.forgetting(ratios)
    if betas is not None:
        changed["betas"] = tuple(_forget(beta, forgetting) for beta in betas)
    if momentum is not None:
        changed["momentum"] = _forget(momentum, forgetting)
    return changed


def _refuse_unanswered(name: str, rules: tuple[RunRule, ...], batch: float, steps: float) -> None:
    for what, ratio in (("batch", batch), ("steps", steps)):
        if not 0 < ratio < float("inf"):
            raise ValueError(f"{what}={ratio} is no ratio: give target / base, a positive number")
    moved = {what for rule in rules for what in rule.moves}
    tokens = batch * steps
    changes = {"batch": abs(batch - 1) > 1e-9, "tokens": abs(tokens - 1) > 1e-9}
    if changes["tokens"] and "tokens" not in moved:
        others = ", ".join(n for n, rule in HORIZONS.items() if rule.moves == ("tokens",))
        raise ValueError(
            f"{name!r} is for the same number of tokens, and batch={batch:g} times steps={steps:g} "
            f"is {tokens:.4g} times as many: give steps={1 / batch:g}, or say how values move with "
            f"tokens, too, such as '{name}+token-horizon' ({others})"
        )
    if changes["batch"] and "batch" not in moved:
        raise ValueError(
            f"{name!r} is for the same batch size, and batch={batch:g}: say how values move with "
            f"it, too, such as 'sde+{name}'"
        )


def _column(name: str, rule: RunRule, family: Family) -> Horizon:
    """A rule's powers for an optimizer; a grafted step has those of the optimizer grafted on."""
    if rule.spheres and not family.sphere:
        raise ValueError(
            f"{name!r} is for optimizers that keep the norms of their matrices (adamh, muonh; "
            f"paramz.optim.constrained), and {family.name} does not"
        )
    column = "adam" if family.rotated and "muon" not in rule.columns else family.column
    column = family.graft or column
    odd = family.exponent is not None and family.exponent != HALF and family.graft is None
    if column in rule.columns and not odd:
        return rule.columns[column]
    have = ", ".join(rule.columns)
    what = f"Shampoo with exponents that sum to {family.exponent}" if odd else f"column {column}"
    fit = [n for n, r in HORIZONS.items() if column in r.columns and r.moves == rule.moves]
    way = f"; {' and '.join(fit)} have" if fit and not odd else ""
    raise ValueError(f"the horizon rule {name!r} has no {what}; it has {have}{way}")


def _forget(beta: float, factor: float) -> float:
    changed = 1.0 - factor * (1.0 - beta)
    if not 0.0 <= changed < 1.0:
        raise ValueError(
            f"1 - beta = {1.0 - beta:.4g} times {factor:.4g} is more than 1: at this batch size "
            "the optimizer would have to forget faster than it steps; grow the batch less"
        )
    return round(changed, 12)
