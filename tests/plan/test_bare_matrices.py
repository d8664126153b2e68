"""Matrices that no layer owns: a run shows what is fan_in and what fan_out of them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.anatomy.bottlenecks import find_places
from paramz.anatomy.probes import Probes
from paramz.anatomy.tensors import read_shapes, read_tensors


def bare(*sizes):
    return nn.Parameter(torch.randn(*sizes))


class Used(nn.Module):
    """One bare matrix of (2 width, width), or a stack of these, used in one way."""

    def __init__(self, use, shape, width=8):
        super().__init__()
        self.first = nn.Linear(3, 4 * width)
        self.w = bare(*shape(width))
        self.use = use

    def forward(self, x):
        return self.use(self.first(x), self.w)


def axes(use, shape):
    """(fan_in, fan_out) that a run shows of the matrix."""
    base, wider = Used(use, shape), Used(use, shape, 16)
    found = find_places(Probes(base, wider), read_tensors(base), read_shapes(wider))
    place = found.get("w")
    return None if place is None or place.axes is None else (place.axes.fan_in, place.axes.fan_out)


def wide(w):
    return (4 * w, 2 * w)


WAYS = {
    "x @ w": (lambda x, w: x @ w, wide, ((0,), (1,))),
    "F.linear": (lambda x, w: F.linear(x, w), lambda w: (2 * w, 4 * w), ((1,), (0,))),
    "einsum": (lambda x, w: torch.einsum("nd,dk->nk", x, w), wide, ((0,), (1,))),
    "w x": (lambda x, w: (w @ x.T).T, lambda w: (2 * w, 4 * w), ((1,), (0,))),
    "scaled first": (lambda x, w: x @ (w * 0.5), wide, ((0,), (1,))),
    "square, transposed": (
        lambda x, w: x @ w.T.contiguous(), lambda w: (4 * w, 4 * w), ((1,), (0,)),
    ),
    "into heads": (
        lambda x, w: torch.einsum("nd,hdk->nhk", x, w).flatten(1),
        lambda w: (2, 4 * w, w), ((1,), (0, 2)),
    ),
    "out of heads": (
        lambda x, w: torch.einsum("nhk,hkd->nd", x.unflatten(1, (2, -1)), w),
        lambda w: (2, 2 * w, w), ((0, 1), (2,)),
    ),
    "experts": (
        lambda x, w: torch.bmm(x.expand(4, *x.shape), w).sum(0),
        lambda w: (4, 4 * w, w), ((1,), (2,)),
    ),
    "convolution": (
        lambda x, w: F.conv1d(x.T[None], w)[0].T, lambda w: (w, 4 * w, 1), ((1,), (0,)),
    ),
    "transposed convolution": (
        lambda x, w: F.conv_transpose1d(x.T[None], w)[0].T, lambda w: (4 * w, w, 1), ((0,), (1,)),
    ),
    "mixed by constants": (
        lambda x, w: x @ torch.einsum("e,eio->io", torch.ones(3), w),
        lambda w: (3, 4 * w, w), ((1,), (0, 2)),
    ),
    "mixed, transposed": (
        lambda x, w: F.linear(x, (torch.ones(3) @ w.flatten(1)).view(w.shape[1:]) * 0.5),
        lambda w: (3, 2 * w, 4 * w), ((2,), (0, 1)),
    ),
    "before constants": (
        lambda x, w: torch.bmm(x.expand(4, *x.shape), w @ torch.ones(4, 3, x.shape[1])).sum(0),
        lambda w: (4, 4 * w, 3), ((1,), (2,)),
    ),
    "keys of constants": (
        lambda x, w: torch.einsum(
            "ihd,jhd->ij",
            x.unflatten(1, (2, -1)), torch.einsum("jc,chd->jhd", torch.ones(5, len(w)), w),
        ),
        lambda w: (w, 2, 2 * w), ((0,), (1, 2)),
    ),
    # What no single role says.
    "one map per head": (
        lambda x, w: torch.bmm(x.unflatten(1, (len(w), -1)).transpose(0, 1), w).flatten(1),
        lambda w: (w, 4, 4), None,
    ),
    "both ways": (lambda x, w: x @ w @ w.T, wide, None),
    "entry by entry": (lambda x, w: x[:, None] * w, lambda w: (w, 4 * w), None),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_product_sums_over_fan_in(way):
    use, shape, expected = WAYS[way]
    assert axes(use, shape) == expected


class Bare(nn.Module):
    """A network without one layer."""

    def __init__(self, width=8):
        super().__init__()
        self.table = bare(11, width)
        self.up, self.down = bare(width, 4 * width), bare(width, 4 * width)
        self.narrow, self.back = bare(width, 6), bare(6, width)
        self.head = bare(11, width)

    def forward(self, ids):
        x = self.table[ids]
        x = x + F.linear(torch.relu(x @ self.up), self.down)
        return (x + torch.relu(x @ self.narrow) @ self.back) @ self.head.T


IDS = torch.zeros(2, 4, dtype=torch.long)


def test_roles_follow_from_the_run():
    plan = paramz.make_plan(Bare(24), "mup", base=Bare, example=IDS)
    assert {row.name: (row.role, dict(row.ratios)) for row in plan.rows} == {
        "table": ("input", {"fan_out": 3.0}),
        "up": ("hidden", {"fan_in": 3.0, "fan_out": 3.0}),
        "down": ("hidden", {"fan_in": 3.0, "fan_out": 3.0}),
        "narrow": ("inward", {"fan_in": 3.0}),
        "back": ("outward", {"fan_out": 3.0}),
        "head": ("output", {"fan_in": 3.0}),
    }
    assert plan.rows[1].why == "Bare, as a run uses it: fan_in and fan_out grow"


def test_what_is_said_counts_more():
    plan = paramz.make_plan(Bare(24), "mup", base=Bare, example=IDS, roles={"head": "inward"})
    assert plan.rows[-1].role == "inward"


class Beside(nn.Module):
    """Positions and a token that no layer owns; ``times`` also multiplies by the positions."""

    def __init__(self, width=8, times=False):
        super().__init__()
        self.first, self.head = nn.Linear(3, width), nn.Linear(width, 2)
        self.positions, self.token, self.times = bare(1, 5, width), bare(2, width), times

    def forward(self, x):
        h = torch.cat([self.token.expand(len(x), -1, -1), self.first(x)], 1) + self.positions
        return self.head(h * self.positions if self.times else h)


def test_what_stands_beside_data_is_a_table():
    x = torch.zeros(4, 3, 3)
    rows = paramz.make_plan(Beside(24), "mup", base=Beside, example=x).rows
    assert {row.name: (row.role, dict(row.ratios)) for row in rows[:2]} == {
        "positions": ("input", {"fan_out": 3.0}), "token": ("input", {"fan_out": 3.0}),
    }  # fmt: skip
    both = lambda width=8: Beside(width, times=True)  # noqa: E731
    row = paramz.make_plan(both(24), "mup", base=both, example=x).rows[0]
    assert (row.role, row.why) == ("vector", "Beside, as a run uses it: entrywise")


class Places(nn.Module):
    """Places by row and column, repeated as in DETR's first notebook; ``how`` they come in."""

    def __init__(self, width=8, how="repeated"):
        super().__init__()
        self.first, self.head, self.how = nn.Conv2d(3, width, 1), nn.Linear(width, 2), how
        self.rows, self.columns = bare(4, width // 2), bare(4, width // 2)

    def forward(self, x):
        i = torch.arange(4, device=x.device)
        if self.how == "repeated":
            sides = self.columns[None].repeat(4, 1, 1), self.rows[:, None].repeat(1, 4, 1)
        elif self.how == "of another size":
            sides = tuple(F.interpolate(p.T[None], 16)[0].T for p in (self.columns, self.rows))
        else:
            sides = self.columns[i.repeat(4)], self.rows[i.repeat_interleave(4)]
        h = self.first(x).flatten(2).mT + torch.cat([s.flatten(0, -2) for s in sides], -1)
        return self.head(h)


@pytest.mark.parametrize("how", ["repeated", "by number", "of another size"])
def test_a_table_that_code_repeats_is_a_table(how):
    build = lambda width=8: Places(width, how)  # noqa: E731
    plan = paramz.make_plan(build(24), "mup", base=build, example=torch.zeros(2, 3, 4, 4))
    assert {row.name: row.role for row in plan.rows[:2]} == {"rows": "input", "columns": "input"}


class Bonus(nn.Module):
    """RWKV-7's bonus: numbers for each channel of each head, summed over a head that stays."""

    def __init__(self, width=16, over=-1):
        super().__init__()
        self.first, self.head, self.over = nn.Linear(3, width), nn.Linear(width, 2), over
        self.bonus = bare(width // 8, 8)

    def forward(self, x):
        h = self.first(x).unflatten(-1, (-1, 8))
        return self.head(((h * self.bonus).sum(self.over, keepdim=True) * h).flatten(1))


def test_of_a_sum_over_the_size_of_a_head_that_stays_the_other_axis_is_no_part():
    row = paramz.make_plan(Bonus(64), "mup", base=Bonus, base_width=16).rows[0]
    assert (row.name, row.role, dict(row.ratios)) == ("bonus", "vector", {"fan_out": 4.0})
    heads = lambda width=16: Bonus(width, over=-2)  # noqa: E731
    row = paramz.make_plan(heads(64), "mup", base=heads, base_width=16).rows[0]
    assert (row.name, row.role, dict(row.ratios)) == ("bonus", "inward", {"fan_in": 4.0})


class Gained(nn.Module):
    """A gain per token and channel; with ``summed`` that is a product, written out."""

    def __init__(self, width=8, summed=False):
        super().__init__()
        self.first, self.head = nn.Linear(3, width), nn.Linear(width, 2)
        self.gain, self.summed = bare(5, width), summed

    def forward(self, x):
        h = self.first(x) * self.gain
        return self.head(h + h.sum(-1, keepdim=True) if self.summed else h.tanh())


def test_a_gain_of_several_axes_is_a_vector():
    x = torch.zeros(4, 5, 3)
    row = paramz.make_plan(Gained(24), "mup", base=Gained, example=x).rows[0]
    assert (row.name, row.role, dict(row.ratios)) == ("gain", "vector", {"fan_out": 3.0})
    summed = lambda width=8: Gained(width, summed=True)  # noqa: E731
    with pytest.raises(ValueError, match=r"^gain \(5, 24\): axis 1 grows with width, but"):
        paramz.make_plan(summed(24), "mup", base=summed, example=x)


class Scales(nn.Module):
    """Numbers of its own for each channel, as `how` says, in a model of pictures."""

    def __init__(self, width=8, how=""):
        super().__init__()
        self.how, self.first, self.again = how, nn.Conv2d(3, width, 1), nn.Conv2d(width, width, 1)
        self.gain, self.head = nn.Parameter(torch.ones(1, width, 1, 1)), nn.Linear(width, 2)
        if how == "added":
            self.shift = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x):
        x = self.first(x)
        if self.how == "normed":  # a norm by hand takes what the first one puts out
            for _ in range(2):
                spread = x.var(1, keepdim=True, unbiased=False)
                x = (x - x.mean(1, keepdim=True)) * (spread + 1e-5).rsqrt() * self.gain
        elif self.how == "added":
            x = torch.addcmul(self.shift, self.gain, x)
        elif self.how == "exponential":
            x = x * self.gain.clamp(max=4).exp()
        elif self.how == "read":  # a mean over channels is all that is left of it
            return self.head(self.again(x).mean((2, 3))) + (x * self.gain).mean()
        else:
            x = x + self.gain * self.again(x)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("how", ["normed", "added", "exponential", "pooled"])
def test_a_gain_before_a_mean_or_a_function_of_it_is_a_vector(how):
    """torchvision's layer scale before the pooling, norms by hand, Swin's scale of logits."""
    build = lambda width=8: Scales(width, how)  # noqa: E731
    plan = paramz.make_plan(build(24), "mup", base=build, example=torch.zeros(2, 3, 5, 5))
    assert {row.role for row in plan.rows if row.name == "gain"} == {"vector"}


def test_a_product_of_which_only_a_mean_is_left_is_no_gain():
    build = lambda width=8: Scales(width, "read")  # noqa: E731
    with pytest.raises(ValueError, match=r"gain \(1, 24, 1, 1\): axis 1 grows with width, but"):
        paramz.make_plan(build(24), "mup", base=build, example=torch.zeros(2, 3, 5, 5))


def test_a_table_that_also_reads_out_is_refused():
    class Tied(Bare):
        def forward(self, ids):
            return super().forward(ids) @ self.head @ self.table.T

    with pytest.raises(ValueError, match=r"^table \(11, 24\): a matrix of a Tied that goes into"):
        paramz.make_plan(Tied(24), "mup", base=Tied, example=IDS)


def test_experts_of_transformers_without_a_layout_are_read():
    """Llama 4 stores (experts, in, out) and says so nowhere; the suggestion had them swapped."""
    from transformers import Llama4ForCausalLM, Llama4TextConfig

    def build(width=32, ffn=2):
        return Llama4ForCausalLM(
            Llama4TextConfig(
                hidden_size=width, intermediate_size=ffn * width, intermediate_size_mlp=width,
                num_hidden_layers=2, num_attention_heads=width // 8, head_dim=8,
                num_key_value_heads=width // 16, num_local_experts=4, vocab_size=40,
                interleave_moe_layer_step=1, max_position_embeddings=32, pad_token_id=0,
            )
        )  # fmt: skip

    # The feed-forward part four times as large, the stream twice.
    plan = paramz.make_plan(build(64, ffn=4), "mup", base=build, wider=build(48, ffn=3))
    rows = {row.name.rpartition(".")[2]: row for row in plan.rows if row.role == "expert"}
    assert dict(rows["gate_up_proj"].ratios) == {"fan_in": 2.0, "fan_out": 4.0}
    assert dict(rows["down_proj"].ratios) == {"fan_in": 4.0, "fan_out": 2.0}


class Codebook(nn.Module):
    """What is compared with data, and of which the nearest row is taken in its place."""

    def __init__(self, width):
        super().__init__()
        self.enter, self.leave = nn.Linear(3, width), nn.Linear(width, 2)
        self.codes = nn.Parameter(torch.randn(7, width))

    def forward(self, x):
        z = self.enter(x)
        near = z @ self.codes.T - self.codes.pow(2).sum(-1) / 2
        taken = self.codes.gather(0, near.argmax(-1)[:, None].expand(-1, z.shape[1]))
        return self.leave(z + (taken - z).detach())


def test_a_codebook_is_no_map_into_its_codes():
    """It started and learnt like a readout, so that what it puts out faded with width."""
    said = {"base": Codebook, "base_width": 16, "example": torch.randn(5, 3)}
    with pytest.raises(ValueError, match=r"codes \(7, 64\): axis 1 grows with width"):
        paramz.make_plan(Codebook(64), "mup", **said)
    plan = paramz.make_plan(Codebook(64), "mup", roles={"codes$": "input"}, **said)
    assert {row.name: row.role for row in plan.rows}["codes"] == "input"
