"""K-FAC against definitions: exact Fisher blocks, naive sums, other layers in disguise."""

import copy
import io
import re

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

import paramz
from paramz.optim import KFAC
from paramz.optim.kfac.fisher import fisher_vectors

EXACT = {"lr": 1.0, "momentum": 0.0, "covariance_every": 1, "inverse_every": 1, "fisher": "exact"}


def draw(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def double(*modules, seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(*modules).double()
    for p in net.parameters():
        nn.init.normal_(p, std=0.5)
    return net


def step(net, x, y, loss=F.mse_loss, **options):
    """One step; returns each tensor's change and its gradient."""
    before = [p.detach().clone() for p in net.parameters()]
    settings = EXACT | {"likelihood": "gaussian" if loss is F.mse_loss else "categorical"} | options
    with KFAC(net.parameters(), net, **settings) as optimizer:
        loss(net(x), y).backward()
        grads = [p.grad.clone() for p in net.parameters()]
        optimizer.step()
    changes = [p.detach() - b for p, b in zip(net.parameters(), before, strict=True)]
    return changes, grads


def fisher_blocks(net, x, blocks, hessian):
    """The blocks (1/N) sum_n J_n^T H_n J_n of tensors that belong together, by autograd."""
    out = net(x)
    rows, classes = out.numel() // out.shape[-1], out.shape[-1]
    found = []
    for names in blocks:
        parameters = {n: p.detach() for n, p in net.named_parameters() if n in names}

        def outputs(part):
            return functional_call(net, part, x).reshape(rows, classes)

        jacobians = jacrev(outputs)(parameters)
        j = torch.cat([jacobians[n].reshape(rows, classes, -1) for n in names], 2)
        h = hessian(out.detach().reshape(rows, classes))
        found.append(torch.einsum("nci,ncd,ndj->ij", j, h, j) / rows)
    return found


def squared(out):
    classes = out.shape[1]
    return (2 / classes * torch.eye(classes, dtype=out.dtype)).expand(len(out), -1, -1)


def softmax(out):
    p = out.softmax(1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def assert_natural(net, x, blocks, changes, grads, hessian=squared, atol=1e-8):
    names = [n for n, _ in net.named_parameters()]
    for tensors, block in zip(blocks, fisher_blocks(net, x, blocks, hessian), strict=True):
        gradient = torch.cat([grads[names.index(n)].flatten() for n in tensors])
        change = torch.cat([changes[names.index(n)].flatten() for n in tensors])
        expected = -torch.linalg.solve(block, gradient)
        assert expected.abs().max() > 1e-2  # it moves
        assert torch.allclose(change, expected, rtol=0, atol=atol)


def layers_of(net):
    """Names of the tensors of each layer."""
    blocks = {}
    for name, _ in net.named_parameters():
        blocks.setdefault(name.rpartition(".")[0], []).append(name)
    return list(blocks.values())


def test_one_layer_is_the_exact_natural_gradient_and_solves_least_squares():
    net, x, y = double(nn.Linear(4, 3)), draw(20, 4), draw(20, 3, seed=2)
    before = copy.deepcopy(net)
    changes, grads = step(net, x, y, damping=0.0)
    assert_natural(before, x, layers_of(net), changes, grads)
    solution = torch.linalg.lstsq(F.pad(x, (0, 1), value=1.0), y).solution.T
    assert torch.allclose(net[0].weight, solution[:, :4], rtol=0, atol=1e-8)
    assert torch.allclose(net[0].bias, solution[:, 4], rtol=0, atol=1e-8)


@pytest.mark.parametrize("bias", [True, False])
def test_a_deep_linear_network_is_the_exact_natural_gradient_of_each_block(bias):
    net = double(*(nn.Linear(i, o, bias=bias) for i, o in ((4, 3), (3, 3), (3, 5))))
    x, y = draw(30, 4), draw(30, 5, seed=2)
    before = copy.deepcopy(net)
    changes, grads = step(net, x, y, damping=0.0)
    assert_natural(before, x, layers_of(net), changes, grads)


def test_expand_is_exact_where_every_position_has_a_loss():
    """Eschenhagen et al. 2023, proposition 1: deep linear, expand setting."""
    net = double(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 5))
    x, y = draw(6, 7, 4), draw(6, 7, 5, seed=2)
    before = copy.deepcopy(net)
    changes, grads = step(net, x, y, damping=0.0, sharing="expand")
    assert_natural(before, x, layers_of(net), changes, grads)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


def test_reduce_is_exact_where_positions_are_averaged():
    """Eschenhagen et al. 2023, proposition 2: deep linear, reduce setting."""
    net = double(nn.Linear(4, 3), Mean(), nn.Linear(3, 5))
    x, y = draw(30, 7, 4), draw(30, 5, seed=2)
    before = copy.deepcopy(net)
    changes, grads = step(net, x, y, damping=0.0, sharing="reduce")
    assert_natural(before, x, layers_of(net), changes, grads)
    expanded, _ = step(copy.deepcopy(before), x, y, damping=0.0, sharing="expand")
    assert (expanded[0] - changes[0]).abs().max() > 1e-2  # they are two things


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_factors_are_the_naive_sums(sharing):
    net = double(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 5))
    x, y = draw(6, 2, 4), torch.randint(5, (6, 2))

    def loss(out, y):
        return F.cross_entropy(out.flatten(0, 1), y.flatten())

    before = copy.deepcopy(net)
    with KFAC(net.parameters(), net, **EXACT | {"sharing": sharing, "damping": 0.1}) as optimizer:
        loss(net(x), y).backward()
        grad = torch.cat([net[0].weight.grad, net[0].bias.grad[:, None]], 1).clone()
        optimizer.step()
    # Datum by datum and position by position; only its own loss reaches a position.
    a, b = torch.zeros(5, 5).double(), torch.zeros(3, 3).double()
    for n in range(6):
        rows = [torch.cat([x[n, r], torch.ones(1).double()]) for r in range(2)]
        if sharing == "expand":
            a += sum(torch.outer(row, row) for row in rows) / 12
        else:
            a += torch.outer(sum(rows) / 2, sum(rows) / 2) / 6
        for r in range(2):
            hidden = before[:2](x[n, r]).detach()
            jacobian = before[2].weight.detach() * (1 - hidden**2)
            b += jacobian.T @ softmax(before(x[n, r])[None].detach())[0] @ jacobian / 12
    state = optimizer.state[net[0].weight]
    assert torch.allclose(state["a"][0], a, rtol=0, atol=1e-12)
    assert torch.allclose(state["b"][0], b, rtol=0, atol=1e-12)
    damped_a = a + 0.1 * a.trace() * torch.eye(5).double()
    damped_b = b + 0.1 * b.trace() * torch.eye(3).double()
    expected = (
        before[0].weight.detach()
        - (torch.linalg.solve(damped_b, grad) @ torch.linalg.inv(damped_a))[:, :4]
    )
    assert torch.allclose(net[0].weight.detach(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("padding", [1, "same"])
def test_a_convolution_is_a_linear_layer_on_patches(padding, sharing):
    conv = nn.Conv2d(2, 3, 3, padding=padding, stride=1 if padding == "same" else 2)
    net = double(conv, nn.Tanh(), nn.Flatten(2), Last(), nn.Linear(3, 4))
    x, y = draw(5, 2, 6, 6), torch.arange(5) % 4
    stride = conv.stride[0]
    patches = F.unfold(x, 3, padding=1, stride=stride).transpose(1, 2)
    linear = double(nn.Linear(18, 3), nn.Tanh(), Mean(), nn.Linear(3, 4))
    linear[0].weight.data.copy_(conv.weight.detach().flatten(1))
    linear[0].bias.data.copy_(conv.bias.detach())
    linear[3].load_state_dict(net[4].state_dict())
    options = {"loss": F.cross_entropy, "damping": 0.01, "sharing": sharing}
    conv_changes, _ = step(net, x, y, **options)
    linear_changes, _ = step(linear, patches, y, **options)
    for mine, other in zip(conv_changes, linear_changes, strict=True):
        assert mine.abs().max() > 1e-3
        assert torch.allclose(mine.reshape(other.shape), other, rtol=0, atol=1e-10)


class Last(nn.Module):
    def forward(self, x):
        return x.mean(2)


def test_an_embedding_is_a_linear_layer_on_one_hot_vectors():
    net = double(nn.Embedding(5, 3), nn.Tanh(), nn.Linear(3, 4))
    ids, y = torch.arange(20) % 5, torch.arange(20) % 4
    linear = double(nn.Linear(5, 3, bias=False), nn.Tanh(), nn.Linear(3, 4))
    linear[0].weight.data.copy_(net[0].weight.detach().T)
    linear[2].load_state_dict(net[2].state_dict())
    options = {"loss": F.cross_entropy, "damping": 0.01}
    mine, _ = step(net, ids, y, **options)
    other, _ = step(linear, F.one_hot(ids, 5).double(), y, **options)
    assert mine[0].abs().max() > 1e-2
    assert torch.allclose(mine[0], other[0].T, rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_norms_have_their_exact_fisher_blocks(norm):
    net = double(nn.Linear(4, 3), norm(3), nn.Linear(3, 6))
    x, y = draw(40, 4), torch.arange(40) % 6
    before = copy.deepcopy(net)
    net.requires_grad_(False)
    net[1].requires_grad_(True)
    blocks = [[name] for name, _ in net.named_parameters() if name.startswith("1.")]
    assert blocks
    with KFAC(net[1].parameters(), net, **EXACT | {"damping": 0.0}) as optimizer:
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    for block in blocks:
        fisher = fisher_blocks(before, x, [block], softmax)[0]
        change = net.get_parameter(block[0]).detach() - before.get_parameter(block[0]).detach()
        gradient = net.get_parameter(block[0]).grad
        assert torch.allclose(change, -torch.linalg.solve(fisher, gradient), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("likelihood", "hessian"), [("gaussian", squared), ("categorical", softmax)]
)
def test_fisher_vectors_have_the_hessian_as_second_moment(likelihood, hessian):
    out = draw(1, 3)
    generator = torch.Generator().manual_seed(0)
    exact = [v.flatten() for v in fisher_vectors(out, likelihood, "exact", generator)]
    assert torch.allclose(sum(torch.outer(v, v) for v in exact), hessian(out)[0], atol=1e-12)
    many = next(iter(fisher_vectors(out.expand(40000, 3), likelihood, "mc", generator)))
    # Its own scatter allows 5 sigma.
    products = many[:, :, None] * many[:, None, :]
    sigma = products.std(0) / 200
    assert ((products.mean(0) - hessian(out)[0]).abs() < 5 * sigma + 1e-12).all()


def test_exact_counts_no_product_of_two_positions_losses():
    """A layer before a mean over positions: the losses of all positions reach its output."""

    class Spread(nn.Module):
        def forward(self, x):
            return x.mean(1, keepdim=True) * torch.arange(1.0, 4.0).double()[:, None]

    net = double(nn.Linear(4, 3), Spread(), nn.Linear(3, 5))
    x, y = draw(20, 1, 4), draw(20, 3, 5, seed=2)
    before = copy.deepcopy(net)
    changes, grads = step(net, x, y, damping=0.0)
    assert_natural(before, x, layers_of(net)[:1], changes, grads)


def test_empirical_uses_the_gradients_of_the_loss():
    net, x, y = double(nn.Linear(4, 3)), draw(10, 4), torch.arange(10) % 3
    with KFAC(net.parameters(), net, **EXACT | {"fisher": "empirical"}) as optimizer:
        out = net(x)
        F.cross_entropy(out, y).backward()
        optimizer.step()
    g = out.detach().softmax(1) - F.one_hot(y, 3)
    assert torch.allclose(optimizer.state[net[0].weight]["b"][0], g.T @ g / 10, atol=1e-12)


def test_several_passes_are_one_batch():
    net, x, y = (
        double(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)),
        draw(12, 4),
        torch.arange(12) % 3,
    )
    other = copy.deepcopy(net)
    step(net, x, y, loss=F.cross_entropy)
    with KFAC(other.parameters(), other, **EXACT) as optimizer:
        for part in (slice(0, 4), slice(4, 12)):
            loss = F.cross_entropy(other(x[part]), y[part], reduction="sum") / 12
            loss.backward()
        optimizer.step()
    for mine, p in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, p, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(12, 4), (4, 3, 4)])  # of three axes outputs are views
def test_activations_in_place_are_seen_through(shape):
    x, y = draw(*shape), draw(*shape[:-1], 3, seed=2)
    nets = [double(nn.Linear(4, 8), nn.ReLU(inplace=i), nn.Linear(8, 3)) for i in (False, True)]
    before = nets[0][0].weight.detach().clone()
    for net in nets:
        step(net, x, y)
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(p, q)
    assert (nets[0][0].weight.detach() - before).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["constant", "pi"])
