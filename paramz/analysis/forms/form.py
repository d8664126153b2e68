"""What the fit needs to know of a law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paramz.analysis.columns import Array


@dataclass(frozen=True)
class Form:
    """A law in internal parameters, theta; ``natural`` turns them into those that people write.

    Attributes:
        name: its key in `FORMS`.
        formula: the law as people write it.
        inputs: names of the inputs, in the order of the rows of ``logs``.
        params: names of the parameters, as ``natural`` gives them.
        evaluate: (theta (fits, p), logs (inputs, rows)) -> log response (fits, rows) and its
            Jacobian (fits, p, rows).
        starts: (logs, log response) -> starts (starts, p).
        natural: (theta, means taken off the logs) -> parameters (fits, p).
        vanishing: parameters that are zero at their bound.
        centered: whether logs come with their mean taken off.
        alike: groups of inputs that count the same thing and so have one mean taken off, such as
            tokens and different tokens.
        falling: pairs of an exponent that is above zero in a law of a falling response, and its
            input.
        delta: where the Huber loss turns linear unless another value is asked for, in log response:
            1e-3 for losses as in Hoffmann et al., arXiv 2203.15556, and the refits of it.
        is_loss: whether the response is a loss, which one minimizes, and not a hyperparameter.
    """

    name: str
    formula: str
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    evaluate: Callable[[Array, Array], tuple[Array, Array]]
    starts: Callable[[Array, Array], Array]
    natural: Callable[[Array, Array], Array]
    vanishing: tuple[str, ...] = ()
    centered: bool = True
    alike: tuple[tuple[str, ...], ...] = ()
    falling: tuple[tuple[str, str], ...] = ()
    delta: float = 1e-3
    is_loss: bool = True
