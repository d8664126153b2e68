"""A small learned optimizer: an MLP that maps features of a parameter's entry to its step.

It resembles small_fc_lopt (Metz et al. 2022, arXiv 2203.11860): ``step = lr * d * exp(m / 10)``,
where (d, m) are the outputs of the MLP, the same one for all entries of all tensors. All features
are divided by their root mean square over the tensor, so they do not depend on the width, and the
step of every entry has the size lr. So muP's rule for Adam-like optimizers is the rule for this one
(Thérien et al. 2024, muLO, arXiv 2406.00153).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Features: gradient, parameter, root of the second moment, and gradient over that root; the
# momenta, and these over that root; and the number of the step on several scales.
_MOMENTUM_DECAYS = (0.9, 0.99, 0.999)
_SECOND_MOMENT_DECAY = 0.999
_TIMES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
_FEATURES = 4 + 2 * len(_MOMENTUM_DECAYS) + len(_TIMES)
_HIDDEN = 16
# Of the MLP's weights and biases, in the order in which ``theta`` holds them.
_SHAPES = ((_HIDDEN, _FEATURES), (_HIDDEN,), (_HIDDEN, _HIDDEN), (_HIDDEN,), (2, _HIDDEN), (2,))
META_PARAMETERS = sum(math.prod(shape) for shape in _SHAPES)

# Of one tensor: the momenta (one per decay, stacked) and the second moment.
State = tuple[Tensor, Tensor]


def initial_theta(seed: int = 0) -> Tensor:
    """Random weights of the MLP as one vector, (META_PARAMETERS,).

    Their std is one over the root of fan_in; biases are 0.

    >>> initial_theta().shape[0] == META_PARAMETERS
    True
    """
    draw = torch.Generator().manual_seed(seed)
    parts = [
        torch.randn(shape, generator=draw) / math.sqrt(shape[1]) if len(shape) == 2
        else torch.zeros(shape)
        for shape in _SHAPES
    ]  # fmt: skip
    return torch.cat([part.flatten() for part in parts])


def initial_state(parameter: Tensor) -> State:
    """The state of a tensor before its first step."""
    return parameter.new_zeros(len(_MOMENTUM_DECAYS), *parameter.shape), torch.zeros_like(parameter)


def learned_step(
    theta: Tensor, parameter: Tensor, grad: Tensor, state: State, t: Tensor
) -> tuple[Tensor, State]:
    """The step of one tensor at a learning rate of 1: a pure function, which `torch.func` can map.

    Args:
        theta: the weights of the MLP, (META_PARAMETERS,).
        parameter: a tensor of any shape.
        grad: its gradient.
        state: from `initial_state`, or from the step before.
        t: the number of steps made before this one, a scalar.

    Returns:
        what to subtract from the parameter, and the new state.
    """
    momenta, second = state
    decays = grad.new_tensor(_MOMENTUM_DECAYS).view(-1, *[1] * grad.dim())
    momenta = momenta * decays + grad * (1 - decays)
    second = second * _SECOND_MOMENT_DECAY + grad.square() * (1 - _SECOND_MOMENT_DECAY)
    scale = _normalised(second.sqrt())
    # There are no bias corrections: they are common factors of a tensor, which normalising removes.
    inverse = torch.where(second > 0, second, torch.ones_like(second)).rsqrt()
    columns = [
        _normalised(grad),
        _normalised(parameter),
        scale,
        _normalised(grad * inverse),
        *(_normalised(m) for m in momenta),
        *(_normalised(m * inverse) for m in momenta),
    ]
    clock = [torch.tanh(t / time - 1).expand(grad.shape) for time in _TIMES]
    features = torch.stack([*columns, *clock], dim=-1)
    direction, magnitude = _mlp(theta, features).unbind(-1)
    return direction * torch.exp(magnitude / 10), (momenta, second)


def _normalised(x: Tensor) -> Tensor:
    return x * (x.square().mean() + 1e-30).rsqrt()


def _mlp(theta: Tensor, x: Tensor) -> Tensor:
    parts, start = [], 0
    for shape in _SHAPES:
        parts.append(theta[start : start + math.prod(shape)].view(shape))
        start += math.prod(shape)
    w1, b1, w2, b2, w3, b3 = parts
    x = torch.relu(x @ w1.t() + b1)
    x = torch.relu(x @ w2.t() + b2)
    return x @ w3.t() + b3


class LearnedOptimizer(torch.optim.Optimizer):
    """The learned optimizer as a torch optimizer, for the groups of a plan.

    Its state is in float32 at least: averages over a thousand steps stand still in bfloat16.

    Args:
        params: tensors or groups, such as ``plan.param_groups(model, "learned", lr=0.01)``.
        theta: the weights of the MLP, as `paramz.optim.meta_train` returns them.
        lr: the size of an entry's step where the output of the MLP is 1.
        weight_decay: decoupled decay, p -= lr * weight_decay * p.

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
                f"theta has shape {tuple(theta.shape)}, and the MLP of this optimizer takes its "
                f"weights as one vector ({META_PARAMETERS},): take what paramz.optim.meta_train "
                "returns"
            )
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.theta = theta

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, see `torch.optim.Optimizer.add_param_group`.

        Raises:
            ValueError: a tensor of it is complex, of which the features would be no numbers.
        """
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.is_complex():
                self.param_groups.pop()
                raise ValueError(
                    f"the learned optimizer is for real tensors, and one {tuple(p.shape)} is "
                    "complex: give it to another optimizer"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step, see `torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                exact = parameter.to(torch.promote_types(parameter.dtype, torch.float32))
                if not state:
                    state["step"] = torch.zeros(())
                    state["momenta"], state["second"] = initial_state(exact)
                change, (state["momenta"], state["second"]) = learned_step(
                    self.theta.to(exact),
                    exact,
                    parameter.grad.to(exact),
                    (state["momenta"], state["second"]),
                    state["step"].to(exact.device),
                )
                state["step"] += 1
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(change, alpha=group["lr"])
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`; the state keeps its precision, unlike in torch's own."""
        super().load_state_dict(state_dict)
        numbers = [n for group in state_dict["param_groups"] for n in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            for key in ("momenta", "second"):
                value = state_dict["state"].get(number, {}).get(key)
                if value is not None:
                    self.state[parameter][key] = value.to(parameter.device, copy=True)
