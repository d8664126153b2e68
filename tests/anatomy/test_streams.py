"""What hides the factor of depth, or stands beside it: a run shows it, whatever the names are."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.anatomy.branches import find_branches

AVERAGED = {
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
    "lerp, the other way": lambda x, y: torch.lerp(y, x, 0.3),
    "a mean of two": lambda x, y: torch.stack([x, y]).mean(0),
    "divided": lambda x, y: (x + y) / 2**0.5,
    "numbers on both": lambda x, y: x * 0.8 + y * 0.6,
    "a gate": lambda x, y: x * (1 - x.sigmoid()) + y * x.sigmoid(),
    "a step towards it": lambda x, y: x + 0.3 * (y - x),
    "a step away": lambda x, y: x - 0.3 * (x - y),
    "a step by a gate": lambda x, y: x + y.sigmoid() * (y - x),
    "a step back": lambda x, y: x + y - 0.1 * x,
    "a step back of no gradient": lambda x, y: x + y - (0.1 * x).detach(),
    "a tensor": lambda x, y: x * torch.tensor(0.5) + y,
    "a tensor, fused": lambda x, y: torch.addcmul(y, x, torch.tensor(0.5)),
    "a number beside": lambda x, y: torch.add(y, x, alpha=0.5),
    "weights of a stack": lambda x, y: (
        torch.stack([x, y]) * torch.tensor([0.5, 0.5])[:, None, None]
    ).sum(0),
}
# The last two are bounded, no norms.
HIDDEN = {
    "mean of sizes": lambda y: y / y.abs().mean(-1, keepdim=True),
    "largest size": lambda y: y / (y.abs().amax(-1, keepdim=True) + 1e-6),
    "largest size, another way": lambda y: y / y.abs().max(-1, keepdim=True).values,
    "variance and mean at once": lambda y: (
        (y - torch.var_mean(y, -1, keepdim=True)[1]) / torch.var_mean(y, -1, keepdim=True)[0].sqrt()
    ),
    "signs": torch.sign,
    "softmax": lambda y: y.softmax(-1),
    "tanh": lambda y: 2 * torch.tanh(3 * y),
}
KEPT = {
    "scaled before": lambda x, y: 1.0 * x + y * 0.1,
    "subtracted": lambda x, y: x - y,
    "a sum of two": lambda x, y: torch.stack([x, y]).sum(0),
    "relu": lambda x, y: x + y.relu(),
    "root of a square": lambda x, y: x + y.square().sqrt(),
    "gated": lambda x, y: x + x.sigmoid() * y,
    "fused": lambda x, y: torch.addcmul(x, y, torch.tensor(0.5)),
    "a number beside": lambda x, y: torch.add(x, y, alpha=0.5),
    "of a block of its own": lambda x, y: x + 0.5 * ((x + y) - x),
}


class Block(nn.Module):
    def __init__(self, width, joined):
        super().__init__()
        self.before, self.joined = nn.LayerNorm(width), joined
        self.f = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x):
        return self.joined(x, self.f(self.before(x)))


class Bare(Block):
    """A gain and a bias of their own behind the branch's last map."""

    def __init__(self, width, joined):
        super().__init__(width, joined)
        self.gain = nn.Parameter(torch.full((width,), 0.1))
        self.bias = nn.Parameter(torch.full((width,), 0.2))

    def forward(self, x):
        return self.joined(x, self.gain * self.f(self.before(x)), self.bias)


class DynamicTanh(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.alpha, self.shift = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(width))

    def forward(self, x):
        return torch.tanh(self.alpha * x) + self.shift


class Ended(Block):
    """A module that hides the size of what the last map makes."""

    def __init__(self, width, kind):
        super().__init__(width, None)
        self.after = kind(width)

    def forward(self, x):
        return x + self.after(self.f(self.before(x)))


class SharedTanh(Ended):
    """The same module stands inside the branch and behind it."""

    def forward(self, x):
        return x + self.after(self.f(self.after(self.before(x))))


class Weighed(Block):
    """Learnt weights on the stream and on the branch."""

    def __init__(self, width, joined):
        super().__init__(width, joined)
        self.a, self.b = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        return self.joined(x, self.f(self.before(x)), self.a, self.b)


