"""A width as base scales every size of a config that should follow, or says which it left."""

import pytest
import torch
import transformers

import paramz
from paramz.anatomy.hf_sizes import Sizes, fields_left
from paramz.apply.hf import config_factory, scaled_config

TEXT = {
    "vocab_size": 40, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
    "num_attention_heads": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VISION = {
    "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 1, "num_attention_heads": 4,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip


def on_meta(kind, config):
    with torch.device("meta"):
        return getattr(transformers, kind)(config)


def config_of(name, **fields):
    return getattr(transformers, f"{name}Config")(**fields)


# Fields at width 128 that have to be twice those at width 64.
FOLLOWS = {
    "Falcon": ({**TEXT, "ffn_hidden_size": 256}, {"ffn_hidden_size": 512, "num_kv_heads": 8}),
    "DistilBert": (
        {"vocab_size": 40, "dim": 64, "hidden_dim": 96, "n_heads": 4},
        {"dim": 128, "hidden_dim": 192, "n_heads": 8},
    ),
    # The width under a name of its own, which the config maps hidden_size to.
    "XLM": ({"emb_dim": 64, "n_heads": 4, "n_layers": 1}, {"emb_dim": 128, "n_heads": 8}),
    "CTRL": ({"n_embd": 64, "dff": 96, "n_head": 4}, {"n_embd": 128, "dff": 192, "n_head": 8}),
    "ProphetNet": (
        {"hidden_size": 64, "num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4},
        {"num_encoder_attention_heads": 8, "num_decoder_attention_heads": 8},
    ),
    "Reformer": (
        {"hidden_size": 64, "feed_forward_size": 96, "num_attention_heads": 4},
        {"feed_forward_size": 192, "num_attention_heads": 8, "axial_pos_embds_dim": (128, 384)},
    ),
    # Its numbers of heads are a list in a config that was read, and a tuple in one that was not.
    "Swin": (
        {"embed_dim": 8, "depths": [1, 1], "num_heads": (1, 2)},
        {"embed_dim": 64, "num_heads": (8, 16)},
    ),
    # The pooler's map is of the model's width, for which the config has a field.
    "DebertaV2": ({**TEXT, "pooler_hidden_size": 64}, {"pooler_hidden_size": 128}),
    "FalconH1": (
        {**TEXT, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16},
        {"mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16},
    ),
    "Bamba": (
        {**TEXT, "mamba_n_heads": 8, "mamba_d_head": 16, "num_key_value_heads": 2},
        {"mamba_n_heads": 16, "num_key_value_heads": 4},
    ),
    "Moonshine": ({"hidden_size": 64}, {"encoder_num_attention_heads": 16}),
    "RecurrentGemma": ({**TEXT, "lru_width": 64}, {"lru_width": 128}),
    "Albert": ({**TEXT, "embedding_size": 16}, {"embedding_size": 16}),
    "Electra": ({**TEXT, "embedding_size": 64}, {"embedding_size": 128}),
    "DeepseekV3": ({**TEXT, "kv_lora_rank": 8}, {"kv_lora_rank": 8}),
    "Gemma3nText": (
        {**TEXT, "num_hidden_layers": 2, "intermediate_size": [96, 64]},
        {"intermediate_size": [192, 128]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWS)
def test_fields_follow_the_width(name):
    given, expected = FOLLOWS[name]
    scaled = scaled_config(config_of(name, **given), 128)
    assert {field: getattr(scaled, field) for field in expected} == expected


def test_dbrx_keeps_its_sizes_in_nested_configs():
    config = config_of(
        "Dbrx", d_model=64, n_heads=4, n_layers=1, vocab_size=40,
        attn_config={"kv_n_heads": 2}, ffn_config={"ffn_hidden_size": 96, "hidden_size": 64},
    )  # fmt: skip
    scaled = scaled_config(config, 128)
    assert (scaled.attn_config.kv_n_heads, scaled.ffn_config.ffn_hidden_size) == (4, 192)
    assert config.ffn_config.ffn_hidden_size == 96
    assert scaled_config(config, 128, kv_heads="keep").attn_config.kv_n_heads == 2


@pytest.mark.parametrize("name", ["CLIP", "Siglip"])
def test_text_and_vision_move_in_the_same_proportion(name):
    config = config_of(name, text_config=TEXT, vision_config=VISION)
    scaled = scaled_config(config, 128)  # the width of the text
    assert (scaled.text_config.hidden_size, scaled.vision_config.hidden_size) == (128, 192)
    model = on_meta(f"{name}Model", scaled)
    plan = paramz.make_plan(model, "mup", base=64)
    widths = {row.name: row.ratios for row in plan.rows}
    tower = "vision_model.encoder.layers.0.mlp.fc1.weight"
    assert widths[tower] == widths[tower.replace("vision", "text")] == {"fan_in": 2, "fan_out": 2}
    if name == "CLIP":
        assert any("projection_dim = 512" in note for note in plan.notes)


def test_llava_has_its_widths_in_nested_configs_only():
    config = config_of(
        "Llava", text_config=transformers.LlamaConfig(**TEXT),
        vision_config=transformers.CLIPVisionConfig(**VISION),
    )  # fmt: skip
    scaled = scaled_config(config, 128)
    assert (scaled.text_config.hidden_size, scaled.vision_config.hidden_size) == (128, 192)
    plan = paramz.make_plan(on_meta("LlavaForConditionalGeneration", scaled), "mup", base=64)
    projector = next(row for row in plan.rows if "multi_modal_projector" in row.name)
    assert projector.role == "hidden"


def test_an_encoder_and_a_decoder_of_their_own():
    part = {**TEXT, "num_key_value_heads": 2, "head_dim": 16}
    config = config_of("T5Gemma", encoder=part, decoder={**part, "num_hidden_layers": 2})
    scaled = scaled_config(config, 128)
    assert (scaled.encoder.hidden_size, scaled.decoder.hidden_size) == (128, 128)
    deeper = scaled_config(config, 64, depth=3)
    assert (deeper.encoder.num_hidden_layers, deeper.decoder.num_hidden_layers) == (3, 6)


HYBRIDS = {
    "FalconH1": {
        **TEXT, "num_key_value_heads": 4, "mamba_d_ssm": 64, "mamba_n_heads": 4,
        "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1,
    },
    "NemotronH": {
        **TEXT, "num_hidden_layers": 2, "hybrid_override_pattern": "M*", "num_key_value_heads": 4,
        "head_dim": 16, "ssm_state_size": 8, "mamba_num_heads": 8, "mamba_head_dim": 16,
        "n_groups": 1,
    },
    "Bamba": {
        **TEXT, "num_key_value_heads": 4, "mamba_n_heads": 8, "mamba_d_head": 16,
        "mamba_d_state": 8,
    },
}  # fmt: skip
GROW = (
    "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
    "mamba_d_ssm", "mamba_n_heads", "mamba_num_heads",
)  # fmt: skip


@pytest.mark.parametrize("name", HYBRIDS)
def test_mixers_of_hybrids_are_planned_as_by_a_factory(name):
    def build(width):
        fields = HYBRIDS[name]
        grown = {n: v * width // 64 for n, v in fields.items() if n in GROW}
        return on_meta(f"{name}ForCausalLM", config_of(name, **{**fields, **grown}))

    model = build(256)
    by_factory = paramz.make_plan(model, "mup", base=build, base_width=64)
    assert paramz.make_plan(model, "mup", base=64).rows == by_factory.rows


def test_key_value_heads_may_stay():
    config = config_of("Llama", **TEXT, num_key_value_heads=2)
    assert scaled_config(config, 128, kv_heads="keep").num_key_value_heads == 2
    model = on_meta("LlamaForCausalLM", scaled_config(config, 128, kv_heads="keep"))
    base = config_factory(model, kv_heads="keep")
    plan = paramz.make_plan(model, "mup", base=base, base_width=64)
    shapes = {row.name: (row.base_shape, row.shape) for row in plan.rows}
    assert shapes["model.layers.0.self_attn.k_proj.weight"] == ((32, 64), (32, 128))
    one = config_of("Llama", **TEXT, num_key_value_heads=1)
    with pytest.raises(
        ValueError, match="num_key_value_heads = 1 at width 64 would be 1/2"
    ) as error:
        scaled_config(one, 32)
    assert "config_factory(model, kv_heads='keep'), base_width=32" in str(error.value)


def test_sizes_of_heads_that_have_several_parts_or_a_factor_of_their_own():
    """DeepSeek's have parts with and without positions; Gemma's logits are divided by sqrt(16)."""
    heads = {"qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
    config = config_of("DeepseekV3", **TEXT, **heads)
    scaled = scaled_config(config, 32, heads="size")
    half = {name: size // 2 for name, size in heads.items()}
    assert {name: getattr(scaled, name) for name in heads} == half
    assert (scaled.head_dim, scaled.qk_head_dim) == (4, 12)
    assert scaled_config(config, 32).qk_rope_head_dim == 8
    for own, then in ((16, 8), (24, 24)):
        gemma = config_of("Gemma2", **TEXT, head_dim=16, query_pre_attn_scalar=own)
        assert scaled_config(gemma, 32, heads="size").query_pre_attn_scalar == then


def test_what_one_part_takes_of_another_follows_that_part():
    sizes = {
        "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 16,
        "num_key_value_heads": 2, "vocab_size": 40,
    }  # fmt: skip
    config = config_of(
        "T5Gemma", encoder={**sizes, "hidden_size": 32}, decoder={**sizes, "hidden_size": 64}
    )
    scaled = scaled_config(config, 128)
    assert (scaled.encoder.hidden_size, scaled.decoder.cross_attention_hidden_size) == (64, 64)
    model = on_meta("T5GemmaForConditionalGeneration", scaled)
    roles = {row.name: row.role for row in paramz.make_plan(model, "mup", base=64).rows}
    assert roles["model.decoder.layers.0.cross_attn.k_proj.weight"] == "hidden"


def test_lists_of_sizes_that_stay_are_said():
    backbone = config_of("ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    config = config_of(
        "Detr", backbone=None, backbone_config=backbone, use_timm_backbone=False,
        use_pretrained_backbone=False, d_model=64,
    )  # fmt: skip
    left = fields_left(config, Sizes())
    assert "backbone_config.hidden_sizes = [8, 16]" in left


def test_what_stays_is_said_and_can_be_scaled():
    config = config_of(
        "DeepseekV3", **TEXT, kv_lora_rank=8, q_lora_rank=16, num_key_value_heads=4,
        first_k_dense_replace=1,
    )  # fmt: skip
    model = on_meta("DeepseekV3ForCausalLM", scaled_config(config, 128))
    notes = " ".join(paramz.make_plan(model, "mup", base=64).notes)
    assert "base=64 leaves these sizes of the config as they are: " in notes
    assert "kv_lora_rank = 8" in notes
    assert "q_lora_rank = 16" in notes
    assert "vocab" not in notes
    scaled = scaled_config(config, 128, also=("kv_lora_rank",), keep=("intermediate_size",))
    assert (scaled.kv_lora_rank, scaled.intermediate_size) == (16, 96)
    with pytest.raises(TypeError, match="DeepseekV3Config has no field kv_rank"):
        scaled_config(config, 128, also=("kv_rank",))
    for option in ("also", "keep"):
        for given in ({"n_routed_experts": 4}, "n_routed_experts"):
            with pytest.raises(TypeError, match=rf"{option}=\('n_routed_experts',\).*experts="):
                scaled_config(config, 128, **{option: given})
            with pytest.raises(TypeError, match=f"{option}=.* takes names of fields"):
                paramz.hf.config_factory(model, **{option: given})


def test_a_config_of_which_all_sizes_follow_has_no_note():
    config = config_of("Llama", **TEXT)
    plan = paramz.make_plan(on_meta("LlamaForCausalLM", config), "mup", base=32)
    assert plan.notes == ()


def test_key_value_heads_that_move_with_the_width_are_said_with_the_way_to_keep_them():
    config = config_of("Llama", **{**TEXT, "num_key_value_heads": 2})
    model = on_meta("LlamaForCausalLM", config)
    (note,) = paramz.make_plan(model, "mup", base=32).notes
    assert "num_key_value_heads = 1 for 2." in note and "kv_heads='keep'), base_width=32" in note
    kept = paramz.hf.config_factory(model, kv_heads="keep")
    assert paramz.make_plan(model, "mup", base=kept, base_width=32).notes == ()


def test_unequal_encoder_and_decoder_keep_their_ratio_or_are_told_apart():
    config = config_of(
        "Bart", d_model=64, encoder_layers=8, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4,
    )  # fmt: skip
    half = scaled_config(config, 64, depth=4)
    assert (half.encoder_layers, half.decoder_layers) == (4, 1)
    with pytest.raises(ValueError, match="decoder_layers = 2 would be 1/2 with encoder_layers = 2"):
        scaled_config(config, 64, depth=2)
    told = scaled_config(config, 64, depth={"encoder_layers": 2, "decoder_layers": 1})
    assert (told.encoder_layers, told.decoder_layers) == (2, 1)


def test_the_stages_of_a_swin_are_told():
    config = config_of("Swin", embed_dim=16, depths=[1, 1, 6], num_heads=[1, 2, 4])
    scaled = scaled_config(config, 128, depth={"depths": [1, 1, 3]})
    assert (scaled.embed_dim, scaled.hidden_size, scaled.num_heads) == (32, 128, [2, 4, 8])
    assert scaled.depths == [1, 1, 3]
    with pytest.raises(TypeError, match=r"depths = .1, 1, 6.: give depth=..depths"):
        scaled_config(config, 128, depth=4)
    with pytest.raises(TypeError, match="SwinConfig has no field stages"):
        scaled_config(config, 128, depth={"stages": [1]})


def test_kinds_of_layers_of_a_hybrid_follow_and_none_is_lost():
    config = config_of("NemotronH", **{**HYBRIDS["NemotronH"], "num_hidden_layers": 2})
    deeper = scaled_config(config, 64, depth=6)
    assert deeper.layers_block_type == config.layers_block_type * 3
    with pytest.raises(ValueError, match="leaves no block of kind"):
        scaled_config(config, 64, depth=1)


def test_the_width_of_the_text_counts_where_the_whole_has_a_number_of_its_own():
    text = transformers.GemmaConfig(
        hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=4
    )
    vision = transformers.SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_attention_heads=2, num_hidden_layers=2
    )
    config = transformers.PaliGemmaConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=64
    )
    assert config.hidden_size != 64  # PaliGemma's default, which no layer reads
    half = paramz.hf.scaled_config(config, width=32)
    assert (half.text_config.hidden_size, half.vision_config.hidden_size) == (32, 16)
