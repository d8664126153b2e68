"""Mixtures of experts: parts found in unmodified models, ratios, policies and gates."""

import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import paramz
from paramz.anatomy.moe import find_layers, find_parts, gate_sums
from paramz.theory.power import ONE, Power
from paramz.theory.printed import HALF, IN

SWEEPS = str(Path(__file__).parents[2] / "sweeps")


@pytest.fixture(scope="module")
def moe_gpt():
    sys.path.insert(0, SWEEPS)
    from train_moe import MoEGPT

    yield MoEGPT
    sys.path.remove(SWEEPS)


SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 40, "pad_token_id": 0, "moe_intermediate_size": 16,
}  # fmt: skip
DEEPSEEK = {
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": None,
    "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "num_key_value_heads": 4, "head_dim": 4,
}  # fmt: skip
FAMILIES = {
    "Mixtral": ("num_local_experts", {}),
    "Qwen3Moe": ("num_experts", {}),
    "Olmoe": ("num_experts", {}),
    "GptOss": ("num_local_experts", {}),
    "DeepseekV3": ("n_routed_experts", DEEPSEEK),
}


def language_model(width, family, experts=4, top_k=2, **options):
    """A Hugging Face model of any width; the sizes of its feed-forward layers grow with it."""
    import transformers

    name, more = FAMILIES[family]
    sizes = {**SIZES, **more, **options, name: experts, "num_experts_per_tok": top_k}
    for key in ("hidden_size", "intermediate_size", "moe_intermediate_size"):
        sizes[key] = sizes[key] * width // 32
    config = getattr(transformers, f"{family}Config")(**sizes)
    return getattr(transformers, f"{family}ForCausalLM")(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_unmodified_models_scale_in_width_and_experts(family):
    model = language_model(64, family, experts=8, top_k=4)
    plan = paramz.parametrize_(
        model, "mup+moe", base=partial(language_model, family=family), base_width=32
    )
    rows = {row.name.partition("layers.1.")[2]: row for row in plan.rows if ".1." in row.name}
    router = next(row for name, row in rows.items() if row.role == "router")
    assert router.shape == (8, 64)
    assert router.base_shape == (4, 32)
    assert router.ratios == {"fan_in": 2.0, "experts": 2.0, "top_k": 2.0}
    for name in ("mlp.experts.gate_up_proj", "mlp.experts.down_proj"):
        row = rows[name]
        assert row.role == "expert"
        assert row.ratios == {"fan_in": 2.0, "fan_out": 2.0, "experts": 2.0, "top_k": 2.0}
    assert not any("experts" in row.ratios for row in rows.values() if "attn" in row.name)
    sgd = {id(p): g["lr"] for g in plan.param_groups(model, "sgd", lr=1.0) for p in g["params"]}
    down = model.get_parameter(rows["mlp.experts.down_proj"].name)
    assert sgd[id(down)] == 2.0  # fan_out / fan_in * experts
    out = model(torch.arange(12).view(2, 6)).logits
    assert torch.isfinite(out).all()


def test_shared_experts_see_every_token_and_are_no_experts():
    model = language_model(32, "DeepseekV3")
    parts = find_parts(model, find_layers(model))
    assert {part.kind for part in parts.values()} == {"router", "expert"}
    assert not any("shared" in name for name in parts)


def test_lists_of_experts(moe_gpt):
    model = moe_gpt(32, experts=16)
    plan = paramz.parametrize_(model, "mup+moe", base=partial(moe_gpt, experts=4), base_width=16)
    rows = {row.name: row for row in plan.rows}
    assert rows["blocks.1.moe.experts.15.up.weight"].ratios == {
        "fan_in": 2.0, "fan_out": 2.0, "experts": 4.0, "top_k": 4.0,
    }  # fmt: skip
    assert rows["blocks.1.moe.experts.15.up.weight"].role == "expert"
    assert rows["blocks.0.moe.router.weight"].role == "router"
    assert find_layers(model)["blocks.0.moe"].top_k == 4
    hidden, rest = plan.split_groups(model, muon={"lr": 0.1}, adamw={"lr": 0.1})
    in_muon = {id(p) for group in hidden for p in group["params"]}
    assert id(model.blocks[1].moe.experts[15].up.weight) in in_muon
    assert id(model.blocks[1].moe.router.weight) not in in_muon


@pytest.mark.parametrize(
    "scheme", ["mup+moe", "mup+completep+moe", "mup+moe-readout-router", "mup+moe-bottleneck"]
)
def test_at_the_base_nothing_changes(scheme, moe_gpt):
    torch.manual_seed(0)
    model = moe_gpt(16, experts=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plan = paramz.parametrize_(model, scheme, base=partial(moe_gpt, experts=4), base_width=16)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for group in plan.param_groups(model, "sgd", lr=0.3, weight_decay=0.7):
        assert (group["lr"], group["weight_decay"]) == (0.3, 0.7)


def test_more_experts_need_a_scheme_that_scales_them(moe_gpt):
    with pytest.raises(ValueError, match="moe.experts has 8 modules and the base 4.*'mup.moe' for"):
        paramz.parametrize_(
            moe_gpt(32, experts=8), "mup", base=partial(moe_gpt, experts=4), base_width=16
        )
    with pytest.raises(
        ValueError, match="axis 0 counts experts, 4 in the base and 8 in the target. 'mup.moe' has"
    ):
        paramz.parametrize_(
            language_model(64, "Mixtral", experts=8),
            "mup",
            base=partial(language_model, family="Mixtral"),
            base_width=32,
        )


def test_router_policies(moe_gpt):
    # As a hidden matrix its init falls like 1/sqrt(fan_in), as a readout like 1/fan_in.
    for scheme, power in (("mup", -0.5), ("mup+moe", -0.5), ("mup+moe-readout-router", -1.0)):
        torch.manual_seed(0)
        model = moe_gpt(256, experts=64)
        plan = paramz.parametrize_(model, scheme, base=partial(moe_gpt, experts=64), base_width=16)
        row = next(row for row in plan.rows if row.role == "router")
        std = float(model.blocks[0].moe.router.weight.std())
        assert std == pytest.approx((1 / (3 * 16)) ** 0.5 * 16**power, rel=0.05)
        assert plan.rule(row, paramz.family("adamw")).lr(row.ratios) == 1 / 16
        said = [note for note in plan.notes if "routers start like readouts" in note]
        assert len(said) == (power == -1.0)
    assert paramz.MOE_READOUT_ROUTER.rule("adam", "router").init_std == IN**-HALF
    assert paramz.MOE_MUP.rule("adam", "router").init_std == ONE


class ThinMoE(nn.Module):
    """Experts of 16 units whose number grows with width, a quarter of them active."""

    def __init__(self, width=64, hidden=16):
        super().__init__()
        experts = width // 8
        self.router, self.top_k = nn.Linear(width, experts, bias=False), experts // 4
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width, bias=False))
            for _ in range(experts)
        )

    def forward(self, x):
        logits, chosen = self.router(x).topk(self.top_k, -1)
        share = torch.zeros(len(x), len(self.experts)).scatter(-1, chosen, logits.softmax(-1))
        return sum(share[:, i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class ThinNet(nn.Module):
    def __init__(self, width=64, thin=True):
        super().__init__()
        self.first, self.norm = nn.Linear(16, width), nn.LayerNorm(width)
        self.moe = ThinMoE(width, 16 if thin else width // 4)
        self.head = nn.Linear(width, 8)

    def forward(self, x):
        h = self.norm(self.first(x))
        return self.head(h + self.moe(h))


def test_maps_back_from_thin_experts_keep_what_a_layer_puts_out_under_moe_bottleneck():
    x = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))

    def sizes(scheme):
        found = []
        for width in (64, 1024):
            torch.manual_seed(0)
            model = ThinNet(width)
            plan = paramz.parametrize_(model, scheme, base=ThinNet, base_width=64, example=x)
            with torch.no_grad():
                h = model.norm(model.first(x))
                found.append(float(model.moe(h).std()))
        said = [note for note in plan.notes if "average away as experts^-1/2" in note]
        assert len(said) == (scheme == "mup+moe")
        return found[1] / found[0], {row.name: row for row in plan.rows}

    grown, rows = sizes("mup+moe-bottleneck")
    assert rows["moe.experts.0.2.weight"].ratios["thin"] == 16
    assert "thin" not in rows["moe.experts.0.0.weight"].ratios
    assert grown == pytest.approx(1.0, rel=0.2)
    assert sizes("mup+moe")[0] == pytest.approx(1 / 4, rel=0.2)
    plan = paramz.make_plan(
        ThinNet(128, thin=False), "mup+moe-bottleneck", base=partial(ThinNet, thin=False),
        base_width=64, example=x,
    )  # fmt: skip
    assert not any("thin" in row.ratios for row in plan.rows)


@pytest.mark.parametrize("part", ["moe", "moe-readout-router"])
def test_a_note_on_thin_experts_names_the_part_of_the_scheme_to_replace(part):
    build = partial(ThinNet, thin=True)
    plan = paramz.make_plan(build(128), f"mup+{part}", base=build, base_width=64)
    (said,) = [note for note in plan.notes if "average away as experts^-1/2" in note]
    assert f"'moe-bottleneck' in the place of '{part}' starts" in said


def test_a_table_saved_when_routers_started_like_readouts_keeps_that():
    saved = paramz.MUP.to_json()
    del saved["special_cases"]
    before = paramz.Parametrization.from_json(saved)
    for column in paramz.MUP.columns:
        assert before.rule(column, "router") == paramz.MUP.rule(column, "output")
    assert before.rule("adam", "expert") == paramz.MUP.rule("adam", "expert")


def test_without_the_scheme_routers_and_experts_are_hidden(moe_gpt):
    plan = paramz.make_plan(moe_gpt(32), "mup", base=moe_gpt, base_width=16)
    rules = {row.role: plan.rule(row, paramz.family("adamw")) for row in plan.rows}
    assert rules["router"] == paramz.MUP.rule("adam", "hidden")
    assert rules["expert"] == paramz.MUP.rule("adam", "hidden")


def test_composition_multiplies_every_factor():
    table = paramz.parametrization("mup+completep+moe")
    assert table == paramz.MUP * paramz.COMPLETEP * paramz.MOE_MUP
    blocks = Power(depth=1, loops=-1)  # different ones
    assert table.rule("sgd", "expert").lr == blocks * Power(fan_out=1, fan_in=-1, experts=1)
    assert table.rule("adam", "expert").eps == 1 / blocks * Power(fan_out=-1, experts=-1)
    assert table.rule("adam", "router").init_std == IN**-HALF
    assert (table.attention, table.branch) == (Power(head=-1), Power(depth=-1))
    assert table.scales == {"fan_in", "fan_out", "depth", "loops", "experts"}


def test_gates_that_do_not_add_up_alike_are_reported():
    def olmoe(width, experts, normalised):
        return language_model(width, "Olmoe", experts=experts, norm_topk_prob=normalised)

    notes = {}
    for normalised in (True, False):
        build = partial(olmoe, experts=4, normalised=normalised)
        model = olmoe(32, 16, normalised)
        assert len(gate_sums(model)) == 2
        notes[normalised] = paramz.parametrize_(model, "mup+moe", base=build, base_width=32).notes
    assert notes[True] == ("gates add up to 1, as in the base",)
    assert "gates of model.layers.1.mlp add up to 0.1" in notes[False][1]
    assert "Normalise the gates (norm_topk_prob=True)" in notes[False][1]


def test_finer_experts_follow_the_width_rules():
    # Twice as many experts of half the size: fan ratios come from the shapes.
    model = language_model(32, "Mixtral", experts=8, top_k=4, intermediate_size=24)
    plan = paramz.parametrize_(
        model,
        "mup+moe",
        base=partial(language_model, family="Mixtral"),
        base_width=32,
    )
    down = next(row for row in plan.rows if row.name.endswith("layers.0.mlp.experts.down_proj"))
    assert down.ratios == {"fan_in": 0.5, "fan_out": 1.0, "experts": 2.0, "top_k": 2.0}


def listed(width):
    """A mixture whose code makes the number of experts from the width."""
    layer = nn.Module()
    layer.gate, layer.top_k = nn.Linear(width, width // 8, bias=False), width // 16
    layer.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(width // 8))
    return nn.Sequential(nn.Linear(4, width), layer, nn.Linear(width, 2))


def stacked(width):
    return language_model(width, "Mixtral", experts=width // 8, top_k=width // 16)


@pytest.mark.parametrize("build", [listed, stacked])
def test_experts_whose_number_follows_the_width_count_as_experts(build):
    """They read as width, the router as a hidden matrix, and mup took them without a word."""
    plan = paramz.make_plan(build(64), "mup+moe", base=build, base_width=32)
    counts = {"experts": 2.0, "top_k": 2.0}
    assert {row.role for row in plan.rows} >= {"router", "expert"}
    for row in plan.rows:
        if row.role == "router":
            assert row.ratios == {"fan_in": 2.0, **counts}
        if row.role == "expert":
            assert row.ratios == {"fan_in": 2.0, "fan_out": 2.0, **counts}
    with pytest.raises(ValueError, match="'mup.moe'"):
        paramz.make_plan(build(64), "mup", base=build, base_width=32)


@pytest.mark.parametrize(("scheme", "power"), [("mup+moe", 0.0), ("mup", -1.0)])
def test_sgd_moves_experts_alike_only_under_the_scheme(scheme, power, moe_gpt):
    # At a fixed share of experts per token; the mean over experts of what their own step did.
    df = paramz.coord_check(
        f"{SWEEPS}/train_moe.py:task", experts=(8, 32), base_width=16, parametrization=scheme,
        optimizer="sgd", lr=2**-3, steps=1, seeds=2, config={"batch_size": 16, "zero": True},
    )  # fmt: skip
    own = df[(df.quantity == "update") & df.module.str.contains("experts.*down$")]
    sizes = own.groupby("experts").rms.mean()
    assert math.log(sizes[32] / sizes[8]) / math.log(4) == pytest.approx(power, abs=0.1)


def test_an_unknown_module_of_experts_is_left_alone():
    class Plain(nn.Module):
        def __init__(self, width=8):
            super().__init__()
            self.experts = nn.Linear(4, width)
            self.out = nn.Linear(width, 2)

    assert find_layers(Plain()) == {}
    paramz.parametrize_(Plain(16), "mup+moe", base=Plain, base_width=8)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 2**-7), ("muon", 2**-6)])
def test_normalised_updates_are_flat_over_experts(optimizer, lr):
    df = paramz.coord_check(
        f"{SWEEPS}/train_moe.py:task", experts=(8, 16, 32, 64), base_width=32,
        parametrization="mup+moe", optimizer=optimizer, lr=lr, seeds=3,
        config={"batch_size": 16, "context": 64, "zero": True},
    )  # fmt: skip
    assert paramz.judge(df).passed, paramz.judge(df).sentence
