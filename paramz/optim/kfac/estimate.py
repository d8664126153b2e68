"""How K-FAC estimates the Fisher matrix: the choices that stay the same over training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from paramz.optim.kfac.fisher import Fisher, Likelihood
from paramz.optim.kfac.layers import Sharing

Factors = Literal["both", "inputs"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is measured, and how; see `paramz.optim.KFAC`.

    Attributes:
        likelihood: what the loss takes the predictions for.
        fisher: whose targets the gradients are for.
        sharing: how weights that are shared over positions are treated.
        block_size: the largest block of a factor; None for whole factors.
        factors: ``inputs`` leaves out the factors of output gradients.

    Raises:
        ValueError: a value is out of range.
    """

    likelihood: Likelihood
    fisher: Fisher
    sharing: Sharing
    block_size: int | None
    factors: Factors

    def __post_init__(self) -> None:
        require_choice("likelihood", self.likelihood, Likelihood)
        require_choice("fisher", self.fisher, Fisher)
        require_choice("sharing", self.sharing, Sharing)
        require_choice("factors", self.factors, Factors)
        if self.block_size is not None and self.block_size < 1:
            raise ValueError(
                f"block_size={self.block_size} must be at least 1, or None for no blocks"
            )

    @property
    def inputs_only(self) -> bool:
        """Whether the factors of output gradients are left out, as in FOOF."""
        return self.factors == "inputs"


def require_choice(name: str, value: object, known: object) -> None:
    """Refuse a value that is none of a ``Literal``'s.

    Args:
        name: of the option.
        value: given for it.
        known: the ``Literal`` type.

    Raises:
        ValueError: the value is none of those.

    >>> require_choice("fisher", "mc", Fisher)
    """
    if value not in get_args(known):
        raise ValueError(f"{name}={value!r} is none of {', '.join(get_args(known))}")
