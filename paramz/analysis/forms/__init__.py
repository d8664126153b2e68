"""Functional forms of scaling laws, each with the starts that make its fit safe.

All are written for the logarithm of the response, over logarithms of the inputs with their mean
taken off: with raw inputs of 1e9 a coefficient and its exponent are so entangled that optimizers
stall. Most laws are sums of products of powers, so those are data: which power of which input
stands in which term (`sum_of_powers`).
"""

from __future__ import annotations

from paramz.analysis.forms.form import Form
from paramz.analysis.forms.function import custom
from paramz.analysis.forms.powers import sum_of_powers
from paramz.analysis.forms.table import FORMS

__all__ = ["FORMS", "Form", "custom", "sum_of_powers"]