class FromFirst(Block):
    """Values mix with those of the first block, by a weight that is learnt."""

    def __init__(self, width, joined):
        super().__init__(width, joined)
        self.value, self.mix = nn.Linear(width, width), nn.Parameter(torch.tensor(0.5))

    def forward(self, x, first):
        v = self.value(self.before(x))
        v = v if first is None else self.mix * v + (1 - self.mix) * first
        return x + self.f(v), v


class ValueResidual(nn.Module):
    def __init__(self, depth=2, width=16):
        super().__init__()
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, 3)
        self.blocks = nn.ModuleList(FromFirst(width, None) for _ in range(depth))

    def forward(self, x):
        x, v = self.first(x), None
        for block in self.blocks:
            x, v = block(x, v)
        return self.last(x)


class Net(nn.Module):
    def __init__(self, depth=2, block=Block, how=None, width=16):
        super().__init__()
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, 3)
        self.blocks = nn.ModuleList(block(width, how) for _ in range(depth))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def added(block, how, **options):
    """What the first block adds to its input at 4 times the depth, before and under a plan."""
    x, models = torch.randn(8, 6), []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(Net(8, block, how))
    paramz.parametrize_(
        models[1],
        "mup+completep",
        base=Net(block=block, how=how),
        wider=Net(block=block, how=how, width=32),
        example=x,
        **options,
    )
    h = models[0].first(x)
    return [model.blocks[0](h) - h for model in models]


@pytest.mark.parametrize("name", AVERAGED)
def test_a_stream_that_is_multiplied_is_refused(name):
    with pytest.raises(ValueError, match=r"blocks.0.f.2.*added to a stream that is multiplied"):
        added(Block, AVERAGED[name])


@pytest.mark.parametrize(
    "joined",
    [
        lambda x, y, a, b: a * x + b * y,
        lambda x, y, a, b: a.sigmoid() * x + (1 - a.sigmoid()) * y,
        lambda x, y, a, b: x + a * (y - x),
        lambda x, y, a, b: x + a.sigmoid() * (y - x),
    ],
)
def test_learnt_weights_on_the_stream_are_no_ones(joined):
    with pytest.raises(ValueError, match=r"blocks.0.f.2.*added to a stream that is multiplied"):
        added(Weighed, joined)


class Gating(Block):
    """GTrXL's gate, a GRU's of the stream."""

    def __init__(self, width, mix):
        super().__init__(width, None)
        self.mix, self.bias = mix, nn.Parameter(torch.full((width,), 2.0))
        self.wr, self.ur, self.wz, self.uz, self.wg, self.ug = (
            nn.Linear(width, width, bias=False) for _ in range(6)
        )

    def forward(self, x):
        y = self.f(self.before(x)).relu()
        r = torch.sigmoid(self.wr(y) + self.ur(x))
        z = torch.sigmoid(self.wz(y) + self.uz(x) - self.bias)
        return self.mix(x, z, torch.tanh(self.wg(y) + self.ug(r * x)))


class RecurrentBranch(Block):
    """A GRU by hand inside the branch: what its state mixes is not the stream."""

    def __init__(self, width, mix):
        super().__init__(width, None)
        self.mix, self.z, self.h = mix, nn.Linear(2 * width, width), nn.Linear(2 * width, width)

    def forward(self, x):
        state, u = torch.zeros_like(x), self.before(x)
        for _ in range(3):
            both = torch.cat([u, state], -1)
            state = self.mix(state, self.z(both).sigmoid(), self.h(both).tanh())
        return x + self.f(state)


MIXED = {
    "weights": lambda x, z, h: (1 - z) * x + z * h,
    "a step": lambda x, z, h: x + z * (h - x),
}


