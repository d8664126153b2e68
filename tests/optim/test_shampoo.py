"""Shampoo equals its definition, whatever is batched, blocked, resumed or distributed."""

from __future__ import annotations

import copy
from fractions import Fraction
from typing import Any

import pytest
import torch
from cases import CASES, build64
from torch import Tensor, nn

import paramz
from paramz.optim.shampoo.blocks import from_blocks, matrix_shape, to_blocks
from paramz.optim.shampoo.roots import eigh_root, newton_root
from paramz.optim.shampoo.shampoo import Shampoo


def gradients(shape: tuple[int, ...], steps: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(
        steps, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).to(dtype)


def trained(grads: Tensor, **options: Any) -> tuple[Tensor, Shampoo]:
    w = nn.Parameter(torch.zeros_like(grads[0]))
    optimizer = Shampoo([w], **options)
    for grad in grads:
        w.grad = grad.clone()
        optimizer.step()
    return w.detach(), optimizer


def root(a: Tensor, power: float) -> Tensor:
    """A^-power by the singular values, which is not how Shampoo takes it."""
    u, s, v = torch.linalg.svd(a)
    return u @ torch.diag(s**-power) @ v


def naive(
    grads: Tensor,
    powers: tuple[float, float],
    blocks: int,
    *,
    lr: float,
    eps: float,
    relative_eps: float,
    betas: tuple[float, float],
    statistics: str,
) -> Tensor:
    """The definition for one of the blocks of a matrix, with roots at every step."""
    w, momentum = torch.zeros_like(grads[0]), torch.zeros_like(grads[0])
    left, right = torch.zeros(len(w), len(w)).to(w), torch.zeros(w.shape[1], w.shape[1]).to(w)
    for t, g in enumerate(grads, 1):
        if statistics == "sum":
            left, right, bias = left + g @ g.mT, right + g.mT @ g, 1.0
        else:
            left = betas[1] * left + (1 - betas[1]) * g @ g.mT
            right = betas[1] * right + (1 - betas[1]) * g.mT @ g
            bias = 1 - betas[1] ** t
        momentum = betas[0] * momentum + (1 - betas[0]) * g
        step = momentum / (1 - betas[0] ** t)
        for factor, power, on_left in ((left, powers[0], True), (right, powers[1], False)):
            factor = blocks * factor / bias
            ridge = eps + relative_eps * factor.trace()
            p = root(factor + ridge * torch.eye(len(factor)).to(w), power)
            step = (p @ step if on_left else step @ p) if power else step
        w = w - lr * step
    return w


@pytest.mark.parametrize("kind", ["eigh", "newton"])
@pytest.mark.parametrize("statistics", ["ema", "sum"])
@pytest.mark.parametrize("powers", [(0.25, 0.25), (0.5, 0.5), (0.0, 0.5)])
@pytest.mark.parametrize("block", [8, 4])
def test_equals_the_definition(
    kind: str, statistics: str, powers: tuple[float, float], block: int
) -> None:
    grads = gradients((8, 6), 5)
    settings = {"lr": 0.1, "eps": 1e-3, "relative_eps": 2e-3, "statistics": statistics}
    settings["betas"] = (0.9, 0.95)
    got, _ = trained(
        grads, exponent=powers, root=kind, block_size=block, update_every=1, statistics_every=1,
        **settings,
    )  # fmt: skip
    wide, blocks = (6, 1) if block == 8 else (3, 4)  # six columns are two blocks of three
    rows = grads.split(block, dim=1)
    want = torch.cat(
        [
            torch.cat([naive(c, powers, blocks, **settings) for c in r.split(wide, dim=2)], dim=1)
            for r in rows
        ]
    )
    torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)


def test_uneven_blocks_equal_blocks_of_their_own() -> None:
    grads = gradients((7, 3), 4)
    settings = {"eps": 1e-4, "update_every": 1}
    got, _ = trained(grads, block_size=4, **settings)
    # Twice the factors are what gradients sqrt(2) larger have, but for the step itself.
    parts = [trained(part * 2**0.5, **settings)[0] / 2**0.5 for part in grads.split(4, dim=1)]
    torch.testing.assert_close(got, torch.cat(parts), rtol=1e-9, atol=1e-12)


def test_a_gradient_of_rank_one_has_one_step_whatever_the_blocks() -> None:
    """All entries alike in size, so that every block has its part of the norm."""
    signs = gradients((16, 1), 1).sign() @ gradients((1, 32), 1).sign()
    whole, _ = trained(1e-3 * signs, eps=1e-8, lr=1.0)
    for block in (16, 8, 4):
        cut, _ = trained(1e-3 * signs, eps=1e-8, lr=1.0, block_size=block)
        torch.testing.assert_close(cut, whole, rtol=1e-6, atol=1e-9)


def test_blocks_come_back_in_place() -> None:
    for shape in ((10, 7), (4, 3, 2, 2), (9,), ()):
        x = torch.randn(shape)
        whole = matrix_shape(tuple(x.shape))
        assert torch.equal(from_blocks(to_blocks(x, whole, 4), whole, 4).reshape(shape), x)


