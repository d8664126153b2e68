"""The laws that can be fitted by name. To add one, add an entry here.

Sources: Hoffmann et al., arXiv 2203.15556, eq. 2 (``chinchilla``); Gadre et al., arXiv 2403.08540
(``tied`` exponents); of ``kaplan``, ``broken``, ``batch`` and ``repeated`` in their own files.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from paramz.analysis.forms.batch import BATCH
from paramz.analysis.forms.broken import BROKEN
from paramz.analysis.forms.form import Form
from paramz.analysis.forms.kaplan import KAPLAN
from paramz.analysis.forms.powers import sum_of_powers
from paramz.analysis.forms.repeated import REPEATED

# Tuned hyperparameters sit on grids of half an octave or so: a residual of a grid step is no
# outlier.
_HP = replace(
    sum_of_powers(
        "hp",
        "c N^p D^q",
        ("N", "D"),
        {"c": {"N": "p", "D": "q"}},
        sign=1,
        grid=np.linspace(-1.5, 1.5, 25),
    ),
    delta=1.0,
    is_loss=False,
)

FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        sum_of_powers("power", "E + A / {x}^alpha", ("x",), {"E": {}, "A": {"x": "alpha"}}),
        sum_of_powers("pure_power", "A / {x}^alpha", ("x",), {"A": {"x": "alpha"}}),
        sum_of_powers(
            "chinchilla",
            "E + A / N^alpha + B / D^beta",
            ("N", "D"),
            {"E": {}, "A": {"N": "alpha"}, "B": {"D": "beta"}},
        ),
        sum_of_powers(
            "tied",
            "E + A / N^alpha + B / D^alpha",
            ("N", "D"),
            {"E": {}, "A": {"N": "alpha"}, "B": {"D": "alpha"}},
        ),
        KAPLAN,
        BROKEN,
        BATCH,
        REPEATED,
        _HP,
    )
}
