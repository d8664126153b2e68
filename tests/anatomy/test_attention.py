"""Attention logits are q k / d_head, times the root of the base's d_head, where head sizes grow."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from cases import attention_classifier, build64, gpt, gpt2, llama
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.anatomy.attention import is_attention
from paramz.apply.hf import config_factory

IDS = torch.arange(12).reshape(2, 6)


def in_heads(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


@pytest.mark.parametrize("separate", [False, True], ids=["packed", "kdim"])
@pytest.mark.parametrize("keywords", [False, True], ids=["positional", "keywords"])
def test_torch_multihead_attention(separate, keywords):
    heads, base, width, other = 4, 8, 32, 5

    def build(width=base):
        sizes = {"kdim": other, "vdim": other} if separate else {}
        return nn.MultiheadAttention(width, heads, batch_first=True, **sizes)

    model = build64(build, width)
    nn.init.normal_(model.in_proj_bias)
    paramz.parametrize_(model, "mup", base=lambda w=base: build64(build, w))
    query = torch.randn(2, 5, width, dtype=torch.float64)
    memory = torch.randn(2, 7, other if separate else width, dtype=torch.float64)
    if keywords:
        got, _ = model(query=query, key=memory, value=memory)
    else:
        got, _ = model(query, memory, memory)

    if separate:
        matrices = (model.q_proj_weight, model.k_proj_weight, model.v_proj_weight)
    else:
        matrices = model.in_proj_weight.chunk(3)
    q, k, v = (
        in_heads(F.linear(x, w, b), heads)
        for x, w, b in zip(
            (query, memory, memory), matrices, model.in_proj_bias.chunk(3), strict=True
        )
    )
    size, base_size = width // heads, base // heads
    logits = q @ k.transpose(-1, -2) / size * base_size**0.5
    expected = model.out_proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(-2))
    assert torch.allclose(got, expected, atol=1e-12)


def test_torch_encoder_layer_in_evaluation():
    # In evaluation torch takes a fused path that would not see a hook, unless hooks turn it off.
    model = build64(attention_classifier, 32).eval()
    paramz.parametrize_(model, "mup", base=lambda w=8: build64(attention_classifier, w))
    x = torch.randn(2, 5, 32, dtype=torch.float64)
    with torch.no_grad():
        evaluated = model(x)
    assert torch.allclose(evaluated, model.train()(x), atol=1e-12)
    paramz.remove_(model)
    assert not torch.allclose(evaluated, model(x), atol=1e-3)


def huggingface(kind):
    """A target whose heads are four times the base's, the factory of the base, and the queries."""
    if kind == "gpt2":
        model = build64(gpt2, 64).eval()
        base = gpt2
        width = 16

        def queries(model):
            return [
                p[..., :64]
                for block in model.transformer.h
                for p in (block.attn.c_attn.weight, block.attn.c_attn.bias)
            ]
    else:
        model = build64(llama, 64).eval()
        base = config_factory(model, heads="size")
        width = 16

        def queries(model):
            return [layer.self_attn.q_proj.weight for layer in model.model.layers]

    for q in queries(model):  # logits of a size at which the scale matters
        nn.init.normal_(q, std=2.0)
    return model, base, width, queries


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_huggingface_attention(kind, implementation):
    model, base, width, queries = huggingface(kind)
    model.set_attn_implementation(implementation)
    plain = copy.deepcopy(model)
    plan = paramz.parametrize_(model, "mup", base=base, base_width=width, init=False)
    assert len(plan.attention) == 2
    for path in plan.multipliers:  # the tied readout of GPT-2 is another test's
        model.get_submodule(path)._forward_pre_hooks.clear()
    with torch.no_grad():
        assert not torch.allclose(model(IDS).logits, plain(IDS).logits, atol=1e-4)
        for q in queries(plain):
            q.mul_((1 / 4) ** 0.5)  # q k / sqrt(d) becomes q k / d * sqrt(d_base)
        assert torch.allclose(model(IDS).logits, plain(IDS).logits, atol=1e-12)


