"""Hugging Face models, tiny and built from configs: what a user has, with no line changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers as hf

VOCABULARY = 40
LENGTH = 8
BATCH = 4
BASE = 64  # the width at which the configs below are written


def _tokens(rows: int = BATCH, length: int = LENGTH) -> torch.Tensor:
    # Not 0 to 3, which mean padding, start and end to some of the models.
    return torch.randint(4, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


def causal() -> dict[str, torch.Tensor]:
    """A batch for a causal or masked language model."""
    return {"input_ids": _tokens(), "labels": _tokens()}


def masked() -> dict[str, torch.Tensor]:
    ids = _tokens()
    return {"input_ids": ids.where(torch.arange(LENGTH) % 3 > 0, 4), "labels": ids}


def translation() -> dict[str, torch.Tensor]:
    return {"input_ids": _tokens(), "labels": _tokens(length=5)}


def images() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "pixel_values": torch.randn(8, 3, 8, 8, generator=draw),
        "labels": torch.arange(8) % 4,
    }


def speech() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "input_features": torch.randn(BATCH, 8, 16, generator=draw),
        "labels": _tokens(length=5),
    }


_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": BASE,
    "intermediate_size": 2 * BASE,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
    **_IDS,
}
_LLAMA = {**_TEXT, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": False}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def llama() -> Any:
    return hf.LlamaForCausalLM, hf.LlamaConfig(**_LLAMA), causal


def qwen3() -> Any:
    return hf.Qwen3ForCausalLM, hf.Qwen3Config(**_LLAMA), causal


def gemma() -> Any:
    config = hf.GemmaConfig(**{**_LLAMA, "tie_word_embeddings": True})
    return hf.GemmaForCausalLM, config, causal


def mistral() -> Any:
    return hf.MistralForCausalLM, hf.MistralConfig(**_LLAMA, sliding_window=4), causal


def gpt2() -> Any:
    config = hf.GPT2Config(
        vocab_size=VOCABULARY, n_embd=BASE, n_layer=2, n_head=4, n_positions=16,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **_IDS,
    )  # fmt: skip
    return hf.GPT2LMHeadModel, config, causal


def gpt_neox() -> Any:
    config = hf.GPTNeoXConfig(**_TEXT, tie_word_embeddings=False)
    return hf.GPTNeoXForCausalLM, config, causal


def opt() -> Any:
    config = hf.OPTConfig(
        vocab_size=VOCABULARY, hidden_size=BASE, ffn_dim=2 * BASE, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=16, word_embed_proj_dim=BASE,
        dropout=0.0, **_IDS,
    )  # fmt: skip
    return hf.OPTForCausalLM, config, causal


def bert() -> Any:
    return hf.BertForMaskedLM, hf.BertConfig(**_TEXT, **_NO_DROPOUT), masked


def roberta() -> Any:
    return hf.RobertaForMaskedLM, hf.RobertaConfig(**_TEXT, **_NO_DROPOUT), masked


def t5() -> Any:
    config = hf.T5Config(
        vocab_size=VOCABULARY, d_model=BASE, d_ff=2 * BASE, d_kv=16, num_heads=4, num_layers=2,
        dropout_rate=0.0, decoder_start_token_id=0, **_IDS,
    )  # fmt: skip
    return hf.T5ForConditionalGeneration, config, translation


def vit() -> Any:
    config = hf.ViTConfig(
        hidden_size=BASE, intermediate_size=2 * BASE, num_hidden_layers=2, num_attention_heads=4,
        image_size=8, patch_size=4, num_labels=4, **_NO_DROPOUT,
    )  # fmt: skip
    return hf.ViTForImageClassification, config, images


def mixtral() -> Any:
    config = hf.MixtralConfig(**_LLAMA, num_local_experts=4, num_experts_per_tok=2)
    return hf.MixtralForCausalLM, config, causal


def mamba() -> Any:
    config = hf.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=BASE, num_hidden_layers=2, state_size=4, **_IDS
    )
    return hf.MambaForCausalLM, config, causal


def whisper() -> Any:
    config = hf.WhisperConfig(
        vocab_size=VOCABULARY, d_model=BASE, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=2 * BASE,
        decoder_ffn_dim=2 * BASE, num_mel_bins=8, max_source_positions=8, max_target_positions=16,
        decoder_start_token_id=1, begin_suppress_tokens=None, suppress_tokens=None, **_IDS,
    )  # fmt: skip
    return hf.WhisperForConditionalGeneration, config, speech


FAMILIES: dict[str, Callable[[], Any]] = {
    "Llama": llama,
    "Qwen3": qwen3,
    "Gemma": gemma,
    "Mistral": mistral,
    "GPT-2": gpt2,
    "GPT-NeoX": gpt_neox,
    "OPT": opt,
    "BERT": bert,
    "RoBERTa": roberta,
    "T5": t5,
    "ViT": vit,
    "Mixtral": mixtral,
    "Mamba": mamba,
    "Whisper": whisper,
}


def model(family: str, width: int = BASE, heads: str = "count") -> torch.nn.Module:
    """The model of a family at a width, as its config scaled."""
    import paramz

    kind, config, _ = FAMILIES[family]()
    return kind(paramz.hf.scaled_config(config, width=width, heads=heads))


def factory(family: str, heads: str = "count") -> Callable[[int], torch.nn.Module]:
    """``width -> model`` of a family."""
    return partial(model, family, heads=heads)
