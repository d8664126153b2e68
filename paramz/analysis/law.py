"""Fitting a scaling law to a table of runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from paramz.analysis import limits
from paramz.analysis.columns import Array, Mask, positive, require
from paramz.analysis.forms import FORMS, Form
from paramz.analysis.lawfit import LawFit, LawWarning
from paramz.analysis.problem import Choices, log_residuals, make_problem
from paramz.analysis.statuses import left_out, trained

# Which rows to keep out of a fit.
Holdout = Callable[[pd.DataFrame], Mask]


@dataclass(frozen=True)
class ScalingLaw:
    """A law to fit: the name of a form (`FORMS`), or a form of one's own (`custom`).

    Attributes:
        form: its name or itself.
        fixed: values of parameters that are known, as in ``{"E": 1.69}``.
        shared: for a parameter, the other that it equals, as in ``{"beta": "alpha"}``.

    >>> df = pd.DataFrame({"width": [64, 128, 256, 512, 1024, 2048]})
    >>> df["loss"] = 2.0 + 9.0 / df["width"] ** 0.5
    >>> law = ScalingLaw("power").fit(df, width="width")
    >>> law.params.round(4).to_dict()
    {'E': 2.0, 'A': 9.0, 'alpha': 0.5}
    """

    form: str | Form
    fixed: Mapping[str, float] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)

    def fit(
        self,
        df: pd.DataFrame,
        *,
        loss: str = "loss",
        delta: float | None = None,
        holdout: Holdout | None = None,
        groups: str | None = None,
        weights: str | None = None,
        residuals: str = "log",
        **inputs: str,
    ) -> LawFit:
        """Fit the law to finished runs, by the Huber loss of log residuals, or of plain ones.

        Give each input its column: ``N="params", D="tokens"``. A law with a single input takes any
        one keyword, which then is its name in the formula: ``width="width"``. Units change the
        coefficients only; say what N counts (with embeddings or without).

        Args:
            df: one row per run. Those that by a column ``status`` did not end well are left out,
                of which a warning tells.
            loss: column of the response.
            delta: where the Huber loss turns linear, in the units of the residuals. By default 1e-3
                in log response, as in Hoffmann et al., arXiv 2203.15556; and one for a law of a
                hyperparameter, or a response that sits on a grid of a quarter octave or more, where
                residuals of a grid step are no outliers.
            holdout: which rows to keep out of the fit; see `largest`.
            groups: column of what is resampled together, such as the run that several checkpoints
                belong to; two or more.
            weights: column of how much each row counts: the inverse of the variance of its
                residual, up to a factor.
            residuals: ``"log"``, or ``"loss"`` for those of the response itself, as in Gadre
                et al., arXiv 2403.08540.
            **inputs: column of each input.

        Returns:
            the fit.

        Raises:
            KeyError: a column is missing.
            ValueError: there is no such form or kind of residuals, the inputs do not match it, a
                column holds values that have no logarithm, there are too few rows or values, or a
                parameter cannot be fixed or shared.
        """
        form = _form(self.form)
        columns = _columns(form, inputs)
        require(df, loss, *columns.values(), *(name for name in (groups, weights) if name))
        given, df = df, trained(df)
        held = holdout(df) if holdout else np.zeros(len(df), dtype=bool)
        data = df[~held]
        choices = Choices(delta, residuals, weights, dict(self.fixed), dict(self.shared))
        problem = make_problem(form, columns, data, loss, choices)
        starts = problem.starts()
        fits = problem.minimize(starts)
        best = int(np.argmin(fits.objective))
        theta = fits.theta[best]
        at_best = fits.objective <= fits.objective[best] * (1 + 1e-6) + 1e-15
        fit = LawFit(
            form=form,
            columns=columns,
            loss=loss,
            params=pd.Series(problem.natural(theta[None])[0], index=list(form.params)),
            objective=float(fits.objective[best]),
            delta=problem.delta,
            nobs=len(data),
            converged=bool(fits.converged[best]),
            n_at_best=int(at_best.sum()),
            n_starts=len(starts),
            residuals=log_residuals(problem, theta, data),
            warnings=(),
            data=data,
            held_out=df[held],
            choices=choices,
            _problem=problem,
            _theta=theta,
            _groups=_labels(data, groups) if groups else None,
        )
        cautions = tuple(filter(None, (left_out(given, df), *_cautions(fit, groups))))
        for text in cautions:
            warnings.warn(text, LawWarning, stacklevel=2)
        return replace(fit, warnings=cautions)


def largest(column: str, count: int | None = None, *, frac: float | None = None) -> Holdout:
    """Hold out the rows with the largest values of a column.

    Args:
        column: usually the compute or the size.
        count: how many rows.
        frac: or which fraction of the rows, rounded up.

    Returns:
        what ``ScalingLaw.fit(holdout=...)`` takes.

    Raises:
        ValueError: neither or both of count and frac are given.

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
        fits: fits of the same rows with the same rows held out.

    Returns:
        ``law, params, objective, scatter, holdout`` (mean absolute relative error, NaN without
        held-out rows).

    Raises:
        ValueError: the fits do not share their rows, so that their errors do not compare.
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
    """The column of each input.

    A single input may have any name. Of several, those that are not given are their own columns.
    """
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