def test_a_plain_gpt_keeps_its_scale_in_an_attribute():
    model = gpt(32)
    plan = paramz.parametrize_(model, "mup", base=gpt)
    base_head, head = 4, 16
    assert [block.attn.scale for block in model.blocks] == [base_head**0.5 / head] * 2
    assert {(s.module, s.attribute) for s in plan.attention} == {
        ("blocks.0.attn", "scale"),
        ("blocks.1.attn", "scale"),
    }
    model = gpt(32)
    paramz.parametrize_(model, "sp", base=gpt)
    assert [block.attn.scale for block in model.blocks] == [head**-0.5] * 2


def test_nothing_to_do_where_the_number_of_heads_grows():
    assert paramz.make_plan(llama(64), "mup", base=llama).attention == ()


class PlainAttention(nn.Module):
    """The size of its heads grows and its scale is out of reach."""

    def __init__(self, width=8):
        super().__init__()
        self.num_heads = 2
        self.qkv = nn.Linear(width, 3 * width)


def test_a_scale_out_of_reach_is_a_warning():
    def build(width=8):
        return nn.ModuleDict({"attn": PlainAttention(width)})

    with pytest.warns(
        UserWarning, match="attn: the size of a head grows with width, but there is"
    ) as said:
        plan = paramz.make_plan(build(32), "mup", base=build)
        paramz.parametrize_(build(32), "mup", base=build)
    assert str(said[0].message) in plan.notes  # and so in a saved plan
    assert {Path(each.filename).name for each in said} == {Path(__file__).name}  # the caller's line
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paramz.make_plan(build(32), "sp", base=build)


def test_a_scale_that_was_changed_meanwhile_is_not_overwritten():
    model = gpt(32)
    paramz.parametrize_(model, "mup", base=gpt)
    model.blocks[1].attn.scale = 3.0
    with pytest.raises(ValueError) as error:
        paramz.remove_(model)
    assert str(error.value) == (
        "blocks.1.attn.scale is 3.0, where the plan expects 0.25: the model was changed since it "
        "was planned"
    )


def test_a_gated_short_convolution_is_no_attention():
    class ShortConv(nn.Module):  # LFM2's
        def __init__(self, width):
            super().__init__()
            self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.conv = nn.Conv1d(width, width, 3, groups=width)

    assert not is_attention(ShortConv(8))
    attention = ShortConv(8)
    attention.q_proj = nn.Linear(8, 8)
    assert is_attention(attention)


class Headed(nn.Module):
    """Attention whose heads have one size at every width, unless their number is given."""

    def __init__(self, width=16, heads=None, how="scale"):
        super().__init__()
        self.how, heads = how, heads or width // 8
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, 3)
        if how == "torch":
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        else:
            self.attention = (Fused if how == "fused" else Scaled)(width, heads)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.attention(x, x, x)[0] if self.how == "torch" else self.attention(x))


class Scaled(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.scale = self.head_dim**-0.5
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))

    def qkv(self, x):
        return (in_heads(f(x), self.num_heads) for f in (self.q_proj, self.k_proj, self.v_proj))

    def forward(self, x):
        q, k, v = self.qkv(x)
        weights = (q @ k.transpose(-1, -2) * self.scale).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)


class Fused(Scaled):
    """It takes the place of a forward that reads the scale."""

    def forward(self, x):
        return F.scaled_dot_product_attention(*self.qkv(x)).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("how", ["scale", "torch"])
def test_heads_that_are_larger_in_the_target_alone_are_scaled(how):
    build = lambda width=16: Headed(width, how=how)  # noqa: E731
    plan = paramz.make_plan(Headed(64, heads=2, how=how), "mup", base=build)
    (scale,) = plan.attention  # heads of 32 in place of 8: 8^1/2 / 32
    assert scale.value / scale.plain == pytest.approx(8**0.5 / 32**0.5)


def test_fused_attention_in_place_of_a_forward_that_reads_the_scale():
    build = lambda width=16: Headed(width, 2, how="fused")  # noqa: E731
    with pytest.warns(UserWarning, match="the size of a head grows"):
        plan = paramz.make_plan(build(64), "mup", base=build, example=torch.zeros(1, 5, 4))
    assert plan.attention == ()


