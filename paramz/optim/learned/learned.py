"""A small learned optimizer: one MLP, shared by all parameters, that maps features to a step.

In the line of small_fc_lopt (Metz et al. 2022, arXiv 2203.11860): ``step = lr * d * exp(m / 10)``
with (d, m) the MLP's outputs for one parameter. All features are divided by their root mean square
over the tensor, so they do not move with width, every entry's step is of size lr, and muP's rule
for Adam-like optimizers is the rule for this one (Thérien et al. 2024, muLO, arXiv 2406.00153).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

DECAYS = (0.9, 0.99, 0.999)
SECOND_MOMENT = 0.999
TIMES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
FEATURES = 2 * len(DECAYS) + 4 + len(TIMES)
HIDDEN = 16
SIZES = ((HIDDEN, FEATURES), (HIDDEN,), (HIDDEN, HIDDEN), (HIDDEN,), (2, HIDDEN), (2,))
META_PARAMETERS = sum(math.prod(size) for size in SIZES)

# Per tensor: the momenta (one per decay, stacked) and the second moment.
State = tuple[Tensor, Tensor]


def initial_theta(seed: int = 0) -> Tensor:
    """Random weights of the MLP as one vector (META_PARAMETERS,): fan-in init, biases 0.

    >>> initial_theta().shape[0] == META_PARAMETERS
    True
    """
    draw = torch.Generator().manual_seed(seed)
    parts = [
        torch.randn(size, generator=draw) / math.sqrt(size[1]) if len(size) == 2
        else torch.zeros(size)
        for size in SIZES
    ]  # fmt: skip
    return torch.cat([part.flatten() for part in parts])


def initial_state(parameter: Tensor) -> State:
    """The state of a tensor before its first step."""
    return torch.zeros(len(DECAYS), *parameter.shape), torch.zeros_like(parameter)


def learned_step(
    theta: Tensor, parameter: Tensor, grad: Tensor, state: State, t: Tensor
) -> tuple[Tensor, State]:
    """The step of one tensor, for a learning rate of 1. Pure, so that it can be mapped over.

    Args:
        theta: the MLP's weights (META_PARAMETERS,).
        parameter: of any shape.
        grad: its gradient.
        state: from `initial_state`, or from the step before.
        t: number of steps made before this one, a scalar.

    Returns:
        what to subtract from the parameter, and the new state.
    """
    momenta, second = state
    decays = torch.tensor(DECAYS, dtype=grad.dtype).view(-1, *[1] * grad.dim())
    momenta = momenta * decays + grad * (1 - decays)
    second = second * SECOND_MOMENT + grad.square() * (1 - SECOND_MOMENT)
    scale = _normalised(second.sqrt())
    # Bias corrections are common factors of a tensor, which its normalisation takes away.
    inverse = torch.where(second > 0, second, torch.ones_like(second)).rsqrt()
    columns = [
        _normalised(grad),
        _normalised(parameter),
        scale,
        _normalised(grad * inverse),
        *(_normalised(m) for m in momenta),
        *(_normalised(m * inverse) for m in momenta),
    ]
    clock = [torch.tanh(t / time - 1).expand(grad.shape) for time in TIMES]
    features = torch.stack([*columns, *clock], dim=-1)
    direction, magnitude = _mlp(theta, features).unbind(-1)
    return direction * torch.exp(magnitude / 10), (momenta, second)


def _normalised(x: Tensor) -> Tensor:
    return x * (x.square().mean() + 1e-30).rsqrt()


def _mlp(theta: Tensor, x: Tensor) -> Tensor:
    parts, start = [], 0
    for size in SIZES:
        parts.append(theta[start : start + math.prod(size)].view(size))
        start += math.prod(size)
    w1, b1, w2, b2, w3, b3 = parts
    x = torch.relu(x @ w1.t() + b1)
    x = torch.relu(x @ w2.t() + b2)
    return x @ w3.t() + b3


class LearnedOptimizer(torch.optim.Optimizer):
    """The learned optimizer as a torch optimizer, for the groups of a plan.

    Args:
        params: tensors or groups, such as ``plan.param_groups(model, "learned", lr=0.01)``.
        theta: the MLP's weights, as `paramz.optim.learned.meta.meta_train` returns them.
        lr: the size of one entry's step where the MLP says 1.
        weight_decay: decoupled.

    Raises:
        ValueError: theta has another number of weights.

    >>> w = torch.nn.Parameter(torch.ones(3))
    >>> w.grad = torch.ones(3)
    >>> LearnedOptimizer([w], initial_theta(), lr=0.1).step()
    >>> bool((w != 1).all())
    True
    """

    def __init__(
        self,
        params: Iterable[Any],
        theta: Tensor,
        *,
        lr: float = 0.01,
        weight_decay: float = 0.0,
    ) -> None:
        if theta.shape != (META_PARAMETERS,):
            raise ValueError(
                f"theta has shape {tuple(theta.shape)}; this optimizer's MLP has "
                f"({META_PARAMETERS},) weights, in the order of paramz.optim.learned.learned.SIZES"
            )
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.theta = theta

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; see `torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())
                    state["momenta"], state["second"] = initial_state(parameter)
                change, (state["momenta"], state["second"]) = learned_step(
                    self.theta,
                    parameter,
                    parameter.grad,
                    (state["momenta"], state["second"]),
                    state["step"],
                )
                state["step"] += 1
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(change, alpha=group["lr"])
        return loss