@pytest.mark.parametrize("mix", MIXED)
def test_a_gate_of_the_stream_is_refused_and_one_inside_a_branch_is_none(mix):
    with pytest.raises(ValueError, match=r"blocks.0.ug.weight.*added to a stream that is multip"):
        find_branches(
            Net(8, Gating, MIXED[mix]), Net(2, Gating, MIXED[mix]), example=torch.randn(2, 6)
        )
    inside = [Net(n, RecurrentBranch, MIXED[mix]) for n in (8, 2)]
    found = find_branches(*inside, example=torch.randn(2, 6))
    assert set(found.modules) == {f"blocks.{n}.f.2" for n in range(8)}


class DeepNorm(Block):
    def __init__(self, width, layers):
        super().__init__(width, None)
        self.alpha = (2 * layers) ** 0.25

    def forward(self, x):
        return self.before(x * self.alpha + self.f(x))


class DeepNormNet(Net):
    def __init__(self, depth, width=16):
        super().__init__(depth, DeepNorm, depth, width)


def test_deepnorm_is_no_average_and_its_weight_is_held_at_the_bases():
    model = DeepNormNet(8)
    plan = paramz.parametrize_(
        model, "mup+completep", base=lambda width: DeepNormNet(2, width), base_width=16
    )
    assert {row.name for row in plan.rows if row.ends} == {
        f"blocks.{n}.f.2.{kind}" for n in range(8) for kind in ("weight", "bias")
    }
    assert [block.alpha for block in model.blocks] == [pytest.approx(4**0.25)] * 8


def test_what_a_momentum_resnet_can_do_is_said():
    def velocity(x, v, f):
        v = 0.9 * v + 0.1 * f
        return x + v, v

    class Momentum(Net):
        def forward(self, x):
            x = self.first(x)
            v = torch.zeros_like(x)
            for block in self.blocks:
                x, v = velocity(x, v, block.f(block.before(x)))
            return self.last(x)

    with pytest.raises(ValueError, match="momentum ResNet.* plan its blocks as x . f.x."):
        find_branches(Momentum(8), Momentum(2), example=torch.randn(2, 6))


def test_values_mixed_with_those_of_the_first_block_are_no_branch():
    model, base = ValueResidual(8), ValueResidual()
    found = find_branches(model, base, example=torch.randn(2, 6))
    assert set(found.modules) == {f"blocks.{n}.f.2" for n in range(8)}


def test_one_block_is_enough_to_see_that_its_sum_is_multiplied():
    def build(depth):
        return Net(depth, how=AVERAGED["divided"])

    with pytest.raises(ValueError, match=r"blocks.0.f.2.*added to a stream that is multiplied"):
        find_branches(build(4), build(1), example=torch.randn(2, 6))


def test_a_norm_of_the_sum_times_a_number_is_no_average():
    def post(x, y):
        return F.normalize(x + y, dim=-1) * 4

    model = Net(8, how=post)
    found = find_branches(model, Net(how=post), example=torch.randn(2, 6))
    assert set(found.modules) == {f"blocks.{n}.f.2" for n in range(8)}


@pytest.mark.parametrize("name", KEPT)
def test_the_factor_of_depth_goes_through(name):
    plain, planned = added(Block, KEPT[name])
    torch.testing.assert_close(planned, plain / 4)


@pytest.mark.parametrize("name", HIDDEN)
def test_what_hides_the_factor_in_forward_code_is_refused(name):
    with pytest.raises(ValueError, match=r"blocks.0.f.2.*normalised in forward code.*or goes thr"):
        added(Block, lambda x, y: x + HIDDEN[name](y))


@pytest.mark.parametrize(
    "kind", [lambda _: nn.Tanh(), lambda _: nn.Softmax(-1), DynamicTanh, lambda _: nn.Hardtanh()]
)
def test_a_module_that_hides_the_factor_takes_it(kind):
    plain, planned = added(Ended, kind)
    torch.testing.assert_close(planned, plain / 4)


def test_a_module_that_stands_elsewhere_too_takes_no_factor():
    with pytest.raises(ValueError, match=r"blocks.0.f.2.*Let a module of its own put out"):
        added(SharedTanh, lambda _: nn.Tanh())


