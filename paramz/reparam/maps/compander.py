"""Weight compander: w = a arctan(v / b), which bounds weights and spreads the small ones."""

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

# a and b are in units of the weight's own std, so that dw/dv = a/b does not move with width: v has
# the rule of the weight. Their logarithms are numbers near 1, whose decay would mean nothing.
_V = Scaling("weight", branch=True)
_LOG = {
    "global": Scaling("number", decays=False),
    "layer": Scaling("number", decays=False),
    "channel": Scaling("per output", decays=False),
}


@dataclass(frozen=True)
class Compander:
    """w = a s arctan(v / (b s)) with s the RMS of the weight at init, as a recipe.

    Cakaj, Mehnert and Yang 2023 (arXiv 2306.16993); its form was rebuilt from the abstract and its
    hyperparameters could not be verified, see docs/reparametrizations.md. |w| < a s pi/2, and
    dw/dv = a/b cos^2(w / (a s)): a/b at zero, less for large weights. v starts at
    b s tan(w / (a s)), so that the function is the same to rounding. Under muP v has the weight's
    learning rate, log a and log b that of a bias or of a scalar.

    Attributes:
        a: bound of the weights in units of s pi/2; must be above max|w| / (s pi/2).
        b: in the same units; b = a leaves small weights their learning rate, b < a amplifies it.
        per: one a and b for all weights that were chosen together, per layer, or per output.
        learned: train log a and log b.
        dims: the axes that share an a and b; found from the layer.
    """

    a: float = 4.0
    b: float = 4.0
    per: Literal["global", "layer", "channel"] = "layer"
    learned: bool = True
    dims: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not (self.a > 0 and self.b > 0 and math.isfinite(self.a) and math.isfinite(self.b)):
            raise ValueError(f"Compander(a={self.a}, b={self.b}): both must be positive")
        if self.per not in _LOG:
            raise ValueError(f"Compander(per={self.per!r}): it is {', '.join(_LOG)}")

    @property
    def tensors(self) -> tuple[str, ...]:
        """Of the weight's shape v; the logarithms of a and b; s."""
        return ("v", "log_a", "log_b", "scale")

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """Rules of v and, where they are learned, of log a and log b."""
        logs = {"log_a": _LOG[self.per], "log_b": _LOG[self.per]} if self.learned else {}
        return {"v": _V, **logs}

    @property
    def shared(self) -> tuple[str, ...]:
        """The logarithms, if they are global."""
        return ("log_a", "log_b") if self.per == "global" else ()

    @property
    def by_name(self) -> bool:
        """All weights that were chosen share them."""
        return False

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """Outputs are the axes that a and b have per channel."""
        dim = getattr(module, name).dim()
        return replace(self, dims=tuple(a for a in range(dim) if a not in axes.fan_out))

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """Parts of one weight alone."""
        return self.split_all([weight])[0]

    def split_all(self, weights: Sequence[Tensor]) -> list[dict[str, Tensor | nn.Module]]:
        """Solve for v = b s tan(w / (a s)).

        Raises:
            ValueError: a weight is all zero, or has entries that a cannot reach.
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
                f"a weight {tuple(weight.shape)} of zeros has no scale for a compander: draw it "
                "first, or leave the layer out with where="
            )
        reach = float(weight.abs().max() / scale) / (math.pi / 2)
        if reach >= 0.999 * self.a:
            raise ValueError(
                f"the largest entry of a weight {tuple(weight.shape)} is {reach * math.pi / 2:.3g} "
                f"times its RMS, and Compander(a={self.a:g}) reaches {self.a * math.pi / 2:.3g} "
                f"times: give an a above {reach / 0.999:.3g}"
            )

    def weight(self, v: Tensor, log_a: Tensor, log_b: Tensor, scale: Tensor) -> Tensor:
        """The weight, in one pass forward and one backward."""
        return companded(v, log_a, log_b, scale)


def companded(v: Tensor, log_a: Tensor, log_b: Tensor, scale: Tensor) -> Tensor:
    """Compute a s arctan(v / (b s)), with a and b from their logarithms.

    >>> x = torch.tensor([0.0, 1.0])
    >>> companded(x, torch.tensor(0.0), torch.tensor(0.0), torch.tensor(1.0))
    tensor([0.0000, 0.7854])
    """
    if not is_eager(v):
        return log_a.exp() * scale * torch.atan(v / (log_b.exp() * scale))
    made: Tensor = _Compand.apply(v, log_a, log_b, scale)  # type: ignore[no-untyped-call]
    return made


class _Compand(torch.autograd.Function):
    """With a and b times s: dw/dv = a b / (b^2 + v^2), dw/dlog a = w, dw/dlog b = -v dw/dv."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, log_a: Tensor, log_b: Tensor, scale: Tensor) -> Tensor:
        a, b = log_a.exp().mul_(scale), log_b.exp().mul_(scale)
        if not a.dim() and (kernels := gpu.kernels(v)) is not None:
            made: Tensor = kernels.compand(v, a, b)
        else:
            # atan2 with b > 0 is arctan(v/b) without the division, and on some machines torch's
            # vectorized atan2 takes 0.6 of the time of its atan.
            made = torch.atan2(v, b).mul_(a)
        ctx.save_for_backward(v, log_a, log_b, scale, a, b, made)
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        v, log_a, log_b, scale, a, b, w = ctx.saved_tensors
        (grad,) = grads
        _, for_a, for_b, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():  # of a gradient that is itself differentiated
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