def test_other_dampings(kind):
    net, x, y = double(nn.Linear(4, 3)), draw(10, 4), torch.arange(10) % 3
    groups = [{"params": net.parameters(), "damping": 0.04, "damping_a": 0.3, "damping_b": 0.2}]
    with KFAC(groups, net, **EXACT | {"damping_kind": kind}) as optimizer:
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    state = optimizer.state[net[0].weight]
    (a,), (b,) = state["a"], state["b"]
    pi = ((a.trace() / 5) / (b.trace() / 3)).sqrt()
    on_a, on_b = (0.3, 0.2) if kind == "constant" else (0.2 * pi, 0.2 / pi)
    for inverse, factor, c in (("a_inverse", a, on_a), ("b_inverse", b, on_b)):
        eye = torch.eye(len(factor)).double()
        assert torch.allclose(state[inverse][0] @ (factor + c * eye), eye, atol=1e-10)


def test_factors_in_blocks():
    """Blocks of the whole factors, damped by their own traces; steps over the number of blocks."""
    net, x, y = double(nn.Linear(6, 4)), draw(30, 6), torch.arange(30) % 4
    options = EXACT | {"block_size": 3, "damping": 0.05}
    with KFAC(net.parameters(), net, **options) as optimizer:
        F.cross_entropy(net(x), y).backward()
        grad = torch.cat([net[0].weight.grad, net[0].bias.grad[:, None]], 1).clone()
        before = net[0].weight.detach().clone()
        p = net(x).detach().softmax(1)
        optimizer.step()
    a = F.pad(x, (0, 1), value=1.0)
    whole = {"a": a.T @ a / 30, "b": torch.diag(p.mean(0)) - p.T @ p / 30}
    inverse = {}
    for name, size in (("a", 3), ("b", 2)):  # 7 inputs are blocks of 3, 3 and 1
        factor = whole[name]
        inverse[name] = torch.zeros_like(factor)
        for i in range(0, len(factor), size):
            block = factor[i : i + size, i : i + size]
            damped = block + 0.05 * block.trace() * torch.eye(len(block)).double()
            inverse[name][i : i + size, i : i + size] = torch.linalg.inv(damped)
    expected = before - (inverse["b"] @ grad @ inverse["a"] / (3 * 2))[:, :6]
    assert torch.allclose(net[0].weight.detach(), expected, rtol=0, atol=1e-10)