@pytest.mark.parametrize(
    "joined", [lambda x, y, b: x + (y + b), lambda x, y, b: x + y + b, lambda x, y, b: x + b + y]
)
def test_a_bias_by_hand_takes_the_factor_of_the_branch(joined):
    plain, planned = added(Bare, joined)
    torch.testing.assert_close(planned, plain / 4)
    with pytest.raises(ValueError, match=r"blocks.0.bias.*added to the stream by itself.*fold=T"):
        added(Bare, joined, fold=False)


def test_a_bias_by_hand_learns_as_that_of_a_layer_does():
    build = lambda depth=2: Net(depth, Bare, lambda x, y, b: x + y + b)  # noqa: E731
    plan = paramz.make_plan(build(8), "mup+completep", base=build(), wider=Net(
        2, Bare, lambda x, y, b: x + y + b, 32), example=torch.randn(2, 6))  # fmt: skip
    rows = {row.name: row for row in plan.rows}
    assert rows["blocks.3.bias"].ends and not rows["blocks.3.gain"].ends
    assert any("blocks.0.bias, blocks.1.bias and 6 more: added to the" in n for n in plan.notes)


class NotOnMeta(Block):
    def forward(self, x):
        x.numpy(force=True)
        return x + self.joined(self.f(self.before(x)))


class TwoInputs(Net):
    def forward(self, x, other):
        return super().forward(x + other)


def test_a_model_that_does_not_run_on_the_meta_device_runs_where_it_is():
    with pytest.raises(ValueError, match="normalised in forward code"):
        added(NotOnMeta, torch.sign)


def test_a_plan_without_a_run_says_what_it_could_not_see():
    how = lambda x, y: x + y  # noqa: E731
    model, base = TwoInputs(8, how=how), TwoInputs(how=how)
    (note,) = [n for n in find_branches(model, base).notes if "no run of the base" in n]
    assert "taken from names alone" in note and "Give example=" in note
    x = {"x": torch.randn(2, 6), "other": torch.randn(2, 6)}
    assert not any("no run" in n for n in find_branches(model, base, example=x).notes)
    assert not any("no run" in n for n in find_branches(base, base).notes)
    declared = paramz.Branches(inside=r"^blocks[.][0-9]+[.]", ends=r"[.]f[.]2$")
    assert not any("no run" in n for n in find_branches(model, base, declared).notes)


class Told(Block):
    """A block that is told how it joins stream and branch, and has what that takes."""

    def __init__(self, width, how):
        super().__init__(width, None)
        made, self.how = how
        for name, own in made(width).items():
            kinds = {nn.Parameter: self.register_parameter, torch.Tensor: self.register_buffer}
            kinds.get(type(own), self.add_module)(name, own)

    def forward(self, x):
        return self.how(self, x)


def affine(width):
    return {
        "gain": nn.Parameter(torch.ones(width)),
        "bias": nn.Parameter(torch.full((width,), 0.2)),
    }


def test_an_affine_map_before_the_branch_alone_adds_nothing_to_the_stream():
    how = affine, lambda block, x: x + block.f(block.gain * x + block.bias)
    found = find_branches(Net(8, Told, how), Net(2, Told, how), example=torch.randn(2, 6))
    assert not found.alone
    plain, planned = added(Told, how)
    torch.testing.assert_close(planned, plain / 4)


def test_a_bias_behind_the_sum_is_one_on_the_stream():
    how = affine, lambda block, x: (x + block.f(x)) + block.bias
    for depth in (1, 2):
        found = find_branches(Net(8, Told, how), Net(depth, Told, how), example=torch.randn(2, 6))
        assert found.alone == {f"blocks.{n}.bias" for n in range(8)}


class Excite(nn.Module):
    """Squeeze and excitation, with the names that timm has."""

    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4), nn.Linear(4, width)

    def forward(self, x):
        return x * self.fc2(self.fc1(x).relu()).sigmoid()


GATES = {
    # The gate is made of what the map puts out, so that only their product takes a factor.
    "squeeze and excite": (Excite, lambda block, x: x + block.gate(block.f(x)), "gate"),
    "gated by the stream": (
        lambda width: nn.ModuleDict({"out": nn.Linear(width, width)}),
        lambda block, x: x + block.gate["out"](x).sigmoid() * block.f(x),
        "f.2",
    ),
}


