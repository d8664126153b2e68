"""Hugging Face configs at another width, for the model families that name things differently."""

import pytest
import torch
from cases import gpt2, llama

import paramz
from paramz.apply.hf import config_factory, scaled_config


def test_llama_scales_the_number_of_heads_and_of_key_value_heads():
    config = llama(64).config
    half = scaled_config(config, 32)
    assert (half.hidden_size, half.intermediate_size) == (32, 64)
    assert (half.num_attention_heads, half.num_key_value_heads, half.head_dim) == (4, 2, 8)
    assert (half.num_hidden_layers, half.vocab_size) == (2, 40)
    assert config.hidden_size == 64  # the model's own config is left alone


def test_llama_may_scale_the_size_of_the_heads():
    half = scaled_config(llama(64).config, 32, heads="size")
    assert (half.num_attention_heads, half.num_key_value_heads, half.head_dim) == (8, 4, 4)


def test_gpt2_and_its_synonyms():
    config = scaled_config(gpt2(32).config, 64)
    assert (config.n_embd, config.hidden_size, config.n_head, config.n_inner) == (64, 64, 8, None)


def test_encoder_decoder():
    from transformers import T5Config

    config = T5Config(d_model=32, d_ff=64, d_kv=8, num_heads=4)
    count, size = scaled_config(config, 64), scaled_config(config, 64, heads="size")
    assert (count.d_model, count.d_ff, count.d_kv, count.num_heads) == (64, 128, 8, 8)
    assert (size.d_model, size.d_ff, size.d_kv, size.num_heads) == (64, 128, 16, 4)


def test_a_config_without_a_width():
    with pytest.raises(TypeError, match="object has no hidden_size: pass a factory as base="):
        scaled_config(object(), 32)


def test_the_factory_builds_the_models_own_class():
    base = config_factory(llama(64))(32)
    assert type(base) is type(llama(64))
    assert {n: p.shape for n, p in base.named_parameters()} == {
        n: p.shape for n, p in llama(32).named_parameters()
    }


def test_a_width_as_base_is_the_config_scaled():
    by_width = paramz.make_plan(llama(64), "mup", base=32)
    assert by_width.rows == paramz.make_plan(llama(64), "mup", base=llama).rows


def test_the_dtype_of_the_model_does_not_change_the_plan():
    assert paramz.make_plan(llama(64).to(torch.bfloat16), "mup", base=32) == paramz.make_plan(
        llama(64), "mup", base=32
    )