def test_foof_needs_inputs_only():
    net, x, y = double(nn.Linear(4, 3)), draw(10, 4), torch.arange(10) % 3
    changes, grads = step(net, x, y, loss=F.cross_entropy, factors="inputs", damping=0.1)
    a = F.pad(x, (0, 1), value=1.0)
    a = a.T @ a / 10
    a += 0.1 * a.trace() * torch.eye(5).double()
    update = torch.cat([grads[0], grads[1][:, None]], 1) @ torch.linalg.inv(a)
    assert torch.allclose(changes[0], -update[:, :4], rtol=0, atol=1e-12)


def mixed(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Embedding(7, 8), nn.LayerNorm(8), nn.Linear(8, 16), nn.ReLU(inplace=True),
        nn.Linear(16, 8, bias=False), nn.RMSNorm(8), nn.Linear(8, 7),
    )  # fmt: skip


def loss_of(net, i):
    generator = torch.Generator().manual_seed(i)
    ids = torch.randint(7, (4, 5), generator=generator)
    return F.cross_entropy(net(ids).flatten(0, 1), ids.roll(1, 1).flatten())


def train(net, optimizer, steps):
    for i in steps:
        optimizer.zero_grad()
        loss_of(net, i).backward()
        optimizer.step()


AMORTISED = {"covariance_every": 2, "inverse_every": 4, "weight_decay": 0.1, "lr": 0.02}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_resumes_bit_for_bit(dtype):
    net = mixed().to(dtype)
    with KFAC(net.parameters(), net, **AMORTISED) as optimizer:
        train(net, optimizer, range(5))
        file = io.BytesIO()
        torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, file)
        train(net, optimizer, range(5, 12))
    file.seek(0)
    saved = torch.load(file)
    again = mixed(seed=1).to(dtype)
    again.load_state_dict(saved["net"])
    with KFAC(again.parameters(), again, **AMORTISED) as resumed:
        resumed.load_state_dict(saved["optimizer"])
        assert resumed.state[again[2].weight]["a"].dtype == torch.float32
        train(again, resumed, range(5, 12))
    for p, q in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_state_of_another_block_size_is_refused_with_the_way_out():
    net = mixed()
    with KFAC(net.parameters(), net, block_size=2, covariance_every=1, inverse_every=1) as saved:
        train(net, saved, range(1))
        state = saved.state_dict()
    with KFAC(net.parameters(), net, covariance_every=1, inverse_every=1) as optimizer:
        optimizer.load_state_dict(state)
        with pytest.raises(ValueError, match="give the block_size of the run that was saved"):
            train(net, optimizer, range(1))


