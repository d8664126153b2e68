"""A factor in a model's code is set where there is evidence of what it is, or where a user says."""

import warnings

import pytest
import torch
from cases import gpt
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.anatomy.attention import is_attention

BASE, WIDTH = 16, 64


class Norm(nn.Module):
    def __init__(self, dim, power=-0.5):
        super().__init__()
        self.scale = dim**power
        self.gain = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x / (x.norm(dim=-1, keepdim=True) * self.scale) * self.gain


class Positions(nn.Module):
    def __init__(self, dim, power=-0.5):
        super().__init__()
        self.scale = dim**power
        self.table = nn.Embedding(8, dim)

    def forward(self, ids):
        return self.table(torch.arange(ids.shape[1])) * self.scale


class Scaled(nn.Embedding):
    """An embedding that multiplies itself, under a name that nobody knows."""

    def __init__(self, tokens, dim):
        super().__init__(tokens, dim)
        self.emb_mult = dim**0.5

    def forward(self, ids):
        return super().forward(ids) * self.emb_mult


class Gate(nn.Module):
    """A factor that falls with width in something that is no attention."""

    def __init__(self, dim):
        super().__init__()
        self.scale, self.heads = dim**-0.5, 4
        self.up, self.down = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x):
        return self.down(self.up(x) * self.scale)


class Attention(nn.Module):
    def __init__(self, dim, heads=None, size=None, power=-0.5, of_width=False):
        super().__init__()
        self.heads = heads or dim // size
        size = dim // self.heads
        self.scale = (dim if of_width else size) ** power
        self.to_qkv, self.to_out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = (y.unflatten(-1, (self.heads, -1)).mT for y in self.to_qkv(x).chunk(3, -1))
        return self.to_out((q @ k.mT * self.scale).softmax(-1).matmul(v).mT.flatten(2))


def net(part, width):
    return nn.ModuleDict(
        {"first": nn.Linear(4, width), "part": part(width), "last": nn.Linear(width, 4)}
    )


def planned(part, scheme="mup", **options):
    model = net(part, WIDTH)
    options = {"base": lambda w: net(part, w), "base_width": BASE, **options}
    plan = paramz.parametrize_(model, scheme, **options)
    return model, plan


def test_the_scale_of_a_norm_is_its_own():
    model, plan = planned(Norm)
    assert model["part"].scale == WIDTH**-0.5
    assert plan.attention == ()
    assert plan.notes == ()
    rms = model["part"](torch.randn(9, WIDTH)).pow(2).mean().sqrt().item()
    assert rms == pytest.approx(1.0, abs=1e-3)


def test_a_norm_inside_attention_is_no_attention():
    class AttentionNorm(Norm):
        pass

    assert planned(AttentionNorm)[1].attention == ()


@pytest.mark.parametrize("power", [-0.5, 0.5])
def test_the_factor_of_positions_is_held_at_the_bases(power):
    def part(width):
        return Positions(width, power)

    model, plan = planned(part)
    assert model["part"].scale == BASE**power
    assert "part: scale" in str(plan.summary())
    assert "attention logits" not in str(plan.summary())
    before = model["part"](torch.zeros(1, 8))
    paramz.fold_(model)
    assert model["part"].scale == WIDTH**power
    assert torch.allclose(model["part"](torch.zeros(1, 8)), before, atol=1e-6)


def test_an_embedding_with_a_factor_under_any_name_is_held():
    model, plan = planned(lambda width: Scaled(7, width))
    assert model["part"].emb_mult == BASE**0.5
    paramz.remove_(model)
    assert model["part"].emb_mult == WIDTH**0.5


def test_what_is_no_attention_is_left_and_named():
    model, plan = planned(Gate)
    assert model["part"].scale == WIDTH**-0.5
    assert plan.notes == (
        "part.scale is 0.125 and 0.25 in the base: no attention or embedding there, so it is left "
        "as the code has it. factors={r'^part[.]scale$': 'constant'} holds it at the base's value",
    )


