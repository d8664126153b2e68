"""Reading back the fits that `LawFit.to_json` wrote."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from paramz.analysis.forms import FORMS, Form
from paramz.analysis.lawfit import LawFit
from paramz.analysis.problem import Choices, log_residuals, make_problem


def load_law(text: str, form: Form | None = None) -> LawFit:
    """A fit that `LawFit.to_json` wrote, as it was: it predicts the same.

    Args:
        text: the JSON document.
        form: the law, where it is not one of `FORMS`.

    Returns:
        the fit; its tables hold the columns of the inputs, the response and the weights.

    Raises:
        ValueError: the law is none of `FORMS` and no form is given, or the given one has other
            parameters.

    >>> from paramz.analysis.law import ScalingLaw
    >>> df = pd.DataFrame({"width": [64, 128, 256, 512, 1024, 2048]})
    >>> df["loss"] = 2.0 + 9.0 / df["width"] ** 0.5
    >>> fit = ScalingLaw("power").fit(df, width="width")
    >>> load_law(fit.to_json()).predict({"width": 4096})["mean"].round(3).item()
    2.141
    """
    saved = json.loads(text)
    if form is None and saved["law"] not in FORMS:
        raise ValueError(
            f"the law {saved['law']!r} is none of {', '.join(FORMS)}: give the form it was fitted "
            "with"
        )
    form = form or FORMS[saved["law"]]
    if list(form.params) != list(saved["params"]):
        raise ValueError(
            f"the document holds the parameters {', '.join(saved['params'])}, but the form "
            f"{form.name!r} has {', '.join(form.params)}"
        )
    choices = Choices(**saved["choices"])
    rows, held_out = _table(saved["rows"]), _table(saved["held_out"])
    problem = make_problem(form, saved["columns"], rows, saved["response"], choices)
    theta = np.array(saved["theta"])
    groups = saved["groups"]
    return LawFit(
        form=form,
        columns=saved["columns"],
        loss=saved["response"],
        params=pd.Series(saved["params"]),
        objective=saved["objective"],
        delta=saved["delta"],
        nobs=saved["nobs"],
        converged=saved["converged"],
        n_at_best=saved["n_at_best"],
        n_starts=saved["n_starts"],
        residuals=log_residuals(problem, theta, rows),
        warnings=tuple(saved["warnings"]),
        data=rows,
        held_out=held_out,
        choices=choices,
        _problem=problem,
        _theta=theta,
        _groups=None if groups is None else np.array(groups),
    )


def _table(saved: dict[str, list[Any]]) -> pd.DataFrame:
    columns = {name: values for name, values in saved.items() if name != "index"}
    return pd.DataFrame(columns, index=saved["index"])
