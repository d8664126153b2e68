"""Maps into a fixed size inside the network are no readouts: found by where their output goes."""

import warnings
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.theory.families import COLUMNS
from paramz.theory.power import Power


def roles(build, base=16, target=32, **options):
    plan = paramz.make_plan(build(target), "mup", base=build, base_width=base, **options)
    return {row.name.removesuffix(".weight"): row.role for row in plan.rows if len(row.shape) > 1}


class Branch(nn.Module):
    """A residual branch through eight channels, with whatever is around it."""

    def __init__(self, width, inside=8):
        super().__init__()
        self.down, self.up = nn.Linear(width, inside, bias=False), nn.Linear(inside, width)

    def forward(self, x):
        return x + self.up(torch.relu(self.down(x)))


class Gated(nn.Module):
    """Squeeze and excite: a fixed number of channels decides on all of them."""

    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x):
        return x * self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class FixedKeys(nn.Module):
    """Attention with a fixed number of key and value heads, in a fused map or not."""

    def __init__(self, width):
        super().__init__()
        self.q, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.k, self.v = nn.Linear(width, 8), nn.Linear(width, 8)

    def forward(self, x):
        q = self.q(x).unflatten(-1, (-1, 8)).transpose(1, 2)
        k, v = (f(x)[:, None].expand_as(q) for f in (self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


def net(*parts, first=None):
    """A model with some layers in its middle."""

    def build(width):
        inner = [part(width) for part in parts]
        start = nn.Linear(6, width) if first is None else first(width)
        return nn.Sequential(start, *inner, nn.Linear(width, 3))

    return build


def test_a_bottleneck_with_its_way_back():
    assert roles(net(Branch)) == {
        "0": "input", "1.down": "inward", "1.up": "outward", "2": "output",
    }  # fmt: skip


def test_keys_and_values_of_a_fixed_number_of_heads():
    found = roles(net(FixedKeys, FixedKeys))
    for block in ("1", "2"):
        assert [found[f"{block}.{name}"] for name in "qkv"] == ["hidden", "inward", "inward"]
    assert found["3"] == "output"


class SqueezeNet(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem, self.gate = nn.Conv2d(3, width, 3, padding=1), Gated(width)
        self.body, self.head = nn.Conv2d(width, width, 1), nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.body(self.gate(self.stem(x))).mean((2, 3)))


def test_squeeze_and_excite():
    assert roles(SqueezeNet) == {
        "stem": "input", "gate.fc1": "inward", "gate.fc2": "outward",
        "body": "hidden", "head": "output",
    }  # fmt: skip


class TwoHeads(nn.Module):
    """An actor and a critic: what is registered after the first head does not take its output."""

    def __init__(self, width):
        super().__init__()
        self.body, self.policy = nn.Linear(6, width), nn.Linear(width, 3)
        self.value = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, x):
        h = torch.relu(self.body(x))
        return self.policy(h), self.value(h)


def test_heads_side_by_side_are_readouts():
    assert roles(TwoHeads) == {
        "body": "input", "policy": "output", "value.0": "hidden", "value.2": "output",
    }  # fmt: skip


class Backwards(nn.Module):
    """Its layers are registered in another order than they run."""

    def __init__(self, width):
        super().__init__()
        self.head, self.up = nn.Linear(width, 8), nn.Linear(8, width)
        self.down, self.first = nn.Linear(width, 8), nn.Linear(6, width)

    def forward(self, points):
        h = self.first(points)
        return self.head(torch.relu(h + self.up(self.down(h))))


def test_the_order_of_registration_does_not_matter():
    # The guess would take the input for eight wide, as the first layer that it finds is.
    found = roles(Backwards, example=torch.ones(2, 6))
    assert found == {"head": "output", "up": "outward", "down": "inward", "first": "input"}


class Unrunnable(nn.Module):
    """Takes what nobody can guess."""

    def __init__(self, width, heads=1):
        super().__init__()
        self.first, self.branch = nn.Linear(6, width), Branch(width)
        self.heads = nn.ModuleList(nn.Linear(width, 3) for _ in range(heads))
        self.tail = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.Linear(width, 2)) for _ in range(2)
        )

    def forward(self, x, graph):
        h = self.branch(self.first(graph.pool(x)))
        return [f(h) for f in (*self.heads, *self.tail)]


