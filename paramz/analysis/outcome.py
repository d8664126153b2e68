"""The answers that a judgement can give, the same for coordinate checks and for transfer."""

from __future__ import annotations

from typing import Literal

# "undecided": the numbers reach to both sides of the tolerance, so more runs must decide.
Outcome = Literal["pass", "fail", "undecided"]