def test_training_is_left_as_it_was():
    """Neither gradients nor torch's random numbers see the measurement, and the hooks go."""
    net, plain = mixed(), mixed()
    optimizer = KFAC(net.parameters(), net)
    random = torch.get_rng_state()
    loss_of(net, 0).backward()
    assert torch.equal(random, torch.get_rng_state())
    loss_of(plain, 0).backward()
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
    optimizer.close()
    for module in net.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
        assert not module._backward_hooks


def test_copies_of_an_attached_model_are_not_measured():
    net = mixed()
    optimizer = KFAC(net.parameters(), net)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    for other in (copy.deepcopy(net), torch.load(file, weights_only=False)):
        loss_of(other, 0).backward()
        assert not optimizer._measured.passes
        assert torch.equal(other[2].weight, net[2].weight)
    assert len(file.getvalue()) < 20_000  # no optimizer in it
    loss_of(net, 0).backward()
    assert optimizer._measured.passes == 1


def test_hooks_do_nothing_between_measurements_and_in_evaluation():
    net = mixed()
    with KFAC(net.parameters(), net, covariance_every=3, inverse_every=3) as optimizer:
        measured = []
        for i in range(7):
            optimizer.zero_grad()
            with torch.no_grad():
                loss_of(net, i)
            loss_of(net.eval(), i)
            net.train()
            assert not optimizer._measured.passes
            loss_of(net, i).backward()
            measured.append(optimizer._measured.passes)
            optimizer.step()
    assert measured == [1, 0, 0, 1, 0, 0, 1]


