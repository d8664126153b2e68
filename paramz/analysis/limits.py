"""What a fit cannot say: designs, parameters and answers that deserve a warning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array
from paramz.analysis.problem import Problem

# Inputs that share more than this of their variance (of logarithms) move together: with the usual
# scatter of losses, exponents of Chinchilla's law are then uncertain by more than their size.
_TOGETHER = 0.97
# Smallest singular value of the scaled Jacobian, over the largest, below which a direction is open.
_OPEN = 1e-5
# A loss that ends this much above its lowest rises for good; smaller steps may be noise.
_RISE = 0.003
# What runs of one table may differ in. Residuals follow it where their rank correlation is this
# large, and this many times what chance gives.
_SETTINGS = (
    "N", "D", "U", "params", "tokens", "batch", "batch_size", "steps", "width", "depth", "experts",
    "lr", "weight_decay", "step", "epoch", "epochs", "iteration",
)  # fmt: skip
_FOLLOWS, _CHANCE = 0.5, 3.0


def together(problem: Problem, share: float = _TOGETHER) -> str | None:
    """Which inputs cannot be told apart, as a warning; None where all vary on their own.

    Args:
        problem: what is fitted.
        share: what part of their variance, of logarithms, two inputs share at least.
    """
    names = list(problem.columns.values())
    # Inputs that count the same thing, as tokens and different tokens, are equal by design.
    alike = {frozenset(pair) for group in problem.form.alike for pair in combinations(group, 2)}
    worst = None
    for i, j in combinations(range(len(names)), 2):
        if frozenset((problem.form.inputs[i], problem.form.inputs[j])) in alike:
            continue
        both = float(np.corrcoef(problem.logs[i], problem.logs[j])[0, 1] ** 2)
        if both >= share:
            worst, share = (i, j), both
    if worst is None:
        return None
    i, j = worst
    ratio = np.exp(problem.logs[j] + problem.means[j] - problem.logs[i] - problem.means[i])
    steady = ratio.max() < 1.05 * ratio.min()
    how = (
        f"{names[j]} = {np.median(ratio):.3g} {names[i]} in all rows"
        if steady
        else (f"their logarithms share {share:.1%} of their variance")
    )
    return (
        f"{names[i]} and {names[j]} move together ({how}), so that their exponents cannot be told "
        f"apart, and an allocation between them is a guess: add runs at other ratios of {names[j]} "
        f"to {names[i]}"
    )


def wrong_signs(problem: Problem, params: pd.Series) -> Iterator[str]:
    """Exponents at or below zero, with which the law rises; a warning for each."""
    if not problem.form.is_loss:
        return
    for name, x in problem.form.falling:
        if params[name] <= 0:
            column = problem.columns.get(x) or next(iter(problem.columns))
            yield (
                f"{name} is {params[name]:.3g}, so the fitted loss rises with {column}: a law of "
                "the "
                "loss has an exponent above zero, and what it predicts for larger runs means "
                "nothing"
            )


def undetermined(problem: Problem, theta: Array, params: pd.Series) -> str | None:
    """Parameters that can change together and leave the law as it is, as a warning; or None.

    The rank of the Jacobian of the logarithm of the law at the optimum.
    """
    slope = problem.jacobian(theta)
    if problem.held is not None:
        slope = problem.held.basis @ slope
    size = np.linalg.norm(slope, axis=1)
    largest = size.max() if len(size) else 0.0
    if not np.isfinite(largest) or largest == 0:
        return "the fitted law does not depend on its parameters: start from other values"
    names = list(problem.form.params)
    flat = np.flatnonzero(size <= 1e-9 * largest)
    _, values, axes = np.linalg.svd(
        (slope / np.where(size > 1e-9 * largest, size, 1.0)[:, None]).T, full_matrices=False
    )
    open_axes = axes[values <= _OPEN * values.max()]
    involved = np.flatnonzero((np.abs(open_axes) > 0.2).any(axis=0)) if len(open_axes) else flat
    if problem.held is not None:
        weight = np.abs(problem.held.basis[involved]).max(axis=0) if len(involved) else np.zeros(0)
        involved = np.flatnonzero(weight > 0.2) if len(weight) else involved
    found = [names[i] for i in involved if names[i] not in _nearly_zero(problem, params)]
    if not found:
        return None
    return (
        f"these rows do not determine {', '.join(found)}: the law stays the same, to first order, "
        "when they change; take another start, fix some, or extend the range of the runs"
    )


def mixed(residuals: pd.Series, rows: pd.DataFrame, inputs: Iterable[str]) -> str | None:
    """What else the rows differ in and the loss follows, as a warning; None where nothing is.

    Args:
        residuals: log response minus its fit.
        rows: the rows that were fitted.
        inputs: the columns that the law knows.

    >>> rows = pd.DataFrame({"N": [1, 2, 3, 4] * 3, "D": np.repeat([1, 2, 3], 4)})
    >>> mixed(-np.log(rows["D"]), rows, ["N"])
    'the residuals follow D (rank correlation -1.00), which this law does not know: it mixes runs...
    """
    found, worst = None, _FOLLOWS
    for name in _SETTINGS:
        if name not in rows or name in inputs or not pd.api.types.is_numeric_dtype(rows[name]):
            continue
        both = pd.concat([residuals, rows[name].astype(float)], axis=1).dropna().rank().to_numpy()
        if len(both) < 3 or not both.std(axis=0).all():
            continue
        close = float(np.corrcoef(both.T)[0, 1])
        if abs(close) >= worst and abs(close) * (len(both) - 1) ** 0.5 >= _CHANCE:
            worst = abs(close)
            found = (
                f"the residuals follow {name} (rank correlation {close:.2f}), which this law does "
                f"not know: it mixes runs that differ in {name}; fit those of one {name}, or take "
                "a law that has it as an input"
            )
    return found


def _nearly_zero(problem: Problem, params: pd.Series) -> set[str]:
    """Offsets that fell to zero, of which another warning tells."""
    floor = 1e-4 * float(problem.response(problem.target).min())
    return {name for name in problem.form.vanishing if params[name] < floor}


def rises(scale: Array, loss: Array, name: str) -> str | None:
    """That a loss grows with the scale, as a warning; None where it falls.

    Args:
        scale: the scales.
        loss: a loss for each.
        name: what to call the scale.

    >>> rises(np.array([1.0, 2, 4]), np.array([2.0, 2.1, 2.2]), "width")
    'the loss rises with width, from 2 at 1 to 2.2 at 4: no law of a falling loss holds here...
    """
    scale, place = np.unique(scale, return_inverse=True)
    loss = np.bincount(place, loss) / np.bincount(place)
    noise = _noise(loss)
    low = int(np.argmin(loss))
    above = loss[low + 1 :] > loss[low] + max(_RISE * abs(loss[low]), 4 * noise)
    # One high point at the end may be noise, unless there is nothing below it.
    if above.sum() < (1 if low == 0 else 2) or not above[-1]:
        return None
    where = "" if low == 0 else f" beyond {scale[low]:g}"
    return (
        f"the loss rises with {name}{where}, from {loss[low]:.5g} at {scale[low]:g} to "
        f"{loss[-1]:.5g} at {scale[-1]:g}: no law of a falling loss holds here, and what is "
        f"predicted for a larger {name} means nothing. Does the hyperparameter transfer?"
    )


def _noise(loss: Array) -> float:
    """Standard deviation of the noise of a smooth curve, whose third differences are small.

    Its second differences are not where it turns and rises: a bowl bends everywhere.
    """
    for order, least, size in ((3, 3, 3.02), (2, 2, 1.65)):  # medians of normal noise of size one
        bends = np.abs(np.diff(loss, order))
        if len(bends) >= least:
            return float(np.median(bends)) / size
    return 0.0


def cautions(problem: Problem, theta: Array, params: pd.Series) -> Iterator[str]:
    """What to be careful about because of the design and the parameters found.

    Args:
        problem: what was fitted.
        theta: the fitted internal parameters, shape (p,).
        params: the same as people write them.

    Yields:
        the warnings.
    """
    if text := together(problem):
        yield text
    wrong = list(wrong_signs(problem, params))
    yield from wrong
    if len(problem.columns) == 1 and problem.form.is_loss and not wrong:
        scale = np.exp(problem.logs[0] + problem.means[0])
        loss = problem.response(problem.target)
        if text := rises(scale, loss, next(iter(problem.columns))):
            yield text
    if text := undetermined(problem, theta, params):
        yield text