class OfWidth(nn.Module):
    """Attention whose number of heads grows, or their size, and says neither; or both."""

    def __init__(self, width, scale, told, grows):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.shape, size = ((4, -1), width // 4) if grows else ((-1, 8), 8)
        self.scale = {"of a token": width**-0.5, "1/d": 1 / size, "usual": size**-0.5}[scale]
        if told:
            self.heads = width // size

    def forward(self, x):
        parts = (f(x).unflatten(-1, self.shape).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k, v = parts
        return self.o(((q @ k.mT * self.scale).softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    ("scale", "grows", "held"),
    # Base 16, target 64: heads of 8 stay, or those of 4 become 16.
    [("of a token", False, 1 / 4), ("1/d", True, 1 / 16), ("usual", True, 1 / 8)],
)
def test_a_scale_falls_as_heads_grow_and_not_as_their_number_does(told, scale, grows, held):
    """The root of all of a token's queries in the place of a head's made logits fade."""
    build = lambda width=16: OfWidth(width, scale, told, grows)  # noqa: E731
    example = torch.zeros(2, 5, 64)
    plan = paramz.make_plan(
        nn.Sequential(nn.Linear(3, 64), build(64)),
        "mup",
        base=nn.Sequential(nn.Linear(3, 16), build(16)),
        wider=nn.Sequential(nn.Linear(3, 32), build(32)),
        example=example[..., :3],
    )
    (found,) = plan.attention
    assert found.value == pytest.approx(held)
    plain = paramz.make_plan(
        build(64), "sp", base=build(16), wider=build(32), example=example[..., :64]
    )
    assert all(each.value == each.plain for each in plain.attention)


class Cosine(nn.Module):
    """Attention of queries and keys of length one, with gains, whose heads grow in size."""

    def __init__(self, width, start, root=False):
        super().__init__()
        self.size = width // 4
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.gains = nn.ParameterList(torch.full((4, 1, self.size), start) for _ in range(2))
        self.heads, self.scale, self.root = 4, self.size**-0.5, root

    def forward(self, x):
        q, k, v = (in_heads(f(x), 4) for f in (self.q, self.k, self.v))
        q, k = (F.normalize(y, dim=-1) * g for y, g in zip((q, k), self.gains, strict=True))
        if self.root:
            q, k = q * self.size**0.5, k * self.size**0.5
        return self.o(((q @ k.mT * self.scale).softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("measured", [True, False], ids=["parametrize_", "make_plan"])
@pytest.mark.parametrize(
    ("start", "root", "wanted"),
    # Base 16, target 64: heads of 4 and of 16. The cosine's factors are to stay.
    [(0.0, False, 1 / 2), (0.25, False, 1 / 4), (0.0, True, 1 / 8)],
    ids=["gains of 1", "gains of d^1/4", "times the root of d"],
)
def test_what_else_multiplies_a_cosine_counts_beside_its_scale(start, root, wanted, measured):
    """Gains that start at d^1/4 have undone d^-1/2; a norm of queries is of size 1 per entry."""
    build = lambda width: nn.Sequential(  # noqa: E731
        nn.Linear(3, width), Cosine(width, (width // 4) ** start, root)
    )
    do = paramz.parametrize_ if measured else paramz.make_plan
    plan = do(build(64), "mup", base=build, base_width=16, example=torch.zeros(2, 5, 3))
    assert [each.value for each in plan.attention] == [pytest.approx(wanted)]


class FusedCosine(Cosine):
    """The same through torch's fused attention, which has its own 1/sqrt(d)."""

    def __init__(self, width):
        super().__init__(width, 1.0)
        del self.gains, self.scale

    def forward(self, x):
        q, k, v = (in_heads(f(x), 4) for f in (self.q, self.k, self.v))
        q, k = (F.normalize(y, dim=-1) * self.size**0.5 for y in (q, k))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_a_norm_of_queries_written_with_a_length_is_told_of_where_heads_grow():
    build = lambda width: nn.Sequential(nn.Linear(3, width), FusedCosine(width))  # noqa: E731
    with pytest.warns(UserWarning, match="the size of a head grows"):
        paramz.make_plan(build(64), "mup", base=build, base_width=16, example=torch.zeros(2, 5, 3))


class Divided(nn.Module):
    """Attention whose number of heads grows, with the root of all of a token's queries."""

    def __init__(self, width, how):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.width, self.how, self.heads = width, how, width // 8
        if how == "attribute":
            self.temperature = width**0.5

    def forward(self, x):
        q, k, v = (in_heads(f(x), self.heads) for f in (self.q, self.k, self.v))
        if self.how == "attribute":
            y = (q / self.temperature @ k.mT).softmax(-1) @ v
        elif self.how == "fused":
            y = F.scaled_dot_product_attention(q, k, v, scale=self.width**-0.5)
        else:
            y = (q @ k.mT * (self.width if self.how == "code" else 8) ** -0.5).softmax(-1) @ v
        return self.o(y.transpose(1, 2).flatten(2))


def divided(how, width=64, **kwargs):
    build = lambda w: nn.Sequential(nn.Linear(3, w), Divided(w, how), Divided(w, how))  # noqa: E731
    return paramz.make_plan(
        build(width), "mup", base=build, base_width=16, example=torch.zeros(2, 5, 3), **kwargs
    )


def test_what_divides_the_logits_of_heads_that_stay_is_held():
    held = [(each.module, each.attribute, each.value) for each in divided("attribute").attention]
    assert held == [("1", "temperature", 4.0), ("2", "temperature", 4.0)]


@pytest.mark.parametrize("how", ["code", "fused"])
def test_a_moving_number_on_logits_of_heads_that_stay_is_told_of(how):
    """Logits fade like width^-1/2 where it is the root of all of a token's queries."""
    with pytest.warns(UserWarning, match="1: forward code multiplies the logits .* fade"):
        divided(how)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        divided(how, factors={r"^[12]$": None})
        divided("a head's")


def test_a_declared_factor_of_attention_may_divide():
    """It was set to the base's over the ratio of sizes, as one that multiplies is."""

    class Growing(Divided):
        def __init__(self, width):
            super().__init__(width, "attribute")
            self.heads, self.temperature = 2, (width // 2) ** 0.5

    build = lambda w: nn.Sequential(nn.Linear(3, w), Growing(w))  # noqa: E731
    plan = paramz.make_plan(
        build(64), "mup", base=build, base_width=16, factors={"temperature": "attention"}
    )
    assert [each.value for each in plan.attention] == [pytest.approx(8**0.5 * 4)]


class Critic(nn.Module):
    """The value of actions, as actor-critic code names it, and a state's beside it."""

    def __init__(self, width, kind="net"):
        super().__init__()
        sizes = (nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.body = nn.Identity() if kind == "net" else nn.Sequential(*sizes)
        self.q = nn.Sequential(*sizes, nn.Linear(width, 1)) if kind == "net" else None
        if self.q is None:
            self.q, self.v = nn.Linear(width, 4), nn.Linear(width, 1)
        self.kind = kind

    def forward(self, x):
        h = self.body(x)
        return self.q(h) if self.kind == "net" else self.q(h) + self.v(h)


@pytest.mark.parametrize("kind", ["net", "dueling"])
def test_a_child_called_q_without_keys_is_no_attention(kind):
    build = lambda width: Critic(width, kind)  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = paramz.make_plan(build(64), "mup", base=build, base_width=16)
    assert (plan.attention, plan.notes) == ((), ())


class HandedKeys(nn.Module):
    """Attention to keys and values that are made once for all blocks (Sun et al. 2024, YOCO)."""

    def __init__(self, width):
        super().__init__()
        self.q, self.o, self.scale = nn.Linear(width, width), nn.Linear(width, width), width**-0.5

    def forward(self, x, k, v):
        return x + self.o((self.q(x) @ k.mT * self.scale).softmax(-1) @ v)


class SharedKeys(nn.Module):
    """Two blocks that share their keys and values."""

    def __init__(self, width):
        super().__init__()
        self.embed, self.shared = nn.Linear(6, width), nn.Linear(width, 2 * width)
        self.blocks = nn.ModuleList(HandedKeys(width) for _ in range(2))
        self.readout = nn.Linear(width, 3)

    def forward(self, x):
        x = self.embed(x)
        k, v = self.shared(x).chunk(2, -1)
        for block in self.blocks:
            x = block(x, k, v)
        return self.readout(x)


@pytest.mark.filterwarnings("ignore:the model. the size of a head grows")
def test_a_child_called_q_beside_keys_that_are_handed_over_is_attention():
    plan = paramz.make_plan(SharedKeys(64), "mup", base=SharedKeys, base_width=16)
    factors = {each.module: (each.attribute, each.value) for each in plan.attention}
    assert factors == {f"blocks.{n}": ("scale", 1 / 16) for n in range(2)}