@pytest.mark.parametrize("name", GATES)
def test_a_gate_on_the_branch_is_no_end_whatever_its_name(name):
    kind, how, end = GATES[name]
    told = (lambda width: {"gate": kind(width)}), how
    found = find_branches(Net(8, Told, told), Net(2, Told, told), example=torch.randn(2, 6))
    assert set(found.modules) == {f"blocks.{n}.{end}" for n in range(8)}


class Masked(Net):
    """A mask multiplies the stream, and once more what goes into the branch."""

    def forward(self, x, mask):
        x = self.first(x)
        for block in self.blocks:
            x = x * mask + block.f(block.before(x * mask)) * mask
        return self.last(x)


def test_a_mask_on_the_stream_is_no_gate():
    example = {"x": torch.randn(4, 5, 6), "mask": torch.ones(4, 5, 1)}
    found = find_branches(Masked(8), Masked(2), example=example)
    assert set(found.modules) == {f"blocks.{n}.f.2" for n in range(8)}


class Embedded(Net):
    """What is embedded is itself a sum, times a number, before the first block."""

    def __init__(self, depth):
        super().__init__(depth)
        self.place = nn.Linear(16, 16)

    def forward(self, x):
        x = self.first(x)
        x = (x + self.place(x)) * 4
        for block in self.blocks:
            x = x + block.f(block.before(x))
        return self.last(x)


def test_a_number_on_what_is_embedded_is_none_on_the_stream():
    found = find_branches(Embedded(8), Embedded(2), example=torch.randn(2, 6))
    assert set(found.modules) == {f"blocks.{n}.f.2" for n in range(8)}


@pytest.mark.parametrize(("number", "refused"), [(0.5, True), (1.0, False)])
def test_a_buffer_that_multiplies_the_stream_is_a_number(number, refused):
    how = (
        lambda width: {"scale": torch.tensor([number])},
        lambda block, x: (x + block.f(x)) * block.scale,
    )
    if not refused:
        plain, planned = added(Told, how)
        return torch.testing.assert_close(planned, plain / 4)
    with pytest.raises(ValueError, match=r"blocks.0.f.2.*added to a stream that is multiplied"):
        added(Told, how)


@pytest.mark.parametrize("shape", [(1, 16), (1, 1, 16)])
def test_a_gain_with_axes_of_length_one_is_no_matrix(shape):
    how = (
        lambda width: {"gain": nn.Parameter(torch.full((*shape[:-1], width), 0.1))},
        lambda block, x: x + block.f(x) * block.gain,
    )
    plain, planned = added(Told, how)
    torch.testing.assert_close(planned, plain / 4)


class Routed(Net):
    """Each token goes to one expert, by code that needs the router's numbers."""

    def __init__(self, depth):
        super().__init__(depth)
        for block in self.blocks:
            block.router = nn.Linear(16, 2)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            shares, out = block.router(x).softmax(-1), torch.zeros_like(x)
            for expert in range(2):
                chosen = (shares.argmax(-1) == expert).nonzero()[:, 0]
                made = block.f(x[chosen]) * shares[chosen, expert, None]
                out.index_add_(0, chosen, made)
            x = x + out
        return self.last(x)


def test_a_router_chooses_entries_and_ends_no_branch():
    found = find_branches(Routed(8), Routed(2), example=torch.randn(16, 6))
    assert set(found.modules) == {f"blocks.{n}.f.2" for n in range(8)}


class Normed(nn.Module):
    """A norm with a gain, written by hand."""

    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.gain


class Post(Block):
    """The stream is normed, and one of two branches ends by no known name."""

    def __init__(self, width, how):
        super().__init__(width, how)
        self.before, self.mixed = Normed(width), nn.Linear(width, width)

    def forward(self, x):
        x = self.before(x)
        return x + torch.relu(self.mixed(x)) + self.f(x)


def test_the_gain_of_a_norm_on_the_stream_hides_no_branch():
    with pytest.raises(ValueError, match=r"blocks.0.mixed.weight.*a run shows"):
        find_branches(Net(8, Post), Net(2, Post), example=torch.randn(2, 6))