def test_a_layer_without_gradient_or_data_stays():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.used(x)

    net = Two()
    before = net.idle.weight.detach().clone()
    with KFAC(net.parameters(), net) as optimizer:
        F.cross_entropy(net(torch.randn(4, 3)), torch.ones(4).long()).backward()
        optimizer.step()
    assert torch.equal(net.idle.weight, before)


def test_branches_that_start_at_zero_stay_finite():
    """Nothing passes a zero matrix, so what is below it has a factor B of zeros, and no step."""
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    nn.init.zeros_(net[2].weight)
    before = net[0].weight.detach().clone()
    with KFAC(net.parameters(), net) as optimizer:
        F.cross_entropy(net(torch.randn(4, 4)), torch.ones(4).long()).backward()
        optimizer.step()
    assert torch.equal(net[0].weight, before)
    assert net[2].weight.isfinite().all() and net[2].weight.any()


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(5, 4)
        self.position = nn.Parameter(torch.zeros(3, 4))
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.tokens.weight
        self.conv = nn.Conv2d(4, 4, 3, groups=2)


def test_tensors_without_a_block_are_refused_with_the_fix():
    net = Odd()
    with pytest.raises(ValueError) as error:
        KFAC(net.parameters(), net)
    text = str(error.value)
    assert "K-FAC has no block for position (3, 4), conv.weight (4, 2, 3, 3)" in text
    assert "layers share tokens.weight = head.weight" in text
    assert "plan.split_groups(model, kfac=dict(lr=...), adamw=dict(lr=...))" in text
    with pytest.raises(ValueError, match=r"no block for a tensor \(2,\) that is not the model's"):
        KFAC([nn.Parameter(torch.ones(2))], net)


