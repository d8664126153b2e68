"""Weight compander: w = a arctan(v / b), which bounds weights and spreads out the small ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from paramz.anatomy.axes import Axes
from paramz.reparam.kernels import gpu
from paramz.reparam.kernels.eager import is_eager
from paramz.reparam.recipe import Scaling

# a and b are in units of the weight's own std, so that dw/dv = a/b does not depend on the width: v
# has the rule of the weight. Their logarithms are numbers near 1; zero is no special value for
# them, so decay towards it would mean nothing.
_V = Scaling("weight", branch=True)
_LOG = {
    "global": Scaling("number", decays=False),
    "layer": Scaling("number", decays=False),
    "channel": Scaling("per output", decays=False),
}


@dataclass(frozen=True)
class Compander:
    """A recipe for w = a s arctan(v / (b s)), where s is the RMS of the weight at init.

    Cakaj, Mehnert and Yang 2023 (arXiv 2306.16993). The form was reconstructed from the abstract,
    and their hyperparameters could not be verified, see docs/reparametrizations.md.

    |w| < a s pi/2, and dw/dv = a/b cos^2(w / (a s)), which is a/b at zero and less for large
    weights. v starts as b s tan(w / (a s)), so the function stays the same up to rounding. Under
    muP v has the weight's learning rate; log a and log b have that of a bias or of a scalar.

    Attributes:
        a: the bound of the weights in units of s pi/2; must be above max|w| / (s pi/2).
        b: in the same units as a; b = a leaves the learning rate of small weights as it is, and
            b < a increases it.
        per: one pair a, b for all weights that were chosen together (``global``), for each layer,
            or for each output (``channel``).
        learned: train log a and log b.
        dims: the axes along which a and b are the same; `bind` sets them.
    """

    a: float = 4.0
    b: float = 4.0
    per: Literal["global", "layer", "channel"] = "layer"
    learned: bool = True
    dims: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not (self.a > 0 and self.b > 0 and math.isfinite(self.a) and math.isfinite(self.b)):
            raise ValueError(f"Compander(a={self.a}, b={self.b}): both must be positive and finite")
        if self.per not in _LOG:
            raise ValueError(f"Compander(per={self.per!r}): per must be one of {', '.join(_LOG)}")

    @property
    def tensors(self) -> tuple[str, ...]:
        """v, of the shape of the weight; the logarithms of a and b; s."""
        return ("v", "log_a", "log_b", "scale")

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """The rules of v and, where they are learned, of log a and log b."""
        logs = {"log_a": _LOG[self.per], "log_b": _LOG[self.per]} if self.learned else {}
        return {"v": _V, **logs}

    @property
    def shared(self) -> tuple[str, ...]:
        """The two logarithms, if they are global."""
        return ("log_a", "log_b") if self.per == "global" else ()

    @property
    def by_name(self) -> bool:
        """False: all weights that were chosen share them."""
        return False

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """The recipe for a weight whose outputs are known: the axes of a and b per channel."""
        dim = getattr(module, name).dim()
        return replace(self, dims=tuple(a for a in range(dim) if a not in axes.fan_out))

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """The parts of one weight that shares them with no other."""
        return self.split_all([weight])[0]

    def split_all(self, weights: Sequence[Tensor]) -> list[dict[str, Tensor | nn.Module]]:
        """The parts of several weights, with v = b s tan(w / (a s)).

        Raises:
            ValueError: a weight is all zero, or has entries beyond the bound that a sets.
        """
        made: list[dict[str, Tensor | nn.Module]] = []
        logs: dict[str, Tensor] = {}
        for weight in weights:
            scale = weight.double().square().mean().sqrt()
            self._require_reach(weight, scale)
            if not logs or self.per != "global":
                logs = self._logs(weight)
            v = self.b * scale * torch.tan(weight.double() / (self.a * scale))
            made.append({"v": v.to(weight.dtype), **logs, "scale": scale.to(weight.dtype)})
        return made

    def _logs(self, weight: Tensor) -> dict[str, Tensor]:
        shape = [1 if axis in self.dims else n for axis, n in enumerate(weight.shape)]
        shape = shape if self.per == "channel" else []
        return {
            "log_a": weight.new_full(shape, math.log(self.a)),
            "log_b": weight.new_full(shape, math.log(self.b)),
        }

    def _require_reach(self, weight: Tensor, scale: Tensor) -> None:
        if weight.is_meta:
            return
        if float(scale) == 0.0:
            raise ValueError(
                f"a weight {tuple(weight.shape)} of zeros has no scale for a compander: initialise "
                "it first, or leave the layer out with where="
            )
        reach = float(weight.abs().max() / scale) / (math.pi / 2)
        if reach >= 0.999 * self.a:
            raise ValueError(
                f"the largest entry of a weight {tuple(weight.shape)} is {reach * math.pi / 2:.3g} "
                f"times its RMS, and Compander(a={self.a:g}) reaches {self.a * math.pi / 2:.3g} "
                f"times: give an a above {reach / 0.999:.3g}"
            )

    def weight(self, v: Tensor, log_a: Tensor, log_b: Tensor, scale: Tensor) -> Tensor:
        """Compute the weight, in one pass over memory forward and one backward."""
        return companded(v, log_a, log_b, scale)


def companded(v: Tensor, log_a: Tensor, log_b: Tensor, scale: Tensor) -> Tensor:
    """Compute a s arctan(v / (b s)), where a and b are given as logarithms.

    >>> x = torch.tensor([0.0, 1.0])
    >>> companded(x, torch.tensor(0.0), torch.tensor(0.0), torch.tensor(1.0))
    tensor([0.0000, 0.7854])
    """
    if not is_eager(v):
        return log_a.exp() * scale * torch.atan(v / (log_b.exp() * scale))
    made: Tensor = _Compand.apply(v, log_a, log_b, scale)  # type: ignore[no-untyped-call]
    return made


class _Compand(torch.autograd.Function):
    """The compander with a gradient written by hand.

    If a and b stand for a s and b s, then dw/dv = a b / (b^2 + v^2), dw/dlog a = w and
    dw/dlog b = -v dw/dv.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, log_a: Tensor, log_b: Tensor, scale: Tensor) -> Tensor:
        a, b = log_a.exp().mul_(scale), log_b.exp().mul_(scale)
        if not a.dim() and (kernels := gpu.kernels(v)) is not None:
            made: Tensor = kernels.compand(v, a, b)
        else:
            # For b > 0 atan2(v, b) is arctan(v/b) without the division, and on some machines
            # torch's vectorized atan2 takes 0.6 of the time of its atan.
            made = torch.atan2(v, b).mul_(a)
        ctx.save_for_backward(v, log_a, log_b, scale, a, b, made)
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        v, log_a, log_b, scale, a, b, w = ctx.saved_tensors
        (grad,) = grads
        _, for_a, for_b, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():  # this gradient will itself be differentiated
            a, b = log_a.exp() * scale, log_b.exp() * scale
            dv = grad * a * b / (b * b + v * v)
            da = (grad * a * torch.atan(v / b)).sum_to_size(a.shape)
            return dv, da, -(dv * v).sum_to_size(a.shape), None
        if a.dim():
            dv = grad * (a * b) / torch.addcmul(b * b, v, v)
            first = (grad * w).sum_to_size(a.shape) if for_a else None
            return dv, first, (dv * v).sum_to_size(a.shape).neg_() if for_b else None, None
        if (kernels := gpu.kernels(v)) is not None:
            return (*kernels.compand_backward(grad, v, a, b), None)
        grad, v = grad.contiguous(), v.contiguous()
        dv = torch.addcmul(b / a, v, v, value=1.0 / float(a * b))
        torch.div(grad, dv, out=dv)
        first = torch.dot(grad.view(-1), w.reshape(-1)) if for_a else None
        return dv, first, torch.dot(dv.view(-1), v.view(-1)).neg_() if for_b else None, None