def _labels(df: pd.DataFrame, groups: str) -> Array:
    """A number for the group of each row."""
    labels = pd.factorize(df[groups])[0]
    if (labels < 0).any():
        row = df.index[labels < 0].tolist()[0]
        raise ValueError(
            f"column {groups!r} must say which run each row belongs to, but "
            f"{int((labels < 0).sum())} of {len(df)} rows hold nothing, the first is row {row!r}: "
            "give rows that are on their own a label each"
        )
    if len(df) and labels.max() < 1:
        raise ValueError(
            f"all rows share one {groups!r}: nothing shows how runs differ, so that no interval "
            f"can be given; add runs, or leave groups={groups!r} out"
        )
    return labels.astype(np.float64)


def _cautions(fit: LawFit, groups: str | None) -> Iterator[str]:
    """What to be careful about in a fit."""
    problem, free = fit._problem, fit._problem.free
    if fit.nobs < free + 3:
        held = f" ({len(fit.held_out)} more are held out)" if len(fit.held_out) else ""
        yield (
            f"{fit.nobs} rows{held} for {free} parameters: fewer than 3 to spare, so the "
            f"intervals rest on hardly any residuals; {free + 3} rows would do"
        )
    if fit._groups is not None and (runs := len(np.unique(fit._groups))) < free + 3:
        yield (
            f"{runs} values of {groups!r} for {free} parameters: rows of one come and go together, "
            f"so the intervals rest on hardly anything; {free + 3} would do"
        )
    repeated = int(fit.data.duplicated([*fit.columns.values(), fit.loss]).sum())
    if repeated and not groups and fit.form.is_loss:  # tuned values of a grid do repeat
        yield (
            f"{repeated} of {fit.nobs} rows repeat the inputs and the loss of another to the last "
            "digit: if they are the same run, drop_duplicates() first, or the intervals are too "
            "narrow"
        )
    lowest = float(fit.data[fit.loss].astype(float).min())
    for name in fit.form.vanishing:
        if fit.params[name] < 1e-4 * lowest:
            yield (
                f"{name} fell to its bound, zero: the data do not show a floor; try 'pure_power', "
                "or extend the range"
            )
        if (given := fit.choices.fixed.get(name, 0.0)) >= lowest:
            yield (
                f"{name} = {given:g} was given, and the lowest {fit.loss} is {lowest:g}: no law "
                f"above {name} goes there; give a lower {name}, or leave it free"
            )
    if fit.n_starts > 1 and fit.n_at_best == 1:
        yield (f"one of {fit.n_starts} starts reached the best objective: it may not be the lowest")
    if (
        fit.choices.delta is not None
        and fit.delta > 10 * fit.form.delta
        and fit.residuals.abs().max() <= fit.delta
    ):
        yield (
            f"no residual exceeds delta = {fit.delta:g}, so this is plain least squares: an "
            "outlier would count in full"
        )
    yield from limits.cautions(problem, fit._theta, fit.params)
    if fit.form.is_loss and (text := limits.mixed(fit.residuals, fit.data, fit.columns.values())):
        yield text
    if groups and fit.data[groups].duplicated().any():
        yield (
            f"several rows share a {groups!r}: checkpoints taken before a learning-rate schedule "
            "has ended lie above what a run of that length reaches, and bias D's exponent; keep "
            "the last of each, or use a constant rate with a short decay for each"
        )
    if not groups and (run := _run_column(fit)):
        yield (
            f"several rows share a {run!r}: if they are checkpoints of one run, pass "
            f"groups={run!r}, or the intervals are too narrow"
        )
    if not fit.converged:
        yield "the optimizer did not end at a minimum: treat the parameters as a guess"


def _run_column(fit: LawFit) -> str | None:
    """A column that looks like the run that several rows belong to."""
    for name in ("run", "run_id", "run_name", "experiment", "model"):
        if name in fit.data and name not in fit.columns.values():
            labels = fit.data[name]
            if labels.duplicated().any() and labels.nunique() > len(fit.columns):
                return name
    return None
