"""The learned optimizer: mechanics, muP's rule on its output, and meta-training that learns."""

import copy

import pytest
import torch
from torch import nn

import paramz
from paramz.optim.learned.learned import (
    META_PARAMETERS,
    LearnedOptimizer,
    initial_state,
    initial_theta,
    learned_step,
)
from paramz.optim.learned.meta import meta_train, parametrized, unrolled


def build(width):
    return nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
                         nn.Linear(width, 3))  # fmt: skip


def batch(step):
    draw = torch.Generator().manual_seed(step)
    x = torch.randn(16, 5, generator=draw)
    return x, x[:, :3].argmax(-1)


TASK = paramz.Task(build, batch)


class Blocks(nn.Module):
    """Residual blocks whose layout paramz does not know: they have to be declared."""

    def __init__(self, width):
        super().__init__()
        self.first, self.last = nn.Linear(5, width), nn.Linear(width, 3)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"f": nn.Sequential(nn.Linear(width, width), nn.Tanh())})
            for _ in range(2)
        )


def test_meta_training_knows_the_branches_that_the_task_declares():
    declared = paramz.Branches(inside=r"^layers[.][0-9]+[.]f", ends=r"[.]f[.]0$")
    task = paramz.Task(Blocks, batch, branches=declared)
    _, ratios = parametrized(task, "mup+completep", width=16, base_width=8)
    assert ratios["layers.1.f.0.weight"] == 0.5
    with pytest.raises(ValueError, match="no residual branches found"):
        parametrized(paramz.Task(Blocks, batch), "mup+completep", width=16, base_width=8)


def test_steps_do_not_see_the_size_of_gradients_or_weights():
    torch.manual_seed(0)
    theta, p, g = initial_theta(), torch.randn(4, 6), torch.randn(4, 6)
    t = torch.zeros(())
    step, state = learned_step(theta, p, g, initial_state(p), t)
    small, _ = learned_step(theta, 1e3 * p, 1e-5 * g, initial_state(p), t)
    torch.testing.assert_close(small, step, rtol=1e-3, atol=1e-5)
    assert state[0].shape == (3, 4, 6)


def test_zero_gradients_give_finite_steps():
    p = torch.zeros(3)
    step, _ = learned_step(initial_theta(), p, p, initial_state(p), torch.zeros(()))
    assert step.isfinite().all()


def test_the_optimizer_and_the_vectorised_unroll_agree():
    torch.manual_seed(0)
    theta = initial_theta(1)
    model, ratios = parametrized(TASK, "mup", 16, 8)
    curve = unrolled(TASK, model, {n: 0.02 * r for n, r in ratios.items()}, theta[None], 6)
    plan = paramz.plan_of(model)
    optimizer = LearnedOptimizer(plan.param_groups(model, "learned", lr=0.02), theta)
    for step in range(6):
        loss = TASK.loss(model, TASK.batch(step))
        torch.testing.assert_close(curve[step, 0], loss.detach(), rtol=1e-4, atol=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_mup_divides_hidden_and_readout_steps_by_fan_in():
    _, ratios = parametrized(TASK, "mup", 32, 8)
    assert ratios == {
        "0.weight": 1, "0.bias": 1, "2.weight": 0.25, "2.bias": 1, "4.weight": 0.25, "4.bias": 1,
    }  # fmt: skip
    _, plain = parametrized(TASK, "sp", 32, 8)
    assert set(plain.values()) == {1.0}


def test_a_theta_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match=rf"theta has shape \(3,\).*\({META_PARAMETERS},\)"):
        LearnedOptimizer([nn.Parameter(torch.ones(2))], torch.zeros(3))


def test_state_survives_a_checkpoint():
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(4))
    optimizer = LearnedOptimizer([w], initial_theta(), lr=0.1)
    w.grad = torch.randn(4)
    optimizer.step()
    other = nn.Parameter(w.detach().clone())
    other.grad = w.grad.clone()
    again = LearnedOptimizer([other], initial_theta(), lr=0.1)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.step()
    again.step()
    assert torch.equal(w, other)


def test_meta_training_lowers_the_loss_of_an_unroll_it_has_not_seen():
    settings = {"widths": (8,), "base_width": 8, "unroll": 12, "pairs": 4, "lr": 0.05}
    theta = meta_train(TASK, "mup", iterations=30, seed=0, **settings)
    torch.manual_seed(99)
    model, ratios = parametrized(TASK, "mup", 8, 8)
    both = torch.stack([initial_theta(0), theta])
    lrs = {n: 0.05 * r for n, r in ratios.items()}
    before, after = unrolled(TASK, model, lrs, both, 12, first=10**6).mean(0).tolist()
    assert after < before - 0.1


def test_meta_training_repeats_exactly():
    settings = {"widths": (4, 8), "base_width": 4, "unroll": 3, "pairs": 2, "iterations": 2}
    first = meta_train(TASK, "mup", **settings)
    assert torch.equal(first, meta_train(TASK, "mup", **settings))


def test_bfloat16_has_averages_that_move_and_goes_on_bit_for_bit():
    def gradient(step):
        draw = torch.Generator().manual_seed(step)
        return torch.randn(4, 4, generator=draw).bfloat16()

    def trained(stop):
        weight = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
        optimizer = LearnedOptimizer([weight], initial_theta(), lr=0.01)
        for step in range(40):
            if step == stop:
                saved = copy.deepcopy(optimizer.state_dict())
                optimizer = LearnedOptimizer([weight], initial_theta(), lr=0.01)
                optimizer.load_state_dict(saved)
            weight.grad = gradient(step)
            optimizer.step()
        return weight, optimizer.state[weight]["second"]

    (whole, second), (resumed, again) = trained(None), trained(20)
    assert torch.equal(whole, resumed) and torch.equal(second, again)
    squares = torch.stack(
        [gradient(step).double() ** 2 * 0.999 ** (39 - step) for step in range(40)]
    )
    assert torch.allclose(second.double(), squares.sum(0) / 1000, rtol=1e-3)
