"""Sizes that one part of a Hugging Face config has from another follow it; others stay."""

import pytest
import torch
import transformers

import paramz
from paramz.anatomy.hf_sizes import Sizes, fields_left, main_width
from paramz.apply.hf import scaled_config

TEXT = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
        "num_attention_heads": 4, "vocab_size": 40}  # fmt: skip
VISION = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 1,
          "num_attention_heads": 4, "image_size": 32, "patch_size": 8}  # fmt: skip


def of(name, **fields):
    return getattr(transformers, f"{name}Config")(**fields)


def at(config, path):
    for part in path.split("."):
        config = getattr(config, part)
    return config


# What is built -> the field by path, and what it is at twice the width.
FOLLOW = {
    "ViT": (lambda: of("ViT", **VISION), "pooler_output_size", 192),
    "RTDetr": (lambda: of("RTDetr"), "decoder_in_channels", [512] * 3),
    "Clap": (lambda: of("Clap"), "audio_config.patch_embeds_hidden_size", 192),
    "SAM": (lambda: of("Sam"), "vision_config.output_channels", 512),
    "SAM's positions": (lambda: of("Sam"), "vision_config.num_pos_feats", 256),
    "SAM 2": (lambda: of("Sam2HieraDet"), "num_attention_heads_per_stage", [2, 4, 8, 16]),
    "SAM 2's stages": (lambda: of("Sam2HieraDet"), "embed_dim_per_stage", [192, 384, 768, 1536]),
    "Encodec": (lambda: of("Encodec"), "codebook_dim", 256),
    "Mimi": (lambda: of("Mimi"), "upsample_groups", 1024),
    "Moshi": (lambda: of("Moshi"), "depth_decoder_config.input_size", 8192),
    "Omni": (lambda: of("Qwen2_5OmniThinker"), "audio_config.output_dim", 7168),
    "Llama 4": (lambda: of("Llama4"), "vision_config.projector_input_dim", 8192),
    "PaliGemma": (
        lambda: of(
            "PaliGemma", text_config=transformers.GemmaConfig(**TEXT).to_dict(), projection_dim=64
        ),
        "vision_config.projection_dim",
        128,
    ),
    "LayoutLMv3": (
        lambda: of("LayoutLMv3", **{**TEXT, "hidden_size": 96}, coordinate_size=16, shape_size=16),
        "shape_size",
        32,
    ),
}


@pytest.mark.parametrize("name", FOLLOW)
def test_sizes_that_two_parts_share_follow(name):
    build, path, expected = FOLLOW[name]
    config = build()
    found = at(scaled_config(config, 2 * main_width(config)), path)
    assert (list(found) if isinstance(found, list | tuple) else found) == expected


def test_pictures_and_spaces_of_their_own_stay():
    patches = of("Pix2StructVision", hidden_size=768, patch_embed_hidden_size=768)
    assert scaled_config(patches, 384).patch_embed_hidden_size == 768  # pixels of a patch
    clip = of("CLIP", text_config=TEXT, vision_config=VISION, projection_dim=64)
    half = scaled_config(clip, 32)
    assert (half.text_config.hidden_size, half.projection_dim) == (32, 64)
    boxes = of("LayoutLMv3", **TEXT, coordinate_size=16, shape_size=16)  # do not make up 64
    assert scaled_config(boxes, 32).shape_size == 16
    prompts = of("XCLIP")
    assert scaled_config(prompts, 256).vision_config.mit_hidden_size == prompts.projection_dim


def test_the_width_of_a_model_of_several_towers_is_that_of_its_text():
    config = of("Qwen2_5Omni")
    assert main_width(config) == config.get_text_config().hidden_size == 3584
    assert main_width(config) != config.thinker_config.audio_config.hidden_size


def test_the_pooler_of_a_vit_maps_width_to_width():
    def build(width):
        config = of("ViT", **VISION)
        return transformers.ViTModel(scaled_config(config, width))

    with torch.device("meta"):
        model = build(192)
    roles = {row.name: row.role for row in paramz.make_plan(model, "mup", base=96).rows}
    assert roles["pooler.dense.weight"] == "hidden"


def test_the_size_of_a_head_that_a_config_computes_follows_by_itself():
    config = of("Falcon", hidden_size=64, num_attention_heads=4, num_hidden_layers=1)
    scaled = scaled_config(config, 128, heads="size")
    assert (scaled.num_attention_heads, scaled.head_dim) == (4, 32)


def test_channels_and_filters_that_stay_are_said():
    audio = of("Wav2Vec2", hidden_size=64, num_attention_heads=4, conv_dim=(32,) * 7)
    assert any(said.startswith("conv_dim = (32,") for said in fields_left(audio, Sizes()))
    assert "num_filters = 32" in fields_left(of("Encodec"), Sizes())
    assert not [said for said in fields_left(of("ViT"), Sizes()) if "channels" in said]


# Model -> its config, and the paths of its numbers of experts and of active ones.
EXPERTS = {
    "Llama4": (lambda: of("Llama4"), "text_config.num_local_experts",
               "text_config.num_experts_per_tok"),
    "Dbrx": (lambda: of("Dbrx", ffn_config={"moe_num_experts": 8, "moe_top_k": 2}),
             "ffn_config.moe_num_experts", "ffn_config.moe_top_k"),
    "Ernie": (lambda: of("Ernie4_5_Moe"), "moe_num_experts", "moe_k"),
    "Aria": (lambda: of("AriaText", moe_num_experts=8), "moe_num_experts", "moe_topk"),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_are_found_where_each_config_has_them(name):
    build, number, active = EXPERTS[name]
    config = build()
    scaled = scaled_config(config, main_width(config), experts=2 * at(config, number))
    for path in (number, active):
        assert at(scaled, path) == 2 * at(config, path)


def test_experts_without_weights_keep_their_share():
    config = of("LongcatFlash", n_routed_experts=8, moe_topk=4, zero_expert_num=4)
    half = scaled_config(config, main_width(config), experts=4)
    assert (half.n_routed_experts, half.moe_topk, half.zero_expert_num) == (4, 2, 2)
    with pytest.raises(ValueError, match="3/2 for 4 without weights.. Multiples of 2 keep"):
        scaled_config(config, main_width(config), experts=3)


def test_experts_of_which_a_config_says_no_active_number_need_a_factory():
    config = of("SwitchTransformers", num_experts=8)
    with pytest.raises(TypeError, match="no field that says how many experts see a token.*factory"):
        scaled_config(config, main_width(config), experts=4)


def test_key_value_heads_that_stay_are_shared_by_as_many_or_more_heads_of_queries():
    sizes = {"num_hidden_layers": 1, "vocab_size": 40, "hidden_size": 64}
    config = of("Llama", **sizes, num_attention_heads=8, num_key_value_heads=4)
    assert scaled_config(config, 32, kv_heads="keep").num_attention_heads == 4
    with pytest.raises(ValueError, match="2 heads of queries cannot share num_key_value_heads = 4"):
        scaled_config(config, 16, kv_heads="keep")
    with pytest.raises(ValueError, match="6 heads .* Take a multiple of 32 as width"):
        scaled_config(config, 48, kv_heads="keep")
    one_for_all = of("Falcon", **sizes, num_attention_heads=8)  # its number is not read
    assert scaled_config(one_for_all, 32, kv_heads="keep").num_attention_heads == 4
