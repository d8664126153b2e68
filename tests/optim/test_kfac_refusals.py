"""What K-FAC, Shampoo and the rest cannot train is refused: it stood still, or moved otherwise."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.compat.mup import MuReadout, set_base_shapes
from paramz.optim import KFAC, LearnedOptimizer, Shampoo, constrained
from paramz.optim.learned.learned import initial_theta


def test_one_logit_has_no_categorical_likelihood_and_two_give_the_same_loss():
    net, x, y = nn.Linear(4, 1), torch.randn(8, 4), torch.ones(8, 1)
    with KFAC(net.parameters(), net), pytest.raises(ValueError, match="of which there is one"):
        net(x)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            z = self.net(x)
            return torch.cat([torch.zeros_like(z), z], -1)

    with KFAC(net.parameters(), two := Two(), lr=0.1) as optimizer:
        loss, before = F.cross_entropy(two(x), y[:, 0].long()), net.weight.detach().clone()
        assert torch.allclose(loss, F.binary_cross_entropy_with_logits(net(x), y))
        loss.backward()
        optimizer.step()
    assert not torch.equal(net.weight, before)
    with KFAC(net.parameters(), net, likelihood="gaussian"):
        net(x)  # of mse_loss there may be one


def test_logits_of_a_convolution_have_their_classes_in_another_axis():
    net, x, y = nn.Conv2d(2, 3, 3), torch.randn(2, 2, 5, 5), torch.ones(2, 3, 3).long()
    with KFAC(net.parameters(), net), pytest.raises(ValueError, match=r"weight, a Conv2d, whose"):
        net(x)
    with KFAC(net.parameters(), net, likelihood="gaussian"):
        net(x)  # the mean is over all of them

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x).movedim(1, -1)

    with KFAC(net.parameters(), last := Last(), fisher="exact") as optimizer:
        F.cross_entropy(last(x).movedim(-1, 1), y).backward()
        optimizer.step()
        # All pixels are predictions: B is the mean over them of diag(p) - p p^T.
        assert optimizer.state[net.weight]["b"].shape == (1, 3, 3)


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


def of_depth(depth, width=16):
    blocks = nn.Sequential(*(Residual(width) for _ in range(depth)))
    return nn.Sequential(nn.Linear(4, width), blocks, nn.Linear(width, 3)).double()


@pytest.mark.parametrize("optimizer", ["kfac", "foof"])
def test_a_factor_in_a_hook_is_one_in_the_weights(optimizer):
    ends = []
    for fold in (True, False):
        torch.manual_seed(0)
        model = of_depth(8)
        plan = paramz.parametrize_(
            model,
            "mup+completep",
            base=lambda width=16: of_depth(2, width),
            base_width=16,
            branches=paramz.Branches(inside=r"^(1[.][0-9])[.]", ends=r"^(1[.][0-9][.]down)$"),
            fold=fold,
        )
        assert fold or set(plan.branches.values()) == {0.25}
        own = {"fisher": "exact", "covariance_every": 1, "inverse_every": 1}
        (made,) = paramz.make_optimizers(plan, model, optimizer, lr=0.05, **own)
        x, y = torch.linspace(-1, 1, 64, dtype=torch.float64).view(16, 4), torch.arange(16) % 3
        for _ in range(3):
            made.zero_grad()
            F.cross_entropy(model(x), y).backward()
            made.step()
        made.close()
        ends.append(model(x).detach())
    assert torch.allclose(*ends, rtol=0, atol=1e-9)


def test_a_class_that_multiplies_is_refused_and_one_that_only_says_so_is_not():
    net = nn.Sequential(nn.Linear(4, 64), MuReadout(64, 3))
    set_base_shapes(net, nn.Sequential(nn.Linear(4, 16), MuReadout(16, 3)))
    x, y = torch.randn(8, 4), torch.ones(8).long()
    for factors in ("both", "inputs"):
        with (
            KFAC(net.parameters(), net, factors=factors),
            pytest.raises(ValueError, match="1.weight: MuReadout has a forward of its own, which"),
        ):
            net(x)

    class Named(nn.Linear):
        def forward(self, input):
            return super().forward(input)

    net = nn.Sequential(nn.Linear(4, 8), Named(8, 3))
    with KFAC(net.parameters(), net) as optimizer:
        F.cross_entropy(net(x), y).backward()
        optimizer.step()


def test_groups_that_are_added_later_would_not_move():
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    with (
        KFAC(net[1].parameters(), net) as optimizer,
        pytest.raises(ValueError, match="others would never move: close"),
    ):
        optimizer.add_param_group({"params": list(net[0].parameters())})


def test_empirical_gradients_of_several_passes_are_refused():
    net, x, y = nn.Linear(4, 3), torch.randn(8, 4), torch.ones(8).long()
    with KFAC(net.parameters(), net, fisher="empirical") as optimizer:
        for part in (slice(0, 4), slice(4, 8)):
            (F.cross_entropy(net(x[part]), y[part]) / 2).backward()
        with pytest.raises(RuntimeError, match="saw 2 forward passes since the last step"):
            optimizer.step()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: KFAC([p], nn.Linear(2, 2)),
        lambda p: LearnedOptimizer([p], initial_theta()),
        lambda p: constrained(torch.optim.AdamW([p], weight_decay=0.0)),
    ],
)
def test_complex_tensors_are_refused(make):
    with pytest.raises(ValueError, match="complex"):
        make(nn.Parameter(torch.ones(2, 2, dtype=torch.complex64)))


def test_weights_in_float64_keep_their_digits():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))
    optimizer = constrained(torch.optim.SGD([weight], lr=0.1))
    start, weight.grad = weight.detach().clone(), torch.randn(4, 4, dtype=torch.float64)
    optimizer.step()
    radius, u = start.norm(), -weight.grad
    v = start + 0.1 * radius * u / u.norm()
    assert torch.allclose(weight, radius * v / v.norm(), rtol=0, atol=1e-14)


def test_a_later_group_of_shampoo_is_looked_at_and_empty_tensors_are_passed_over():
    weight, other = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = Shampoo([weight, nn.Parameter(torch.ones(0, 2))], root="newton")
    with pytest.raises(ValueError, match="root='cube' is none of"):
        optimizer.add_param_group({"params": [other], "root": "cube"})
    assert len(optimizer.param_groups) == 1
    for p in optimizer.param_groups[0]["params"]:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert float(weight.detach().max()) < 1
