"""The loss of the target, by the laws; or why the runs do not tell it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from paramz.analysis.prediction import predict_loss
from paramz.analysis.tablefit import Sizes, fit_table
from paramz.tuning.proxies import FOR_A_LAW

if TYPE_CHECKING:
    import pandas as pd

# A law of N and D needs so many different values of each to tell their exponents apart.
_EACH = 3


@dataclass(frozen=True)
class Forecast:
    """The loss that the target is predicted to reach.

    Attributes:
        mean: the prediction; None where the runs do not tell it.
        lo: lower end of the 95 % interval.
        hi: upper end.
        law: the fitted law in words.
        held_out: relative errors at the largest runs, predicted from the others.
        missing: why there is no prediction, and which runs would give one.
        cautions: what to be careful about.
    """

    mean: float | None = None
    lo: float | None = None
    hi: float | None = None
    law: str = ""
    held_out: tuple[float, ...] = ()
    missing: str = ""
    cautions: tuple[str, ...] = field(default=())


def over_width(runs: pd.DataFrame, hp: str, value: float, width: int) -> Forecast:
    """The loss at a width, from runs of the proxies at the chosen value and as many steps.

    Args:
        runs: those runs.
        hp: the hyperparameter.
        value: the chosen value.
        width: of the target.
    """
    widths = runs["width"].nunique()
    if widths < FOR_A_LAW:
        return Forecast(
            missing=f"a power law with a floor, an interval and a test need {FOR_A_LAW} widths, "
            f"there are {widths}: a larger budget or a larger target gives more"
        )
    try:
        (found,) = predict_loss(runs.assign(group="all"), [width], hp=hp, value=value, by="group")
    except ValueError as error:
        return Forecast(missing=str(error))
    ahead = found.ahead.iloc[0]
    errors = tuple(float(e) for e in found.trial.holdout_error["error"])
    return _sound(
        Forecast(
            mean=float(ahead["mean"]),
            lo=float(ahead["lo"]),
            hi=float(ahead["hi"]),
            law=f"loss = {found.fit.formula}, {_params(found.fit)}",
            held_out=errors,
            cautions=found.warnings,
        )
    )


def over_size_and_data(
    runs: pd.DataFrame, inputs: dict[str, str], point: dict[str, float]
) -> Forecast:
    """The loss at a size and an amount of data, from proxies at several of each.

    Args:
        runs: runs at the value that suits their number of steps.
        inputs: the columns of N and of D.
        point: N and D of the target.
    """
    for name, column in inputs.items():
        if (count := runs[column].nunique()) < _EACH:
            return Forecast(
                missing=f"a law in N and D needs {_EACH} values of each, there are {count} of "
                f"{name} ({column})"
            )
    means = runs.groupby(list(inputs.values()))["loss"].mean().reset_index()
    try:
        found = fit_table(means, Sizes("chinchilla", inputs, (point,)))
    except ValueError as error:
        return Forecast(missing=str(error))
    ahead = found.ahead.iloc[0]
    held = found.trial.holdout_error["error"] if found.trial is not None else ()
    unclear = found.fit.unclear()
    text = (
        f"loss = {found.fit.formula}, {_params(found.fit)}; N in {inputs['N']}, D in {inputs['D']}"
    )
    if unclear:
        return Forecast(
            missing=f"the runs do not determine {', '.join(unclear)} of {found.fit.formula}: its "
            "interval holds zero. Proxies over a wider range of widths and steps, or more seeds "
            "(a larger budget), would"
        )
    return _sound(
        Forecast(
            mean=float(ahead["mean"]),
            lo=float(ahead["lo"]),
            hi=float(ahead["hi"]),
            law=text,
            held_out=tuple(float(e) for e in held),
            cautions=found.warnings,
        )
    )


def _sound(found: Forecast) -> Forecast:
    """The forecast, unless its interval is as wide as the loss itself and so says nothing."""
    assert found.mean is not None and found.lo is not None and found.hi is not None
    if not 0 < found.lo <= found.hi < 2 * found.mean:
        return Forecast(
            law=found.law,
            held_out=found.held_out,
            missing=f"the interval of the prediction, {found.lo:.3g} to {found.hi:.3g}, is wider "
            "than the loss itself: the runs do not determine the law so far out. Larger proxies or "
            "more seeds (a larger budget) would",
            cautions=found.cautions,
        )
    return found


def _params(fit: Any) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in fit.params.items())
