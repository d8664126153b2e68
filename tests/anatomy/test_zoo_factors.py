"""Factors in a model's own code that move with width: Gemma's embedding, T5's tied readout."""

import pytest
import torch
import zoo_hf
from transformers import BartConfig, BartForConditionalGeneration, GemmaForCausalLM

import paramz

WIDTH = 128


def planned(family, **changes):
    kind, config, batch = zoo_hf.FAMILIES[family]()
    for name, value in changes.items():
        setattr(config, name, value)
    model = kind(paramz.hf.scaled_config(config, width=WIDTH))
    return model, paramz.parametrize_(model, "mup", base=zoo_hf.BASE), batch()


def test_gemmas_embedding_keeps_the_factor_of_the_base():
    model, plan, batch = planned("Gemma")
    embed = model.model.embed_tokens
    assert [(s.attribute, s.plain, s.value) for s in plan.attention] == [
        ("embed_scale", WIDTH**0.5, zoo_hf.BASE**0.5)
    ]
    out = embed(batch["input_ids"])
    assert torch.allclose(out, embed.weight[batch["input_ids"]] * zoo_hf.BASE**0.5)
    assert "model.embed_tokens: embed_scale 11.31 -> 8" in str(plan.summary())
    paramz.remove_(model)
    assert embed.embed_scale == embed.scalar_embed_scale == pytest.approx(WIDTH**0.5)


def test_plain_schemes_leave_the_factor_in_the_code_alone():
    kind, config, _ = zoo_hf.gemma()
    model = kind(paramz.hf.scaled_config(config, width=WIDTH))
    assert paramz.make_plan(model, "sp", base=zoo_hf.BASE).attention == ()


def test_an_untied_gemma_folds_the_factor_into_its_embedding():
    model, _, batch = planned("Gemma", tie_word_embeddings=False)
    before = model(**batch).logits
    paramz.fold_(model)
    plain = GemmaForCausalLM(model.config)
    plain.load_state_dict(model.state_dict())
    assert torch.allclose(before, plain(**batch).logits, atol=1e-6)


def test_a_tied_one_folds_into_its_table_and_its_last_norm():
    model, _, batch = planned("Gemma")
    before = model(**batch).logits
    paramz.fold_(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    plain = GemmaForCausalLM(model.config)
    plain.load_state_dict(model.state_dict())
    assert torch.allclose(before, plain(**batch).logits, atol=1e-6)


def test_bart_has_the_factor_as_a_float_on_a_shared_embedding():
    config = BartConfig(
        vocab_size=40, d_model=WIDTH, encoder_layers=1, decoder_layers=1, scale_embedding=True,
        encoder_ffn_dim=WIDTH, decoder_ffn_dim=WIDTH, encoder_attention_heads=4,
        decoder_attention_heads=4, max_position_embeddings=16,
    )  # fmt: skip
    model = BartForConditionalGeneration(config)
    plan = paramz.parametrize_(model, "mup", base=zoo_hf.BASE)
    scales = [s for s in plan.attention if s.attribute == "embed_scale"]
    assert scales
    assert {s.value for s in scales} == {zoo_hf.BASE**0.5}
    assert model.model.encoder.embed_tokens.embed_scale == zoo_hf.BASE**0.5


def test_t5_divides_by_the_root_of_the_width_already():
    _, plan, _ = planned("T5")
    assert plan.multipliers == {"lm_head": pytest.approx(2**-0.5)}
