"""Meta-training of the learned optimizer by evolution strategies, on a CPU in minutes.

The meta-loss, the loss over some training steps, is badly behaved as a function to differentiate
and cheap to evaluate, so its gradient is estimated with antithetic Gaussian perturbations (Salimans
et al. 2017). Vicol et al. 2021 (PES) do so over truncated training runs; the runs here are short
enough to need no truncation. All perturbed optimizers train their copies of a model side by side,
as one vectorised function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from paramz.apply.task import Task
from paramz.optim.learned.learned import State, initial_state, initial_theta, learned_step
from paramz.theory.families import LEARNED
from paramz.theory.rules import Parametrization


def meta_train(
    task: Task,
    parametrization: str | Parametrization,
    *,
    widths: Sequence[int],
    base_width: int,
    unroll: int = 40,
    iterations: int = 300,
    pairs: int = 8,
    sigma: float = 0.03,
    meta_lr: float = 0.01,
    lr: float = 0.01,
    seed: int = 0,
) -> Tensor:
    """Train the learned optimizer on a task, at some widths, under a parametrization.

    Args:
        task: model, data and loss; the loss must be a function that `torch.func` can map over.
        parametrization: that of the models; the ratios of its learning rates multiply the steps.
        widths: the widths of the models, one of which is drawn in every iteration.
        base_width: the width of the parametrization's base.
        unroll: the number of steps that a model is trained for; the meta-loss is the mean loss
            over them.
        iterations: meta-steps, by Adam on the weights of the MLP.
        pairs: antithetic pairs of perturbations per iteration.
        sigma: standard deviation of the perturbations.
        meta_lr: Adam's learning rate at the start, from where it decays to 0 by a cosine.
        lr: learning rate of the learned optimizer at the base.
        seed: of everything random.

    Returns:
        the weights of the MLP, for `paramz.optim.LearnedOptimizer`.
    """
    draw = torch.Generator().manual_seed(seed)
    theta = initial_theta(seed).requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=meta_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for iteration in range(iterations):
        width = widths[int(torch.randint(len(widths), (), generator=draw))]
        noise = sigma * torch.randn(pairs, len(theta), generator=draw)
        thetas = torch.cat([theta.detach() + noise, theta.detach() - noise])
        first = int(torch.randint(10**6, (), generator=draw))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 10**6 + iteration)
            model, ratios = parametrized(task, parametrization, width, base_width)
        rates = {name: lr * ratio for name, ratio in ratios.items()}
        losses = unrolled(task, model, rates, thetas, unroll, first)
        plus, minus = losses.mean(0).view(2, pairs)
        theta.grad = ((plus - minus)[:, None] * noise).mean(0) / (2 * sigma**2)
        optimizer.step()
        schedule.step()
    return theta.detach()


def parametrized(
    task: Task, parametrization: str | Parametrization, width: int, base_width: int
) -> tuple[nn.Module, dict[str, float]]:
    """A fresh model of the task, and the factor on the learning rate of each of its tensors."""
    model = task.build(width)
    plan = task.parametrize_(model, parametrization, base_width=base_width)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = plan.param_groups(model, LEARNED, lr=1.0)
    return model, {names[id(p)]: g["lr"] for g in groups for p in g["params"]}


def unrolled(
    task: Task,
    model: nn.Module,
    lrs: Mapping[str, float],
    thetas: Tensor,
    steps: int,
    first: int = 0,
) -> Tensor:
    """The losses of copies of a model, each of which is trained by an optimizer of its own.

    A loss that is not finite, or more than 10 times the first one, counts as 10 times the first
    one: it does not matter how far training has diverged.

    Args:
        task: batches and loss.
        model: where every copy starts.
        lrs: the learning rate of each tensor.
        thetas: the weights of the optimizers, (optimizers, META_PARAMETERS).
        steps: training steps.
        first: the number of the first batch.

    Returns:
        losses, (steps, optimizers).
    """

    def loss(parameters: dict[str, Tensor], batch: Any) -> Tensor:
        return task.loss(_Called(model, parameters), batch)  # type: ignore[arg-type]

    def one_step(
        theta: Tensor,
        parameters: dict[str, Tensor],
        states: dict[str, State],
        t: Tensor,
        batch: Any,
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, State]]:
        gradients, value = grad_and_value(loss)(parameters, batch)
        after, kept = {}, {}
        for name, parameter in parameters.items():
            change, kept[name] = learned_step(theta, parameter, gradients[name], states[name], t)
            after[name] = parameter - lrs[name] * change
        return value, after, kept

    all_step = vmap(one_step, in_dims=(0, 0, 0, None, None))
    parameters, states = _copies(model, len(thetas))
    losses = []
    for step in range(steps):
        t, batch = torch.tensor(float(step)), task.batch(first + step)
        value, parameters, states = all_step(thetas, parameters, states, t, batch)
        losses.append(value)
    found = torch.stack(losses)
    most = 10.0 * found[0].detach()
    return torch.minimum(torch.where(found.isfinite(), found, most), most)


def _copies(model: nn.Module, count: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The parameters of a model and their states at the start, each stacked ``count`` times."""
    single = {n: p.detach() for n, p in model.named_parameters()}
    parameters = {n: p.expand(count, *p.shape) for n, p in single.items()}
    states = {
        n: tuple(s.expand(count, *s.shape) for s in initial_state(p)) for n, p in single.items()
    }
    return parameters, states


class _Called:
    """A model that is called with other parameters than its own, for loss functions."""

    def __init__(self, model: nn.Module, parameters: dict[str, Tensor]) -> None:
        self.model, self.parameters = model, parameters

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self.model, self.parameters, args, kwargs)