def test_a_model_that_cannot_run_is_read_by_its_structure_and_says_so():
    with pytest.warns(UserWarning, match="could not be run") as warned:
        plan = paramz.make_plan(Unrunnable(32), "mup", base=Unrunnable, base_width=16)
    assert [str(each.message) for each in warned] == list(plan.notes)
    found = {row.name.removesuffix(".weight"): row.role for row in plan.rows if len(row.shape) > 1}
    assert found["branch.down"] == "inward" and found["branch.up"] == "outward"
    assert found["heads.0"] == found["tail.0.1"] == found["tail.1.1"] == "output"
    inside, outside = plan.notes
    assert inside == (
        "branch.down.weight: read as maps inside the network by the order of the modules, because "
        "the model could not be run to see what goes in and where it goes, or uses them in "
        "training mode only. Give example=, a batch to run it with, or say which: "
        "roles={'branch[.]down[.]weight$': 'inward'} if they are, 'output' if they make the "
        "model's output"
    )
    assert outside.startswith("heads.0.weight, tail.0.1.weight")
    assert "read as readouts" in outside
    assert outside.endswith(
        "roles={'heads[.][0-9]+[.]weight$': 'output', 'tail[.]0[.]1[.]weight$': 'output'} "
        "if they are, "
        "'inward' if more of the network takes what they make"
    )


def test_the_suggestion_of_a_note_pastes_in():
    for role in ("inward", "output"):
        pasted = {"branch[.]down[.]weight$": role}
        assert roles(Unrunnable, roles=pasted)["branch.down"] == role


def test_running_a_probe_leaves_nothing_behind():
    class Noisy(Branch):
        def forward(self, x):
            self.seen = getattr(self, "seen", 0) + 1
            return super().forward(x) + 0 * torch.randn_like(x)

    model = net(Noisy)(32)
    model.train()
    state = torch.get_rng_state()
    paramz.make_plan(model, "mup", base=net(Noisy), base_width=16)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert not hasattr(model[1], "seen")


def rule(column, role, scheme="mup"):
    return paramz.parametrization(scheme).entry(COLUMNS[column], role)


def test_the_rules_of_a_bottleneck():
    # fan_out of the way in, and fan_in of the way out, do not grow: their ratios are absent.
    m = {"fan_in": 16.0}
    back = {"fan_out": 16.0}
    powers = {
        "sgd": (1 / 16, 16), "adam": (1 / 16, 1), "muon": (1 / 4, 4),
    }  # fmt: skip
    for column, (inward, outward) in powers.items():
        assert rule(column, "inward").lr(m) == inward
        assert rule(column, "outward").lr(back) == outward
        assert rule(column, "inward").init_std(m) == 1 / 16
        assert rule(column, "latent").init_std(m) == 1 / 4
        assert rule(column, "latent").lr(m) == inward
        assert rule(column, "outward").init_std(back) == 1
    assert (rule("adam", "inward").eps(m), rule("adam", "outward").eps(back)) == (1, 1 / 16)


@pytest.mark.parametrize("column", COLUMNS)
def test_the_way_out_of_a_bottleneck_has_the_rules_of_an_input(column):
    back = {"fan_out": 16.0}
    one, other = rule(column, "outward"), rule(column, "input")
    for what in ("init_std", "multiplier", "lr", "eps", "weight_decay", "damping_a", "damping_b"):
        assert getattr(one, what)(back) == getattr(other, what)(back)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("role", ["inward", "latent"])
def test_the_other_policies_are_those_of_a_readout_and_of_a_hidden_matrix(column, role):
    m = {"fan_in": 16.0}
    for policy, like in (("bottleneck-readout", "output"), ("bottleneck-hidden", "hidden")):
        one, other = rule(column, role, f"mup+{policy}"), rule(column, like)
        for what in (
            "init_std",
            "multiplier",
            "lr",
            "eps",
            "weight_decay",
            "damping_a",
            "damping_b",
        ):
            assert getattr(one, what)(m) == getattr(other, what)(m)
        assert rule(column, "hidden", f"mup+{policy}").init_std == Power(fan_in="-1/2")


def test_both_ways_go_to_muon():
    build = net(Branch)
    model = build(32)
    plan = paramz.parametrize_(model, "mup", base=build, base_width=16)
    muon, _ = plan.split_groups(model, muon={"lr": 0.02}, adamw={"lr": 0.01})
    assert sorted(role for group in muon for role in group["roles"]) == ["inward", "outward"]


