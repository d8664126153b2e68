"""What a Hugging Face config says of each of its blocks follows their number."""

import pytest
import torch
import transformers

from paramz.apply.hf import scaled_config

TINY = {
    "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 40, "pad_token_id": 0,
}  # fmt: skip
# Model, and the fields of its config.
BY_BLOCK = {
    "Llama4": (
        "Llama4ForCausalLM", "Llama4TextConfig", {"num_hidden_layers": 8, "num_local_experts": 2},
    ),
    "Llama4, every second": (
        "Llama4ForCausalLM", "Llama4TextConfig",
        {"num_hidden_layers": 8, "num_local_experts": 2, "interleave_moe_layer_step": 2},
    ),
    "SmolLM3": ("SmolLM3ForCausalLM", "SmolLM3Config", {"num_hidden_layers": 8}),
    "GPTNeo": (
        "GPTNeoForCausalLM", "GPTNeoConfig",
        {"num_layers": 4, "num_heads": 4, "attention_types": [[["global", "local"], 2]]},
    ),
    "Gemma3n": (
        "Gemma3nForCausalLM", "Gemma3nTextConfig",
        {
            "num_hidden_layers": 20, "num_kv_shared_layers": 10, "head_dim": 8,
            "intermediate_size": [64, 48] * 10, "activation_sparsity_pattern": [0.9, 0.0] * 10,
            "vocab_size_per_layer_input": 40, "hidden_size_per_layer_input": 8,
        },
    ),
    "Gemma4": ("Gemma4ForCausalLM", "Gemma4TextConfig", {"num_hidden_layers": 12, "head_dim": 8}),
    "Reformer": (
        "ReformerModel", "ReformerConfig",
        {"attn_layers": ["local", "lsh"] * 2, "attention_head_size": 8, "feed_forward_size": 64,
         "axial_pos_embds_dim": [8, 24]},
    ),
    "Zamba2": (
        "Zamba2ForCausalLM", "Zamba2Config",
        {"layers_block_type": ["mamba", "hybrid"] * 2, "num_hidden_layers": 4, "num_mem_blocks": 1,
         "mamba_d_state": 8, "mamba_headdim": 8, "n_mamba_heads": 8, "mamba_ngroups": 1},
    ),
    "Dinov2": (
        "Dinov2Backbone", "Dinov2Config", {"num_hidden_layers": 4, "out_indices": [2, 4]},
    ),
}  # fmt: skip


def tiny(name):
    model, kind, fields = BY_BLOCK[name]
    return getattr(transformers, model), getattr(transformers, kind)(**{**TINY, **fields})


def lists(config):
    """What has an entry for each block."""
    own = {n: v for n, v in vars(config).items() if isinstance(v, list | tuple)}
    return {n: list(v) for n, v in own.items() if len(v) == config.num_hidden_layers}


@pytest.mark.parametrize("name", BY_BLOCK)
def test_lists_by_block_keep_their_period_and_the_model_is_built(name):
    kind, config = tiny(name)
    depth, before = config.num_hidden_layers, lists(config)
    for new in (2 * depth, depth // 2):
        scaled = scaled_config(config, 32, depth=new)
        assert scaled.num_hidden_layers == new
        after = {n: list(getattr(scaled, n)) for n in before}
        numbers = {n for n, v in before.items() if v == list(range(depth))}
        assert after == {
            n: list(range(new)) if n in numbers else (2 * v)[:new] for n, v in before.items()
        }
        with torch.device("meta"):
            kind(scaled)
        assert type(scaled).from_dict(scaled.to_dict()).num_hidden_layers == new


def test_numbers_of_blocks_and_how_many_are_of_a_kind_follow():
    experts = scaled_config(tiny("Llama4, every second")[1], 32, depth=16)
    assert experts.moe_layers == [1, 3, 5, 7, 9, 11, 13, 15]
    assert scaled_config(tiny("Gemma3n")[1], 32, depth=10).num_kv_shared_layers == 5
    neo = scaled_config(tiny("GPTNeo")[1], 32, depth=2)
    assert neo.expand_attention_types_params(neo.attention_types) == neo.attention_layers
    global_head = scaled_config(tiny("Gemma4")[1], 32, depth=6).per_layer_config[5]
    assert (global_head.head_dim, tiny("Gemma4")[1].per_layer_config[11].head_dim) == (512, 512)
    hybrid = scaled_config(tiny("Zamba2")[1], 32, depth=8)
    assert hybrid.hybrid_layer_ids == [1, 3, 5, 7]
    eyes = scaled_config(tiny("Dinov2")[1], 32, depth=8)
    assert (eyes.out_indices, eyes.out_features) == ([4, 8], ["stage4", "stage8"])


@pytest.mark.parametrize(("heads", "own"), [("count", (2, 32)), ("size", (1, 64))])
def test_sizes_that_some_blocks_have_to_themselves_follow_the_width(heads, own):
    config = transformers.Gemma4TextConfig(
        **TINY, num_hidden_layers=6, head_dim=8, global_head_dim=32, num_global_key_value_heads=1,
        attention_k_eq_v=True,
    )  # fmt: skip
    layers = scaled_config(config, 64, heads=heads, depth=12).per_layer_config
    assert [(layers[i].num_key_value_heads, layers[i].head_dim) for i in (5, 11)] == [own, own]
    plain = (4, 8) if heads == "count" else (2, 16)
    assert (layers[0].num_key_value_heads, layers[0].head_dim) == plain


def test_a_number_that_is_told_takes_what_is_said_of_blocks_with_it():
    config = tiny("SmolLM3")[1]
    told = scaled_config(config, 32, depth={"num_hidden_layers": 4})
    assert told.no_rope_layers == [1, 1, 1, 0]
    own = scaled_config(config, 32, depth={"num_hidden_layers": 2, "no_rope_layers": [0, 1],
                                           "layer_types": ["full_attention"] * 2})  # fmt: skip
    assert (own.num_hidden_layers, own.no_rope_layers) == (2, [0, 1])


def test_stacks_of_nested_configs_are_told_by_path():
    config = transformers.CLIPConfig(
        text_config={"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4},
        vision_config={"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4},
    )
    with pytest.raises(ValueError, match="'vision_config.num_hidden_layers': ...") as refused:
        scaled_config(config, 32, depth=2)
    assert "vision_config.num_hidden_layers = 3 would be 3/2" in str(refused.value)
    told = {"text_config.num_hidden_layers": 2, "vision_config.num_hidden_layers": 1}
    scaled = scaled_config(config, 32, depth=told)
    assert scaled.text_config.num_hidden_layers == 2
    assert scaled.vision_config.num_hidden_layers == 1


REFUSED = {
    "a kind would be lost": ("SmolLM3", 2, "leaves no block of kind .*'no_rope_layers': ..."),
    "half a block": ("Gemma3n", 5, "num_kv_shared_layers = 10 would not be whole .*5/2"),
    "a place between blocks": ("Dinov2", 1, "_out_indices = .2, 4. would not be whole"),
    "another list when it is read": ("Gemma4", 15, "a saved Gemma4TextConfig would be read as"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_would_not_follow_is_refused_with_the_field_to_give(why):
    name, depth, said = REFUSED[why]
    with pytest.raises(ValueError, match=said):
        scaled_config(tiny(name)[1], 32, depth=depth)


def test_stages_as_a_tuple_are_told_too():
    with pytest.raises(TypeError, match=r"depths = .2, 2, 6, 2.: give depth=..depths"):
        scaled_config(transformers.SwinConfig(), 256, depth=2)
