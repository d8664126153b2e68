"""Golden roles, each table read by a person, and the traps that hide them."""

import re

import pytest
import torch
from cases import GPT, convnet, gpt, gpt2, llama, mlp, tied_gpt
from torch import nn

import paramz
from paramz.anatomy.axes import Axes, axes_of


def roles_of(build, base=8, target=24, **options):
    """Role, fan_in ratio and fan_out ratio of each tensor, repeated blocks as one."""
    plan = paramz.make_plan(build(target), "mup", base=build, base_width=base, **options)
    found = {}
    for row in plan.rows:
        name = re.sub(r"\b[0-9]+\b", "N", row.name) if "blocks" in row.name else row.name
        name = re.sub(r"(layers|h)[.][0-9]+", r"\1.N", name)
        short = row.role, *(f"{scale} {ratio:g}" for scale, ratio in row.ratios.items())
        assert found.setdefault(name, short) == short
        assert row.why
    return found


def rows_of(build, base=8, target=24):
    plan = paramz.make_plan(build(target), "mup", base=build, base_width=base)
    return {row.name: row for row in plan.rows}


INPUT = ("input", "fan_out 3")
HIDDEN = ("hidden", "fan_in 3", "fan_out 3")
OUTPUT = ("output", "fan_in 3")
VECTOR = ("vector", "fan_out 3")
SCALAR = ("scalar",)
TWICE_HIDDEN = ("hidden", "fan_in 2", "fan_out 2")


def test_mlp():
    assert roles_of(mlp) == {
        "0.weight": INPUT, "0.bias": VECTOR,
        "2.weight": HIDDEN, "2.bias": VECTOR,
        "4.weight": HIDDEN, "4.bias": VECTOR,
        "6.weight": OUTPUT, "6.bias": SCALAR,
    }  # fmt: skip


def test_convnet():
    assert roles_of(convnet) == {
        "0.weight": INPUT, "0.bias": VECTOR,
        "2.weight": HIDDEN, "2.bias": VECTOR,
        "6.weight": OUTPUT, "6.bias": SCALAR,
    }  # fmt: skip


