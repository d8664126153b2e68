"""Hugging Face models of which some sizes stay while the width grows, as in released ones."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from transformers.models.dbrx.configuration_dbrx import DbrxAttentionConfig, DbrxFFNConfig
from zoo_hf import _IDS, _LLAMA, _NO_DROPOUT, _TEXT, VOCABULARY, causal, masked, translation


def _heads(width: int) -> int:
    return width // 16


def _llama(width: int, **more: Any) -> dict[str, Any]:
    return {
        **_LLAMA, "hidden_size": width, "intermediate_size": 2 * width,
        "num_attention_heads": _heads(width), "num_key_value_heads": 2, **more,
    }  # fmt: skip


def llama(width: int) -> torch.nn.Module:
    return hf.LlamaForCausalLM(hf.LlamaConfig(**_llama(width)))


def qwen3(width: int) -> torch.nn.Module:
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**_llama(width)))


def gemma3(width: int) -> torch.nn.Module:
    sizes = _llama(width, num_key_value_heads=1, tie_word_embeddings=True)
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**sizes, sliding_window=4))


def deepseek(width: int) -> torch.nn.Module:
    sizes = _llama(width, num_key_value_heads=_heads(width))
    del sizes["head_dim"]
    config = hf.DeepseekV3Config(
        **sizes, q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8,
        v_head_dim=16, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1,
        moe_intermediate_size=16, first_k_dense_replace=1, n_shared_experts=1,
    )  # fmt: skip
    return hf.DeepseekV3ForCausalLM(config)


def gpt_oss(width: int) -> torch.nn.Module:
    sizes = _llama(width, num_local_experts=4, num_experts_per_tok=2, sliding_window=4)
    return hf.GptOssForCausalLM(hf.GptOssConfig(**sizes))


def falcon(width: int) -> torch.nn.Module:
    config = hf.FalconConfig(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=2,
        num_attention_heads=_heads(width), multi_query=True, parallel_attn=True, bias=False,
        ffn_hidden_size=4 * width, tie_word_embeddings=False, **_IDS,
    )  # fmt: skip
    return hf.FalconForCausalLM(config)


def bigcode(width: int) -> torch.nn.Module:
    config = hf.GPTBigCodeConfig(
        vocab_size=VOCABULARY, n_embd=width, n_layer=2, n_head=_heads(width), n_positions=16,
        n_inner=2 * width, multi_query=True, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        tie_word_embeddings=False, **_IDS,
    )  # fmt: skip
    return hf.GPTBigCodeForCausalLM(config)


def dbrx(width: int, experts: int = 4) -> torch.nn.Module:
    # Its code asks for rope_theta, which the config class of this transformers no longer sets.
    attention = DbrxAttentionConfig(kv_n_heads=2, clip_qkv=8.0)
    attention.rope_theta = 10000.0
    config = hf.DbrxConfig(
        d_model=width, n_heads=_heads(width), n_layers=2, max_seq_len=32, vocab_size=VOCABULARY,
        attn_config=attention, pad_token_id=None,
        ffn_config=DbrxFFNConfig(
            ffn_hidden_size=2 * width, moe_num_experts=experts, moe_top_k=experts // 2,
        ),
    )  # fmt: skip
    return hf.DbrxForCausalLM(config)


def zamba(width: int) -> torch.nn.Module:
    heads = 2 * width // 16
    config = hf.ZambaConfig(
        vocab_size=VOCABULARY, hidden_size=width, attention_hidden_size=2 * width,
        attention_head_dim=16, intermediate_size=2 * width, num_hidden_layers=4,
        num_attention_heads=heads, num_key_value_heads=heads, n_mamba_heads=2, mamba_d_state=8,
        mamba_dt_rank=4, layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
        use_mamba_kernels=False, **_IDS,
    )  # fmt: skip
    return hf.ZambaForCausalLM(config)


def mamba2(width: int) -> torch.nn.Module:
    config = hf.Mamba2Config(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=2, state_size=8, expand=2,
        num_heads=2 * width // 16, head_dim=16, n_groups=1, chunk_size=8,
        tie_word_embeddings=False, **_IDS,
    )  # fmt: skip
    return hf.Mamba2ForCausalLM(config)


def _encoder(width: int, **more: Any) -> dict[str, Any]:
    return {
        **_TEXT, **_NO_DROPOUT, "hidden_size": width, "intermediate_size": 2 * width,
        "num_attention_heads": _heads(width), "embedding_size": 16, **more,
    }  # fmt: skip


def albert(width: int) -> torch.nn.Module:
    return hf.AlbertForMaskedLM(hf.AlbertConfig(**_encoder(width)))


def electra(width: int) -> torch.nn.Module:
    return hf.ElectraForMaskedLM(hf.ElectraConfig(**_encoder(width)))


def bart(width: int) -> torch.nn.Module:
    config = hf.BartConfig(
        vocab_size=VOCABULARY, d_model=width, encoder_layers=4, decoder_layers=2,
        encoder_attention_heads=_heads(width), decoder_attention_heads=_heads(width),
        encoder_ffn_dim=2 * width, decoder_ffn_dim=2 * width, max_position_embeddings=16,
        dropout=0.0, decoder_start_token_id=1, forced_eos_token_id=None, **_IDS,
    )  # fmt: skip
    return hf.BartForConditionalGeneration(config)


def clip(width: int) -> torch.nn.Module:
    sizes = {
        "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 1,
        "num_attention_heads": _heads(width),
    }  # fmt: skip
    text = {"vocab_size": VOCABULARY, "max_position_embeddings": 16, **_IDS}
    config = hf.CLIPConfig(
        text_config={**sizes, **text},
        vision_config={**sizes, "image_size": 8, "patch_size": 4},
        projection_dim=16,
    )
    return hf.CLIPModel(config)


def pairs() -> dict[str, Any]:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(4, VOCABULARY, (4, 8), generator=draw)
    ids[:, -1] = _IDS["eos_token_id"]
    return {
        "input_ids": ids, "pixel_values": torch.randn(4, 3, 8, 8, generator=draw),
        "return_loss": True,
    }  # fmt: skip


FIXED: dict[str, tuple[Any, Any]] = {
    "Llama, fixed keys": (llama, causal),
    "Qwen3, fixed keys": (qwen3, causal),
    "Gemma 3, one key head": (gemma3, causal),
    "DeepSeek-V3, fixed ranks": (deepseek, causal),
    "gpt-oss": (gpt_oss, causal),
    "Falcon-7B": (falcon, causal),
    "GPT-BigCode": (bigcode, causal),
    "Mamba 2": (mamba2, causal),
    "DBRX, two key heads": (dbrx, causal),
    "Zamba": (zamba, causal),
    "ALBERT": (albert, masked),
    "ELECTRA": (electra, masked),
    "BART": (bart, translation),
    "CLIP": (clip, pairs),
}