def test_learned_latents_are_tables_though_they_meet_what_was_made_of_width():
    class Reader(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.latents, self.q = nn.Embedding(4, width), nn.Linear(width, 8)
            self.k, self.v = nn.Linear(width, 8), nn.Linear(width, width)

        def forward(self, x):
            q = self.q(self.latents.weight)
            return (q @ self.k(x).T).softmax(-1) @ self.v(x)

    assert roles(net(Reader)) == {
        "0": "input", "1.latents": "input", "1.q": "inward", "1.k": "inward", "1.v": "hidden",
        "2": "output",
    }  # fmt: skip


class Factorised(nn.Module):
    """A head through a fixed size, as ALBERT's and ELECTRA's: nothing behind it grows."""

    def __init__(self, width):
        super().__init__()
        self.embed, self.body = nn.Linear(6, width), nn.Linear(width, width)
        self.dense, self.norm, self.decoder = nn.Linear(width, 8), nn.LayerNorm(8), nn.Linear(8, 20)

    def forward(self, x):
        return self.decoder(self.norm(self.dense(self.body(self.embed(x)))))


def test_a_head_that_goes_on_in_a_fixed_size_is_a_readout():
    assert roles(Factorised) == {
        "embed": "input", "body": "hidden", "dense": "output", "decoder": "scalar",
    }  # fmt: skip


class Written(nn.Module):
    """A norm as model code writes it."""

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Standardised(nn.Module):
    """Another way to write one."""

    def forward(self, x):
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)


@pytest.mark.parametrize(
    "norm, role",
    [
        (lambda: nn.LayerNorm(4), "latent"),
        (lambda: nn.RMSNorm(4), "latent"),
        (Written, "latent"),
        (Standardised, "latent"),
        (lambda: nn.Sequential(nn.Unflatten(-1, (2, 2)), nn.RMSNorm(2), nn.Flatten(-2)), "latent"),
        (nn.ReLU, "inward"),
        (nn.Softmax, "inward"),
    ],
)
def test_a_map_into_a_bottleneck_is_told_by_the_norm_that_follows(norm, role):
    def build(width):
        down, up = nn.Linear(width, 4), nn.Linear(4, width)
        return nn.Sequential(nn.Linear(8, width), down, norm(), up, nn.Linear(width, 2))

    found = {
        row.name: row.role
        for row in paramz.make_plan(build(32), "mup", base=build, base_width=16).rows
    }
    assert found["1.weight"] == role


def test_a_bottleneck_that_stands_last_in_a_model_without_readout():
    class Features(nn.Module):
        def __init__(self, width=8):
            super().__init__()
            self.first, self.up = nn.Linear(4, width), nn.Linear(3, width)
            self.down = nn.Linear(width, 3)

        def forward(self, x):
            x = self.first(x).relu()
            return x + self.up(self.down(x))

    plan = paramz.make_plan(Features(32), "mup", base=Features)
    found = {row.name: row.role for row in plan.rows}
    assert (found["down.weight"], found["up.weight"]) == ("inward", "outward")


class Step(nn.Module):
    """A block with two maps, of which the last one has its own size, as in graph networks."""

    def __init__(self, size, out):
        super().__init__()
        self.near, self.own = nn.Linear(size, out), nn.Linear(size, out)
        self.mix = nn.Linear(out, out)

    def forward(self, x):
        return self.mix(self.near(x.roll(1, 0)) + self.own(x))


class Steps(nn.Module):
    def __init__(self, width, steps=4):
        super().__init__()
        sizes = [3] + [width] * (steps - 1) + [5]
        self.steps = nn.ModuleList(Step(*pair) for pair in pairwise(sizes))

    def forward(self, x):
        for number, step in enumerate(self.steps):
            x = step(x if number == 0 else x.relu())
        return x


def test_the_last_block_of_a_list_reads_out_though_the_others_do_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = paramz.make_plan(
            Steps(32), "mup", base=Steps, base_width=8, example=torch.randn(6, 3)
        )
    found = {row.name: row.role for row in plan.rows}
    last = [found[f"steps.3.{name}.weight"] for name in ("near", "own", "mix")]
    assert last == ["output", "output", "scalar"]