def test_a_plan_gives_the_groups():
    def build(width=8):
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    model = build(32)
    plan = paramz.parametrize_(model, "mup", base=build)
    with KFAC(plan.param_groups(model, "kfac", lr=0.1, damping=0.02), model) as optimizer:
        F.cross_entropy(model(torch.randn(4, 4)), torch.ones(4).long()).backward()
        optimizer.step()
    assert {g["damping"] for g in optimizer.param_groups} == {0.02}
    assert {g["lr"] for g in optimizer.param_groups} == {0.1}
    assert {g["damping_b"] for g in optimizer.param_groups} == {0.02, 0.005}


def test_the_family_has_the_optimizers_own_defaults():
    net = nn.Linear(2, 2)
    with KFAC(net.parameters(), net) as optimizer:
        own = optimizer.defaults
    for name in ("kfac", "foof"):
        known = paramz.family(name)
        assert (known.damping, known.weight_decay) == (own["damping"], own["weight_decay"])


ERRORS = [
    ({"fisher": "true"}, "fisher='true' is none of mc, exact, empirical"),
    ({"damping_kind": "auto"}, "damping_kind='auto' is none of trace, pi, constant"),
    ({"lr": -1.0}, "lr=-1.0 must not be negative"),
    ({"block_size": 0}, "block_size=0 must be at least 1, or None for no blocks"),
    ({"covariance_every": 3}, "inverse_every=10 must be a multiple of covariance_every=3"),
]


@pytest.mark.parametrize(("options", "text"), ERRORS)
def test_options_out_of_range(options, text):
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=re.escape(text)):
        KFAC(net.parameters(), net, **options)


def test_a_step_without_what_it_needs_says_so():
    net = nn.Sequential(nn.Linear(3, 2), nn.MultiheadAttention(2, 1, bias=False))
    inner = [net[0].weight, net[0].bias, net[1].out_proj.weight]
    optimizer = KFAC(inner, net)
    with pytest.raises(RuntimeError, match="K-FAC measured no forward pass since the last step"):
        optimizer.step()
    net = nn.Sequential(nn.Linear(3, 3))
    with KFAC(net.parameters(), net, damping=0.0) as optimizer:
        F.cross_entropy(net(torch.zeros(2, 3)), torch.ones(2).long()).backward()
        with pytest.raises(ValueError, match=r"factor A of 0.weight \(1, 4, 4\) plus 0 on its dia"):
            optimizer.step()

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            return F.linear(x, self.linear.weight, self.linear.bias)

    net = Functional()
    with KFAC(net.parameters(), net) as optimizer:
        F.cross_entropy(net(torch.ones(2, 3)), torch.ones(2).long()).backward()
        with pytest.raises(RuntimeError, match="linear.weight has a gradient, but no forward pass"):
            optimizer.step()

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            self.linear(x)
            return "words"

    net = Words()
    with (
        KFAC(net.parameters(), net),
        pytest.raises(TypeError, match="K-FAC needs the predictions of the model, but it retu"),
    ):
        net(torch.ones(2, 3))


def test_a_layer_of_which_one_tensor_was_frozen_is_told_of():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with paramz.optim.KFAC(model.parameters(), model, lr=0.1) as optimizer:
        model[0].weight.requires_grad_(False)
        F.cross_entropy(model(torch.ones(5, 3)), torch.ones(5).long()).backward()
        # The bias would have stood still without a word.
        with pytest.raises(RuntimeError, match=r"0.weight and its bias move together, and one of"):
            optimizer.step()