def test_tensors_together_equal_tensors_apart() -> None:
    """Equal blocks of several tensors and groups share one batch of roots, each with its eps."""
    shapes, eps = [(8, 8), (8, 16), (8,), (4, 2, 2, 2)], [1e-2, 1e-4, 1e-4, 1e-3]
    grads = [gradients(shape, 6) for shape in shapes]
    together = [nn.Parameter(torch.zeros(s, dtype=torch.float64)) for s in shapes]
    groups = [{"params": [p], "eps": e} for p, e in zip(together, eps, strict=True)]
    optimizer = Shampoo(groups, block_size=8, update_every=3)
    for step in range(6):
        for p, g in zip(together, grads, strict=True):
            p.grad = g[step].clone()
        optimizer.step()
    for p, g, e in zip(together, grads, eps, strict=True):
        alone, _ = trained(g, eps=e, block_size=8, update_every=3)
        torch.testing.assert_close(p.detach(), alone, rtol=1e-10, atol=1e-13)


def test_kernels_and_experts_are_the_matrices_they_say() -> None:
    grads = gradients((6, 2, 3, 3), 3)
    kernel, _ = trained(grads, update_every=1, eps=1e-4)
    matrix, _ = trained(grads.flatten(2), update_every=1, eps=1e-4)
    torch.testing.assert_close(kernel.flatten(1), matrix)

    grads = gradients((3, 4, 5), 3)
    w = nn.Parameter(torch.zeros(3, 4, 5, dtype=torch.float64))
    optimizer = Shampoo([{"params": [w], "roles": ["expert"]}], update_every=1, eps=1e-4)
    for grad in grads:
        w.grad = grad.clone()
        optimizer.step()
    each = [trained(grads[:, i], update_every=1, eps=1e-4)[0] for i in range(3)]
    torch.testing.assert_close(w.detach(), torch.stack(each))


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_newton_equals_eigenvalues(power: float, dtype: torch.dtype) -> None:
    """Ranks from 1 to full, and condition numbers up to 1e5."""
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(4, 16, 40, generator=generator, dtype=dtype)
    for i, rank in enumerate((1, 4, 16, 40)):
        g[i, :, rank:] = 0
    a, eps = g @ g.mT, torch.tensor([1e-2, 1e-1, 1.0, 10.0], dtype=dtype)
    one, two = newton_root(a, eps, power), eigh_root(a, eps, power)
    scale = two.abs().amax((1, 2), keepdim=True)
    tolerance = 5e-3 if dtype == torch.float32 else 1e-9
    assert ((one - two) / scale).abs().max() < tolerance


def test_roots_are_taken_when_they_are_due() -> None:
    w = nn.Parameter(torch.zeros(4, 4))
    optimizer = Shampoo([w], update_every=6)
    taken, before = [], None
    for step in range(1, 19):
        w.grad = torch.randn(4, 4)
        optimizer.step()
        now = optimizer.state[w]["left_root"]
        if before is None or not torch.equal(now, before):
            taken.append(step)
        before = now
    assert taken == [1, 2, 4, 6, 12, 18]


def test_statistics_every_skips_gradients_but_not_early_ones() -> None:
    grads = gradients((4, 4), 9)
    _, optimizer = trained(grads, update_every=2, statistics_every=3, betas=(0.0, 0.9))
    left = torch.zeros(4, 4, dtype=torch.float64)
    for g in grads[[0, 1, 2, 5, 8]]:
        left = 0.9 * left + 0.1 * g @ g.mT
    torch.testing.assert_close(next(iter(optimizer.state.values()))["left"][0], left)


@pytest.mark.parametrize("graft", ["sgd", "rmsprop", "adam"])
def test_grafted_steps_have_the_other_optimizer_s_norm(graft: str) -> None:
    grads = gradients((8, 4), 5)
    betas = (0.9, 0.95)
    w, other = (nn.Parameter(torch.zeros(8, 4, dtype=torch.float64)) for _ in range(2))
    optimizer = Shampoo([w], lr=0.1, graft=graft, betas=betas, update_every=2)
    torch_s = {
        "sgd": lambda: torch.optim.SGD([other], lr=0.1),
        "rmsprop": lambda: torch.optim.RMSprop([other], lr=0.1, alpha=betas[1], eps=1e-300),
        "adam": lambda: torch.optim.Adam([other], lr=0.1, betas=betas, eps=1e-300),
    }[graft]()
    momentum = torch.zeros_like(grads[0])
    for t, grad in enumerate(grads, 1):
        was, other_was = w.detach().clone(), other.detach().clone()
        momentum = momentum.lerp(grad, 1 - betas[0])
        w.grad = grad.clone()
        other.grad = momentum / (1 - betas[0] ** t) if graft == "sgd" else grad.clone()
        optimizer.step()
        torch_s.step()
        torch.testing.assert_close((w - was).norm(), (other - other_was).norm())
        assert not torch.allclose(w - was, other - other_was)


