"""Meta-training of the learned optimizer by evolution strategies, on a CPU in minutes.

The loss over an unroll is a bad function to differentiate and a cheap one to evaluate, so its
gradient is estimated with antithetic Gaussian perturbations (Salimans et al. 2017; persistent over
truncated unrolls in PES, Vicol et al. 2021; here unrolls are short enough to need no truncation).
All perturbed optimizers train their copies of a model side by side, as one vectorised map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from paramz.apply.task import Task
from paramz.optim.learned.learned import initial_state, initial_theta, learned_step
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
    """Train the learned optimizer on a task at some widths under a parametrization.

    Args:
        task: model, data and loss; the loss must be a function that `torch.func` can map over.
        parametrization: of the models; its learning-rate ratios multiply the optimizer's output.
        widths: widths of the models, one drawn per iteration.
        base_width: the base of the parametrization.
        unroll: steps that a model is trained for; the meta-loss is the mean loss over them.
        iterations: meta-steps (Adam on the MLP's weights, learning rate decayed to 0 by a cosine).
        pairs: antithetic pairs of perturbations per iteration.
        sigma: standard deviation of the perturbations.
        meta_lr: learning rate of the meta-steps at the start.
        lr: learning rate of the learned optimizer at the base.
        seed: of everything random.

    Returns:
        the MLP's weights, for `paramz.optim.learned.learned.LearnedOptimizer`.
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
        losses = unrolled(
            task, model, {n: lr * r for n, r in ratios.items()}, thetas, unroll, first
        )
        plus, minus = losses.mean(0).view(2, pairs)
        theta.grad = ((plus - minus)[:, None] * noise).mean(0) / (2 * sigma**2)
        optimizer.step()
        schedule.step()
    return theta.detach()


def parametrized(
    task: Task, parametrization: str | Parametrization, width: int, base_width: int
) -> tuple[nn.Module, dict[str, float]]:
    """A fresh model of the task, and what each tensor's learning rate is multiplied by."""
    model = task.build(width)
    plan = task.parametrize_(model, parametrization, base_width=base_width)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = plan.param_groups(model, LEARNED, lr=1.0)
    return model, {names[id(p)]: g["lr"] for g in groups for p in g["params"]}


def unrolled(
    task: Task,
    model: nn.Module,
    lrs: dict[str, float],
    thetas: Tensor,
    steps: int,
    first: int = 0,
) -> Tensor:
    """The losses (steps, optimizers) of copies of a model, each trained by its own optimizer.

    Args:
        task: batches and loss.
        model: where every copy starts.
        lrs: learning rate per tensor.
        thetas: the optimizers' weights, (optimizers, META_PARAMETERS).
        steps: training steps.
        first: the number of the first batch.

    A loss beyond 10 times the first, or not finite, counts as that: diverged is diverged.
    """
    count = len(thetas)

    def loss(parameters: dict[str, Tensor], batch: Any) -> Tensor:
        return task.loss(_Called(model, parameters), batch)  # type: ignore[arg-type]

    def one(
        theta: Tensor,
        parameters: dict[str, Tensor],
        states: dict[str, Any],
        t: Tensor,
        batch: Any,
    ) -> Any:
        gradients, value = grad_and_value(loss)(parameters, batch)
        after, kept = {}, {}
        for name, parameter in parameters.items():
            change, kept[name] = learned_step(theta, parameter, gradients[name], states[name], t)
            after[name] = parameter - lrs[name] * change
        return value, after, kept

    mapped = vmap(one, in_dims=(0, 0, 0, None, None))
    single = {n: p.detach() for n, p in model.named_parameters()}
    parameters = {n: p.expand(count, *p.shape) for n, p in single.items()}
    states = {
        n: tuple(s.expand(count, *s.shape) for s in initial_state(p)) for n, p in single.items()
    }
    losses = []
    for step in range(steps):
        batch = task.batch(first + step)
        value, parameters, states = mapped(
            thetas, parameters, states, torch.tensor(float(step)), batch
        )
        losses.append(value)
    found = torch.stack(losses)
    most = 10.0 * found[0].detach()
    return torch.minimum(torch.where(found.isfinite(), found, most), most)


class _Called:
    """A model called with other parameters, as far as a loss function can tell."""

    def __init__(self, model: nn.Module, parameters: dict[str, Tensor]) -> None:
        self.model, self.parameters = model, parameters

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self.model, self.parameters, args, kwargs)