def unusual_layers(width=8):
    return nn.ModuleDict(
        {
            "depthwise": nn.Conv1d(width, width, 3, groups=width, bias=False),
            "depthwise_twice": nn.Conv1d(width, 2 * width, 3, groups=width, bias=False),
            "two_groups": nn.Conv1d(width, width, 3, groups=2, bias=False),
            "groups_of_four": nn.Conv1d(width, width, 3, groups=width // 4, bias=False),
            "transposed": nn.ConvTranspose2d(width, 2 * width, 3, bias=False),
            "transposed_first": nn.ConvTranspose2d(3, width, 3, bias=False),
            "transposed_last": nn.ConvTranspose2d(width, 3, 3),
            "transposed_depthwise": nn.ConvTranspose1d(width, width, 3, groups=width, bias=False),
            "batch_norm": nn.BatchNorm1d(width),
            "layer_norm": nn.LayerNorm((width, 4)),
            "prelu": nn.PReLU(width),
            "one_prelu": nn.PReLU(),
            "bilinear": nn.Bilinear(width, 3, 5),
            "bag": nn.EmbeddingBag(10, width),
        }
    )


def test_layers_whose_axes_are_easily_mistaken():
    assert roles_of(unusual_layers) == {
        "depthwise.weight": VECTOR,
        "depthwise_twice.weight": VECTOR,
        "two_groups.weight": HIDDEN,
        "groups_of_four.weight": INPUT,  # each output sums over four channels at any width
        "transposed.weight": HIDDEN,
        "transposed_first.weight": INPUT,
        "transposed_last.weight": OUTPUT, "transposed_last.bias": SCALAR,
        "transposed_depthwise.weight": VECTOR,
        "batch_norm.weight": VECTOR, "batch_norm.bias": VECTOR,
        "layer_norm.weight": VECTOR, "layer_norm.bias": VECTOR,
        "prelu.weight": VECTOR, "one_prelu.weight": SCALAR,
        "bilinear.weight": OUTPUT, "bilinear.bias": SCALAR,
        "bag.weight": INPUT,
    }  # fmt: skip


def test_gpt_with_fused_qkv():
    block = {
        "norm1.weight": VECTOR, "norm1.bias": VECTOR,
        "norm2.weight": VECTOR, "norm2.bias": VECTOR,
        "attn.qkv.weight": HIDDEN,
        "attn.proj.weight": HIDDEN, "attn.proj.bias": VECTOR,
        "mlp.N.weight": HIDDEN, "mlp.N.bias": VECTOR,
    }  # fmt: skip
    assert roles_of(gpt) == {
        "pos_emb": INPUT, "tokens.weight": INPUT,
        **{f"blocks.N.{name}": role for name, role in block.items()},
        "norm.weight": VECTOR, "norm.bias": VECTOR,
        "head.weight": OUTPUT,
    }  # fmt: skip


def recurrent(width=8):
    return nn.ModuleDict(
        {
            "lstm": nn.LSTM(5, width, bidirectional=True, bias=False),
            "gru": nn.GRU(width, width),
            "projected": nn.LSTM(width, 2 * width, proj_size=width, bias=False),
            "cell": nn.GRUCell(5, width),
        }
    )


def test_recurrent_layers():
    assert roles_of(recurrent) == {
        "lstm.weight_ih_l0": INPUT, "lstm.weight_hh_l0": HIDDEN,
        "lstm.weight_ih_l0_reverse": INPUT, "lstm.weight_hh_l0_reverse": HIDDEN,
        "gru.weight_ih_l0": HIDDEN, "gru.weight_hh_l0": HIDDEN,
        "gru.bias_ih_l0": VECTOR, "gru.bias_hh_l0": VECTOR,
        "projected.weight_ih_l0": HIDDEN, "projected.weight_hh_l0": HIDDEN,
        "projected.weight_hr_l0": HIDDEN,
        "cell.weight_ih": INPUT, "cell.weight_hh": HIDDEN,
        "cell.bias_ih": VECTOR, "cell.bias_hh": VECTOR,
    }  # fmt: skip


def torch_attention(width=8):
    return nn.ModuleDict(
        {
            "own": nn.MultiheadAttention(width, 2, add_bias_kv=True),
            "cross": nn.MultiheadAttention(width, 2, kdim=width // 2, vdim=3, bias=False),
        }
    )


def test_torch_multihead_attention():
    assert roles_of(torch_attention) == {
        "own.in_proj_weight": HIDDEN, "own.in_proj_bias": VECTOR,
        "own.bias_k": VECTOR, "own.bias_v": VECTOR,
        "own.out_proj.weight": HIDDEN, "own.out_proj.bias": VECTOR,
        "cross.q_proj_weight": HIDDEN, "cross.k_proj_weight": HIDDEN,
        "cross.v_proj_weight": INPUT,
        "cross.out_proj.weight": HIDDEN,
    }  # fmt: skip


LLAMA_BLOCK = {
    f"model.layers.N.{name}.weight": TWICE_HIDDEN
    for name in (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    )
} | {
    f"model.{name}.weight": ("vector", "fan_out 2")
    for name in ("layers.N.input_layernorm", "layers.N.post_attention_layernorm", "norm")
}  # fmt: skip


def test_huggingface_llama_untied():
    assert roles_of(llama, 32, 64) == LLAMA_BLOCK | {
        "model.embed_tokens.weight": ("input", "fan_out 2"),
        "lm_head.weight": ("output", "fan_in 2"),
    }


def test_huggingface_llama_tied():
    def tied(width=32):
        return llama(width, tied=True)

    assert roles_of(tied, 32, 64) == LLAMA_BLOCK | {
        "model.embed_tokens.weight": ("input", "fan_out 2")
    }
    row = rows_of(tied, 32, 64)["model.embed_tokens.weight"]
    assert row.aliases == ("lm_head.weight",)
    assert row.readouts == ("lm_head",)
    assert row.why == "tied: embedding and readout"


def test_huggingface_gpt2():
    linear = {
        f"transformer.h.N.{name}.weight": TWICE_HIDDEN
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    norms = ("transformer.h.N.ln_1", "transformer.h.N.ln_2", "transformer.ln_f")
    vectors = [*(name.replace("weight", "bias") for name in linear)]
    vectors += [f"{norm}.{kind}" for norm in norms for kind in ("weight", "bias")]
    assert roles_of(gpt2, 32, 64) == linear | dict.fromkeys(vectors, ("vector", "fan_out 2")) | {
        "transformer.wte.weight": ("input", "fan_out 2"),
        "transformer.wpe.weight": ("input", "fan_out 2"),
    }
    from transformers.pytorch_utils import Conv1D

    # Stored as (in, out), the other way round than Linear.
    assert axes_of(Conv1D(12, 4), "weight", (4, 12)) == Axes(fan_in=(0,), fan_out=(1,))


def mixtral(width=32):
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(
        MixtralConfig(
            hidden_size=width, intermediate_size=24, num_hidden_layers=1,
            num_attention_heads=width // 8, num_key_value_heads=width // 16,
            vocab_size=40, num_local_experts=4,
        )
    )  # fmt: skip


def gpt_oss(width=32):
    from transformers import GptOssConfig, GptOssForCausalLM

    return GptOssForCausalLM(
        GptOssConfig(
            hidden_size=width, intermediate_size=24, num_hidden_layers=1, head_dim=8,
            num_attention_heads=width // 8, num_key_value_heads=width // 16,
            vocab_size=40, num_local_experts=4, pad_token_id=0,
        )
    )  # fmt: skip


@pytest.mark.parametrize(("build", "experts"), [(mixtral, "out, in"), (gpt_oss, "in, out")])
def test_stacked_experts_and_their_router(build, experts):
    # The feed-forward size is fixed here, so that a swapped axis would swap fan_in and fan_out.
    roles = roles_of(build, 32, 64)
    mlp_path = "model.layers.N.mlp."
    assert roles[mlp_path + "experts.gate_up_proj"] == ("expert", "fan_in 2")
    assert roles[mlp_path + "experts.down_proj"] == ("expert", "fan_out 2")
    shape = rows_of(build, 32, 64)["model.layers.0.mlp.experts.down_proj"].shape
    assert shape == ((4, 64, 24) if experts == "out, in" else (4, 24, 64))
    router = "gate" if build is mixtral else "router"
    assert roles[mlp_path + router + ".weight"] == ("router", "fan_in 2")
    if build is gpt_oss:
        assert roles[mlp_path + "router.bias"] == SCALAR
        assert roles[mlp_path + "experts.gate_up_proj_bias"] == SCALAR
        assert roles[mlp_path + "experts.down_proj_bias"] == ("vector", "fan_out 2")


class Bare(nn.Module):
    """Parameters that no layer owns."""

    def __init__(self, width=8):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, width))
        self.positional_embedding = nn.Parameter(torch.zeros(5, width))
        self.gain = nn.Parameter(torch.ones(width))
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.table = nn.Parameter(torch.zeros(3, 4))


def test_class_tokens_position_tables_and_constants():
    assert roles_of(Bare) == {
        "cls_token": VECTOR,
        "pos_embed": INPUT,
        "positional_embedding": INPUT,
        "gain": VECTOR,
        "temperature": SCALAR,
        "table": SCALAR,
    }


def test_rows_come_in_the_order_of_named_parameters():
    for build in (gpt, tied_gpt, unusual_layers):
        assert list(rows_of(build)) == [name for name, _ in build(8).named_parameters()]


def test_target_equal_to_base_has_the_same_roles():
    for build in (mlp, gpt, tied_gpt):
        at_base, wider = rows_of(build, 8, 8), rows_of(build, 8, 24)
        assert {n: r.role for n, r in at_base.items()} == {n: r.role for n, r in wider.items()}
        assert all(ratio == 1.0 for r in at_base.values() for ratio in r.ratios.values())


def test_width_equal_to_the_vocabulary():
    def build(width=8):
        return nn.Sequential(
            nn.Embedding(8, width), nn.Linear(width, width), nn.Linear(width, 8, bias=False)
        )

    for target in (8, 16):
        roles = [row.role for row in rows_of(build, 8, target).values()]
        assert roles == ["input", "hidden", "vector", "output"]


def test_width_and_feed_forward_scale_apart():
    def build(width=8, inner=16):
        return nn.Sequential(nn.Linear(4, width), nn.Linear(width, inner), nn.Linear(inner, width))

    plan = paramz.make_plan(build(24, 32), "mup", base=build(), wider=build(16, 32))
    ratios = {row.name: dict(row.ratios) for row in plan.rows}
    assert ratios["1.weight"] == {"fan_in": 3.0, "fan_out": 2.0}
    assert ratios["2.weight"] == {"fan_in": 2.0, "fan_out": 3.0}
    assert ratios["2.bias"] == {"fan_out": 3.0}


def test_a_module_used_twice_is_one_tensor():
    class Shared(nn.Module):
        def __init__(self, width=8):
            super().__init__()
            self.first = nn.Linear(width, width, bias=False)
            self.again = self.first
            self.out = nn.Linear(width, 2, bias=False)

    rows = rows_of(Shared)
    assert list(rows) == ["first.weight", "out.weight"]
    assert rows["first.weight"].aliases == ("again.weight",)
    assert rows["first.weight"].role == "hidden"


def test_overrides_in_order_first_match_wins():
    build = gpt
    plan = paramz.make_plan(
        build(24),
        "mup",
        base=build,
        roles={r"head": "hidden", r"[.]weight$": "vector", r"blocks": "input"},
    )
    rows = {row.name: row for row in plan.rows}
    assert (rows["head.weight"].role, rows["head.weight"].why) == ("hidden", "roles['head']")
    assert rows["tokens.weight"].role == "vector"
    assert rows["blocks.1.attn.qkv.weight"].role == "vector"
    assert rows["blocks.1.attn.proj.bias"].role == "input"
    assert rows["norm.bias"].role == "vector"
    assert rows["norm.bias"].why == "LayerNorm: entrywise"


def test_overrides_may_name_the_axes():
    class Reversed(nn.Module):
        def __init__(self, width=8):
            super().__init__()
            self.w = nn.Parameter(torch.randn(width, 3))

    plan = paramz.make_plan(
        Reversed(24), "mup", base=Reversed, roles={"w": Axes(fan_in=(0,), fan_out=(1,))}
    )
    assert plan.rows[0].role == "output"
    assert plan.rows[0].ratios == {"fan_in": 3.0}
    assert plan.rows[0].why == "roles['w']: fan_in grows"


def test_an_override_matches_any_name_of_a_tied_tensor():
    for role, ratios, readouts in (
        ("output", {"fan_in": 3.0}, ()),
        ("input", {"fan_out": 3.0}, ("head",)),
    ):
        plan = paramz.make_plan(tied_gpt(24), "mup", base=tied_gpt, roles={"^head": role})
        row = next(row for row in plan.rows if row.name == "tokens.weight")
        assert (row.role, row.ratios, row.readouts) == (role, ratios, readouts)


@pytest.mark.parametrize("role", ["input", "hidden", "output", "vector"])
def test_an_overridden_role_has_the_ratio_that_its_rules_read(role):
    # Else every rule of the tensor would be 1: silently SP.
    for name in ("tokens.weight", "head.weight", "pos_emb", "norm.weight"):
        plan = paramz.make_plan(gpt(24), "mup", base=gpt, roles={name: role})
        row = next(row for row in plan.rows if row.name == name)
        assert plan.parametrization.rule("sgd", role).lr(row.ratios) != 1.0


def test_a_wider_module_may_come_from_the_user():
    plan = paramz.make_plan(mlp(32), "mup", base=mlp(8), wider=mlp(12))
    assert [row.role for row in plan.rows][::2] == ["input", "hidden", "hidden", "output"]
    with torch.device("meta"):
        wider = GPT(16)
    assert paramz.make_plan(gpt(24), "mup", base=gpt(8), wider=wider).rows == tuple(
        paramz.make_plan(gpt(24), "mup", base=gpt).rows
    )


def test_a_factory_that_needs_real_values_is_built_for_real():
    def build(width=8):
        model = mlp(width)
        model.offset = model[0].weight.sum().item()
        return model

    assert paramz.make_plan(build(16), "mup", base=build).rows