def test_decay_is_decoupled() -> None:
    w = nn.Parameter(torch.ones(3, 3))
    w.grad = torch.zeros(3, 3)
    Shampoo([w], lr=0.5, weight_decay=0.1).step()
    torch.testing.assert_close(w.detach(), torch.full((3, 3), 0.95))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resume_is_bit_exact(dtype: torch.dtype) -> None:
    """Also for bf16 parameters, whose factors torch would load as bf16."""

    def one() -> tuple[nn.Parameter, Shampoo]:
        w = nn.Parameter(torch.ones(6, 4, dtype=dtype))
        return w, Shampoo([w], graft="adam", update_every=4, block_size=4)

    grads = gradients((6, 4), 9, dtype)
    w, optimizer = one()
    for grad in grads[:5]:
        w.grad = grad.clone()
        optimizer.step()
    saved, start = copy.deepcopy(optimizer.state_dict()), w.detach().clone()
    again, resumed = one()
    again.data.copy_(start)
    resumed.load_state_dict(saved)
    assert {v.dtype for v in resumed.state[again].values()} == {torch.float32}
    for grad in grads[5:]:
        for parameter, chosen in ((w, optimizer), (again, resumed)):
            parameter.grad = grad.clone()
            chosen.step()
    assert torch.equal(w, again)


def test_bf16_parameters_follow_float32() -> None:
    """The factors of bf16 gradients are those of the same numbers in float32."""
    grads = gradients((16, 8), 10, torch.bfloat16)
    low, _ = trained(grads, lr=0.01)
    high, _ = trained(grads.float(), lr=0.01)
    assert low.dtype == torch.bfloat16 and low.isfinite().all()
    assert (low.float() - high).norm() < 0.02 * high.norm()


def test_directions_without_gradients_do_not_explode() -> None:
    """Rank one for four steps, then another direction, with an eps far below rounding."""
    g = torch.zeros(5, 8, 8)
    g[:4, 0, 0], g[4, 1, 1] = 1.0, 1.0
    w, _ = trained(g, lr=1.0, eps=1e-30, betas=(0.0, 0.9), update_every=5)
    assert w.abs().max() < 10


def test_what_is_not_finite_stays_so_instead_of_stopping() -> None:
    grads = gradients((8, 8), 3)
    grads[1, 0, 0] = torch.inf
    w, _ = trained(grads, block_size=4, update_every=1)
    assert w[:4, :4].isnan().any() and w[4:, 4:].isfinite().all()


def test_closure_schedules_and_groups() -> None:
    model = build64(CASES["mlp"].build, 8)
    x, y = CASES["mlp"].batch()
    optimizer = Shampoo(model.parameters(), lr=0.2, eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 20)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    losses = []
    for _ in range(20):
        losses.append(optimizer.step(closure).item())
        schedule.step()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0.0}, "no inverse where no gradient was"),
        ({"exponent": 0.0}, "not both 0"),
        ({"exponent": (0.3, 0.5), "root": "newton"}, "integer p.*use root='eigh'"),
        ({"graft": "lion"}, "none of None, 'sgd', 'rmsprop', 'adam'"),
        ({"statistics": "mean"}, "none of 'ema', 'sum'"),
        ({"betas": (0.9, 1.0)}, "both from 0 up to"),
        ({"block_size": 0}, "integer from 1"),
        ({"lr": -1.0}, "must not be negative"),
    ],
)
def test_errors_say_what_to_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shampoo([nn.Parameter(torch.zeros(2, 2))], **options)


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match=r"sparse gradient for a tensor of shape \(4, 2\)"):
        Shampoo(table.parameters()).step()


def test_groups_of_a_plan_follow_exponent_and_graft() -> None:
    def net(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 2, bias=False))

    model = net(32)
    plan = paramz.parametrize_(model, "mup", base=net, base_width=8)

    def ratios(**options: Any) -> list[float]:
        made, rest = paramz.make_optimizers(plan, model, "shampoo", lr=1.0, **options)
        assert isinstance(made, Shampoo) and isinstance(rest, torch.optim.AdamW)
        return [g["lr"] for g in made.param_groups]

    assert ratios() == pytest.approx([2.0, 0.5])
    assert ratios(exponent=0.5) == pytest.approx([1.0, 1.0])
    assert ratios(exponent=[0.0, 0.5]) == pytest.approx([2.0, 0.5])
    assert ratios(graft="sgd") == pytest.approx([4.0, 0.25])
    assert ratios(graft="adam") == pytest.approx([1.0, 0.25])
    made, _ = paramz.make_optimizers(plan, model, "shampoo", lr=1.0, block_size=4)
    assert {g["block_size"] for g in made.param_groups} == {4}
    made, _ = paramz.make_optimizers(plan, model, "shampoo", lr=1.0, eps=1e-4)
    assert [g["eps"] for g in made.param_groups] == pytest.approx([1e-4 / 4, 4e-4])
    assert paramz.family("shampoo", graft="adam").lr_shift == Fraction(1)