def test_attention_is_set_to_one_over_the_size_of_a_head():
    model, _ = planned(lambda width: Attention(width, heads=2))
    assert model["part"].scale == pytest.approx((BASE // 2) ** -0.5 / 4)


def test_code_that_has_one_over_the_size_already_keeps_it():
    model, _ = planned(lambda width: Attention(width, heads=2, power=-1))
    assert model["part"].scale == pytest.approx((BASE // 2) ** -1 / 4)
    assert model["part"].scale == pytest.approx((WIDTH // 2) ** -1)


def test_a_scale_of_the_whole_width_counts_where_the_number_of_heads_is_fixed():
    model, _ = planned(lambda width: Attention(width, heads=2, of_width=True))
    assert model["part"].scale == pytest.approx(BASE**-0.5 / 4)


def test_a_scale_that_falls_though_heads_keep_their_size_is_held():
    """The base's: where logits sum over as much as in the base, they are to keep their size."""
    model, plan = planned(lambda width: Attention(width, size=8, of_width=True))
    assert model["part"].scale == BASE**-0.5
    assert not any("part.scale" in note for note in plan.notes)


class Silent(nn.Module):
    """Attention without a scale to set."""

    def __init__(self, width):
        super().__init__()
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return F.scaled_dot_product_attention(self.q(x), self.k(x), x)


class MHA(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.nheads, self.Wqkv = 2, nn.Linear(width, 3 * width)


class Fixed(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.n_heads, self.qkv = width // 8, nn.Linear(width, 3 * width)


@pytest.mark.parametrize("part", [Silent, MHA])
def test_growing_heads_without_a_scale_to_set_are_warned_about(part):
    with pytest.warns(UserWarning, match="part: the size of a head grows with width") as caught:
        planned(part)
    assert caught[0].filename == __file__
    assert "factors={r'^part$': None}" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        planned(part, factors={r"^part$": None})
        planned(part, scheme="sp")


def test_heads_that_grow_in_number_are_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        planned(Fixed)


def test_a_user_can_declare_override_and_refuse():
    model, plan = planned(Gate, factors={r"^part[.]scale$": "constant"})
    assert model["part"].scale == BASE**-0.5
    assert plan.notes == ()
    assert "part: scale 0.125 -> 0.25" in str(plan.summary())
    with pytest.raises(ValueError, match="part.scale was declared to be 0.25 where plain code"):
        paramz.fold_(model)
    model, _ = planned(Gate, factors={r"scale$": "attention"})
    assert model["part"].scale == pytest.approx(BASE**-0.5 / 4)
    model, _ = planned(Positions, factors={r"scale$": None})
    assert model["part"].scale == WIDTH**-0.5
    model, plan = planned(lambda w: Attention(w, heads=2), factors={r"scale$": 0.5, "": None})
    assert model["part"].scale == 0.5


def test_a_factor_in_the_forward_pass_is_declared_for_its_layer():
    def part(width):
        return nn.Embedding(5, width)

    factors = {"^first$": "width^1/2", "^last$": 0.25, "^part$": "width^-1/2"}
    model, plan = planned(part, factors=factors)
    assert plan.multipliers == {"last": 0.25, "part": 0.5}  # the input has one size
    ids = torch.arange(5)
    assert torch.allclose(model["part"](ids), model["part"].weight / 2)
    assert planned(part, "sp", factors=factors)[1].multipliers == {}


def test_a_declaration_survives_saving_and_restoring(tmp_path):
    model, plan = planned(Gate, factors={r"^part[.]scale$": "constant"})
    plan.save(tmp_path / "plan.json")
    again = net(Gate, WIDTH)
    paramz.restore_(again, paramz.Plan.load(tmp_path / "plan.json"))
    assert again["part"].scale == BASE**-0.5


MEANINGLESS = [
    ({"nowhere": 1.0}, r"factors\['nowhere'\] matches no module .* width are part.scale"),
    ({"^part$": 2.0}, r"part \(Gate\) keeps no such number, and only a linear, conv or"),
    ({"^first$": "constant"}, "first keeps no number that could be constant"),
    ({"scale": "hold"}, "write 'attention' for a factor on attention logits, 'constant' to"),
]


@pytest.mark.parametrize(("factors", "message"), MEANINGLESS)
def test_a_declaration_without_meaning_is_an_error(factors, message):
    with pytest.raises(ValueError, match=message):
        planned(Gate, factors=factors)


def test_a_task_knows_the_factors_of_its_model():
    task = paramz.Task(
        lambda width: net(Gate, width), lambda step: None, factors={"part.scale": "constant"}
    )
    model = task.build(WIDTH)
    task.parametrize_(model, "mup", base_width=BASE)
    assert model["part"].scale == BASE**-0.5


def test_what_counts_as_attention():
    assert is_attention(gpt(8).blocks[0].attn)
    assert not is_attention(gpt(8).blocks[0])
    assert not is_attention(Gate(8))
    assert not is_attention(Positions(8))


def test_a_power_of_width_counts_the_channels_of_a_depthwise_layer():
    def build(width=8):
        return nn.Sequential(
            nn.Conv1d(3, width, 1), nn.Conv1d(width, width, 3, groups=width), nn.Conv1d(width, 2, 1)
        )

    plan = paramz.make_plan(build(32), "mup", base=build, factors={"^1$": "width^-1/2"})
    assert plan.multipliers == {"1": 0.5}


class Pool(nn.Module):
    """Learned queries, whose logits have the whole token's factor."""

    def __init__(self, width):
        super().__init__()
        self.queries, self.scale = nn.Parameter(torch.randn(3, width)), width**-0.5
        self.key = nn.Linear(width, width)

    def forward(self, x):
        return (self.scale * (self.queries @ self.key(x).mT)).softmax(-1) @ x


def test_a_number_beside_a_parameter_that_is_no_layers_is_told_of_without_a_standardised_weight():
    def build(width):
        return nn.Sequential(nn.Linear(4, width), Pool(width), nn.Linear(width, 4))

    plan = paramz.make_plan(
        build(64), "mup", base=build, base_width=16, example=torch.ones(2, 5, 4)
    )
    (said,) = plan.notes
    assert "a product with one (as the logits of learned queries)" in said and "NFNet" not in said
    assert "factors={r'^[0-9]+[.]scale$': 'constant'} holds it at the base's value" in said
