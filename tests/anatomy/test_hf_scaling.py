"""Hugging Face models as targets of a shallower base with fewer experts, by their config alone."""

import pytest
import torch

import paramz
from paramz.apply.hf import config_factory, scaled_config


def mixtral(**options):
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6, "vocab_size": 40,
        "num_attention_heads": 8, "num_key_value_heads": 4, "num_local_experts": 8,
        "num_experts_per_tok": 4,
    }  # fmt: skip
    return MixtralForCausalLM(MixtralConfig(**{**sizes, **options}))


def test_a_wider_and_deeper_model_of_more_experts():
    torch.manual_seed(0)
    model = mixtral()
    base = config_factory(model, depth=2, experts=4)
    plan = paramz.parametrize_(model, "mup+completep+moe", base=base, base_width=32)
    down = next(row for row in plan.rows if row.name.endswith("layers.5.mlp.experts.down_proj"))
    assert down.ratios == {
        "fan_in": 2.0, "fan_out": 2.0, "experts": 2.0, "top_k": 2.0, "depth": 3.0,
    }  # fmt: skip
    assert down.ends
    std = float(model.get_parameter(down.name).detach().std())
    assert std == pytest.approx(0.02 * 2**-0.5 / 3, rel=0.05)
    assert torch.isfinite(model(torch.arange(8)[None]).logits).all()


def test_kinds_of_blocks_follow_the_depth():
    from transformers import Gemma2Config

    config = Gemma2Config(hidden_size=64, num_hidden_layers=4, num_attention_heads=4, head_dim=16)
    for depth in (2, 6):
        scaled = scaled_config(config, 64, depth=depth)
        assert scaled.num_hidden_layers == len(scaled.layer_types) == depth
        assert scaled.layer_types[:2] == config.layer_types[:2]


def test_what_a_config_does_not_have():
    from transformers import LlamaConfig

    with pytest.raises(TypeError, match="LlamaConfig has no number of experts .looked for num_loc"):
        scaled_config(LlamaConfig(), 1024, experts=4)
    with pytest.raises(ValueError, match="num_local_experts = 3 would let 3/2 experts see a token"):
        scaled_config(mixtral().config, 64, experts=3)


def test_experts_of_which_fewer_than_one_would_be_active_name_the_ways_out():
    config = mixtral(num_local_experts=16, num_experts_per_tok=2).config
    with pytest.raises(ValueError, match="Multiples of 8 keep that share; or keep=.'num_exp"):
        scaled_config(config, 64, experts=4)
    kept = scaled_config(config, 64, experts=4, keep=("num_experts_per_tok",))
    assert (kept.num_local_experts, kept.num_experts_per_tok) == (4, 2)
    with pytest.raises(ValueError, match="would let 2 experts see a token, where 2 of 16"):
        scaled_config(config, 64, experts=1, keep=("num_experts_per_tok",))
