"""Fitting a scaling law to a table of runs."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from paramz.analysis.columns import Mask, positive, require
from paramz.analysis.forms import FORMS, Form
from paramz.analysis.lawfit import LawFit, LawWarning
from paramz.analysis.robust import minimize

# As in Hoffmann et al., arXiv 2203.15556, and the refits of it.
DELTA = 1e-3

Holdout = Callable[[pd.DataFrame], Mask]


@dataclass(frozen=True)
class ScalingLaw:
    """A law to fit: the name of a form (`FORMS`), or a form of one's own (`custom`).

    >>> df = pd.DataFrame({"width": [64, 128, 256, 512, 1024, 2048]})
    >>> df["loss"] = 2.0 + 9.0 / df["width"] ** 0.5
    >>> law = ScalingLaw("power").fit(df, width="width")
    >>> law.params.round(4).to_dict()
    {'E': 2.0, 'A': 9.0, 'alpha': 0.5}
    """

    form: str | Form

    def fit(
        self,
        df: pd.DataFrame,
        *,
        loss: str = "loss",
        delta: float = DELTA,
        holdout: Holdout | None = None,
        groups: str | None = None,
        **inputs: str,
    ) -> LawFit:
        """Fit the law to finished runs, by the Huber loss of log residuals.

        Give each input its column: `N="params", D="tokens"`. A law with a single input takes any
        one keyword, which then is its name in the formula: `width="width"`. Units do not matter
        but to the coefficients; say what N counts (with embeddings or without).

        Args:
            df: One row per run.
            loss: Column of the response.
            delta: Where the Huber loss turns linear, in log response.
            holdout: Which rows to keep out of the fit; see `largest`.
            groups: Column of what is resampled together, such as the run that several checkpoints
                belong to.
            **inputs: Column of each input.

        Returns:
            The fit.

        Raises:
            ValueError: There is no such form; the inputs do not match it; or there are too few
                rows or values. Columns that are missing or hold no positive numbers raise too.
        """
        form = _form(self.form)
        columns = _columns(form, inputs)
        require(df, loss, *columns.values(), *([groups] if groups else []))
        if delta <= 0:
            raise ValueError(f"delta must be above zero, got {delta}")
        held = holdout(df) if holdout else np.zeros(len(df), dtype=bool)
        data, kept_out = df[~held], df[held]
        log_y = np.log(positive(data, loss))
        raw = np.stack([np.log(positive(data, c)) for c in columns.values()])
        if len(data) < len(form.params):
            raise ValueError(
                f"{len(data)} rows cannot determine the {len(form.params)} parameters of "
                f"{form.name!r}: {', '.join(form.params)}"
            )
        for column, values in zip(columns.values(), raw, strict=True):
            if np.ptp(values) == 0:
                raise ValueError(
                    f"column {column!r} has the one value {np.exp(values[0]):g} in the rows that "
                    "are fitted: its exponent cannot be told"
                )
        means = raw.mean(axis=1) if form.centered else np.zeros(len(raw))
        logs = raw - means[:, None]

        starts = form.starts(logs, log_y)
        fits = minimize(lambda theta: form.evaluate(theta, logs), starts, log_y, delta=delta)
        best = int(np.argmin(fits.objective))
        theta = fits.theta[best]
        value, _ = form.evaluate(theta[None], logs)
        residuals = pd.Series(log_y - value[0], index=data.index, name="residual")
        params = pd.Series(form.natural(theta[None], means)[0], index=list(form.params))
        at_best = int((fits.objective <= fits.objective[best] * (1 + 1e-6) + 1e-15).sum())
        told = _warnings(form, params, residuals, data, loss, delta, groups, at_best, len(starts))
        if not fits.converged[best]:
            told.append("the optimizer did not end at a minimum: treat the parameters as a guess")
        for text in told:
            warnings.warn(text, LawWarning, stacklevel=2)
        return LawFit(
            form=form,
            columns=columns,
            loss=loss,
            params=params,
            objective=float(fits.objective[best]),
            delta=delta,
            nobs=len(data),
            converged=bool(fits.converged[best]),
            n_at_best=at_best,
            n_starts=len(starts),
            residuals=residuals,
            warnings=tuple(told),
            data=data,
            held_out=kept_out,
            _theta=theta,
            _means=means,
            _groups=data[groups].to_numpy() if groups else None,
        )


def largest(column: str, count: int | None = None, *, frac: float | None = None) -> Holdout:
    """Hold out the rows with the largest values of a column.

    Args:
        column: Usually the compute or the size.
        count: How many rows.
        frac: Or which fraction of the rows, rounded up.

    Returns:
        What `ScalingLaw.fit(holdout=...)` takes.

    Raises:
        ValueError: Neither or both of count and frac are given.

    >>> largest("N", 1)(pd.DataFrame({"N": [1, 3, 2]}))
    array([False,  True, False])
    """
    if (count is None) == (frac is None):
        raise ValueError("give either count or frac")

    def mask(df: pd.DataFrame) -> Mask:
        values = positive(df, column)
        k = count if count is not None else int(np.ceil((frac or 0.0) * len(df)))
        out = np.zeros(len(df), dtype=bool)
        out[np.argsort(values, kind="stable")[len(df) - min(k, len(df)) :]] = True
        return out

    return mask


def compare(fits: Sequence[LawFit]) -> pd.DataFrame:
    """Laws side by side, the one with the smallest held-out error first.

    Args:
        fits: Fits of the same rows with the same rows held out.

    Returns:
        `law, params, objective, scatter, holdout` (mean absolute relative error, NaN without
        held-out rows).

    Raises:
        ValueError: The fits do not share their rows, so that their errors do not compare.
    """
    first = fits[0]
    if any(not f.data.index.equals(first.data.index) for f in fits):
        raise ValueError("the fits were made on different rows; give all the same holdout")
    rows = [
        {
            "law": f.form.name,
            "params": len(f.params),
            "objective": f.objective,
            "scatter": float(f.residuals.std(ddof=0)),
            "holdout": float(f.holdout_error["error"].astype(float).abs().mean()),
        }
        for f in fits
    ]
    return pd.DataFrame(rows).sort_values("holdout", ignore_index=True)


def _form(form: str | Form) -> Form:
    if isinstance(form, Form):
        return form
    if form not in FORMS:
        raise ValueError(f"no scaling law {form!r}; choose one of {', '.join(FORMS)}, or a Form")
    return FORMS[form]


def _columns(form: Form, given: dict[str, str]) -> dict[str, str]:
    """Input -> column; a single input may have any name, and inputs default to their own."""
    if form.inputs == ("x",):
        if len(given) != 1:
            raise ValueError(
                f"{form.name!r} has one input: name it and its column, as in width='width'; got "
                f"{', '.join(given) or 'none'}"
            )
        return dict(given)
    if unknown := set(given) - set(form.inputs):
        raise ValueError(
            f"{form.name!r} has the inputs {', '.join(form.inputs)}, not {', '.join(unknown)}"
        )
    return {name: given.get(name, name) for name in form.inputs}


def _warnings(
    form: Form,
    params: pd.Series,
    residuals: pd.Series,
    data: pd.DataFrame,
    loss: str,
    delta: float,
    groups: str | None,
    at_best: int,
    starts: int,
) -> list[str]:
    told = []
    if len(data) < len(params) + 3:
        told.append(
            f"{len(data)} rows for {len(params)} parameters: fewer than 3 to spare, so the "
            "intervals rest on hardly any residuals"
        )
    floor = 1e-4 * float(data[loss].astype(float).min())
    for name in form.vanishing:
        if params[name] < floor:
            told.append(
                f"{name} fell to its bound, zero: the data do not show a floor; try 'pure_power', "
                "or extend the range"
            )
    if starts > 1 and at_best == 1:
        told.append(f"one of {starts} starts reached the best objective: it may not be the lowest")
    if delta > 10 * DELTA and (residuals.abs() <= delta).all():
        told.append(
            f"no residual exceeds delta = {delta:g}, so this is plain least squares: an outlier "
            "would count in full"
        )
    if groups and data[groups].duplicated().any():
        told.append(
            f"several rows share a {groups!r}: checkpoints taken before a learning-rate schedule "
            "has ended lie above what a run of that length reaches, and bias D's exponent; keep "
            "the last of each, or use a constant rate with a short decay for each"
        )
    return told
