"""Further Hugging Face models: hybrids, towers, mixtures, and those of a few other kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from zoo_fixed import pairs
from zoo_hf import _IDS, _LLAMA, _NO_DROPOUT, _TEXT, VOCABULARY, causal, images, masked

import paramz

_OWN_HEADS = {key: value for key, value in _LLAMA.items() if key != "head_dim"}
_TIED = {**_LLAMA, "tie_word_embeddings": True}
_TOWER = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4,
}  # fmt: skip
_NO_GPT_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_IMAGE_TOKEN = 5


def _scaled(kind: Any, config: Any) -> Callable[[int], torch.nn.Module]:
    """``width -> model`` from a config at width 64."""

    def build(width: int) -> torch.nn.Module:
        return kind(paramz.hf.scaled_config(config, width=width))

    return build


def gemma2() -> Any:
    return hf.Gemma2ForCausalLM, hf.Gemma2Config(**_TIED, sliding_window=4), causal


def phi3() -> Any:
    config = hf.Phi3Config(**_OWN_HEADS, resid_pdrop=0.0, embd_pdrop=0.0)
    return hf.Phi3ForCausalLM, config, causal


def olmo2() -> Any:
    return hf.Olmo2ForCausalLM, hf.Olmo2Config(**_OWN_HEADS), causal


def qwen2_moe() -> Any:
    config = hf.Qwen2MoeConfig(
        **_OWN_HEADS, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
        shared_expert_intermediate_size=64,
    )  # fmt: skip
    return hf.Qwen2MoeForCausalLM, config, causal


def llama4() -> Any:
    config = hf.Llama4TextConfig(
        **_OWN_HEADS, num_local_experts=4, intermediate_size_mlp=128, interleave_moe_layer_step=1,
    )  # fmt: skip
    return hf.Llama4ForCausalLM, config, causal


def gptj() -> Any:
    config = hf.GPTJConfig(
        vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, n_positions=16, rotary_dim=8,
        **_NO_GPT_DROPOUT, **_IDS,
    )  # fmt: skip
    return hf.GPTJForCausalLM, config, causal


def bloom() -> Any:
    config = hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=64, n_layer=2, n_head=4, **_IDS)
    return hf.BloomForCausalLM, config, causal


def distilbert() -> Any:
    config = hf.DistilBertConfig(
        vocab_size=VOCABULARY, dim=64, hidden_dim=128, n_layers=2, n_heads=4, pad_token_id=0,
        max_position_embeddings=16, dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    return hf.DistilBertForMaskedLM, config, masked


def deberta() -> Any:
    config = hf.DebertaV2Config(
        **_TEXT, **_NO_DROPOUT, relative_attention=True, pos_att_type=["p2c", "c2p"],
        position_buckets=4, type_vocab_size=0, share_att_key=True, norm_rel_ebd="layer_norm",
    )  # fmt: skip
    return hf.DebertaV2ForMaskedLM, config, masked


def rwkv() -> Any:
    config = hf.RwkvConfig(
        vocab_size=VOCABULARY, context_length=16, hidden_size=64, num_hidden_layers=2, **_IDS
    )
    return hf.RwkvForCausalLM, config, causal


def jamba() -> Any:
    config = hf.JambaConfig(
        **_LLAMA, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
        expert_layer_offset=1, num_experts=4, num_experts_per_tok=2, mamba_d_state=4,
        mamba_expand=2, mamba_dt_rank=4, use_mamba_kernels=False,
    )  # fmt: skip
    return hf.JambaForCausalLM, config, causal


def zamba2() -> Any:
    sizes = {**_TEXT, "num_hidden_layers": 3, "num_key_value_heads": 4}
    config = hf.Zamba2Config(
        **sizes, mamba_d_state=8, mamba_ngroups=1, n_mamba_heads=8, mamba_expand=2, chunk_size=8,
        layers_block_type=["mamba", "hybrid", "mamba"], num_mem_blocks=1, adapter_rank=8,
        use_mem_rope=True,
    )  # fmt: skip
    return hf.Zamba2ForCausalLM, config, causal


def siglip() -> Any:
    text = {"vocab_size": VOCABULARY, "max_position_embeddings": 16, **_IDS}
    config = hf.SiglipConfig(
        text_config={**_TOWER, **text}, vision_config={**_TOWER, "image_size": 8, "patch_size": 4}
    )
    return hf.SiglipModel, config, pairs


def llava() -> Any:
    vision = {**_TOWER, "num_hidden_layers": 2, "image_size": 8, "patch_size": 4}
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**vision), text_config=hf.LlamaConfig(**_LLAMA),
        image_token_index=_IMAGE_TOKEN, vision_feature_layer=-1, projector_hidden_act="gelu",
    )  # fmt: skip
    return hf.LlavaForConditionalGeneration, config, pictures_and_text


def pictures_and_text() -> dict[str, torch.Tensor]:
    given = pairs()
    ids = given["input_ids"].where(given["input_ids"] != _IMAGE_TOKEN, _IMAGE_TOKEN + 1)
    ids[:, :4] = _IMAGE_TOKEN  # one for each patch
    return {"input_ids": ids, "pixel_values": given["pixel_values"], "labels": ids}


def swin(width: int) -> torch.nn.Module:
    config = hf.SwinConfig(
        image_size=8, patch_size=1, embed_dim=width, depths=[2, 1], window_size=2, num_labels=4,
        num_heads=[width // 16, width // 8], mlp_ratio=2.0, drop_path_rate=0.0,
    )  # fmt: skip
    return hf.SwinForImageClassification(config)


def segformer(width: int) -> torch.nn.Module:
    config = hf.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[width // 2, width],
        patch_sizes=[3, 3], strides=[2, 2], num_attention_heads=[width // 32, width // 16],
        mlp_ratios=[2, 2], decoder_hidden_size=width, num_labels=4, drop_path_rate=0.0,
        classifier_dropout_prob=0.0, **_NO_DROPOUT,
    )  # fmt: skip
    return hf.SegformerForSemanticSegmentation(config)


def maps_of_classes() -> dict[str, torch.Tensor]:
    given = images()
    return {**given, "labels": given["labels"][:, None, None].expand(-1, 8, 8)}


def convnext(width: int) -> torch.nn.Module:
    config = hf.ConvNextConfig(
        hidden_sizes=[width, 2 * width], depths=[1, 1], num_stages=2, patch_size=2, num_labels=4
    )
    return hf.ConvNextForImageClassification(config)


def nllb_moe() -> Any:
    config = hf.NllbMoeConfig(
        vocab_size=VOCABULARY, d_model=64, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128,
        decoder_ffn_dim=128, num_experts=2, encoder_sparse_step=1, decoder_sparse_step=1,
        max_position_embeddings=16, dropout=0.0, expert_capacity=8, **_IDS,
    )  # fmt: skip
    return hf.NllbMoeForConditionalGeneration, config, causal


def _configured(make: Callable[[], Any]) -> tuple[Any, Any]:
    kind, config, batch = make()
    return _scaled(kind, config), batch


MORE: dict[str, tuple[Any, Any]] = {
    "Gemma 2": _configured(gemma2),
    "Phi-3": _configured(phi3),
    "OLMo 2": _configured(olmo2),
    "Qwen2-MoE": _configured(qwen2_moe),
    "Llama 4": _configured(llama4),
    "NLLB-MoE": _configured(nllb_moe),
    "GPT-J": _configured(gptj),
    "BLOOM": _configured(bloom),
    "DistilBERT": _configured(distilbert),
    "DeBERTa v2": _configured(deberta),
    "RWKV": _configured(rwkv),
    "Jamba": _configured(jamba),
    "Zamba 2": _configured(zamba2),
    "SigLIP": _configured(siglip),
    "LLaVA": _configured(llava),
    "Swin": (swin, images),
    "SegFormer": (segformer, maps_of_classes),
    "ConvNeXt, Hugging Face": (convnext, images),
}


# ---- Those that paramz refuses, with a suggestion to paste in ------------------------------------


def xlnet(width: int) -> torch.nn.Module:
    config = hf.XLNetConfig(
        vocab_size=VOCABULARY, d_model=width, n_layer=2, n_head=width // 16, d_inner=2 * width,
        dropout=0.0, **_IDS,
    )  # fmt: skip
    return hf.XLNetLMHeadModel(config)


def recurrent_gemma() -> Any:
    sizes = {**_OWN_HEADS, "num_hidden_layers": 3, "num_key_value_heads": 1}
    config = hf.RecurrentGemmaConfig(**sizes, lru_width=64, attention_window_size=4)
    return hf.RecurrentGemmaForCausalLM, config, causal


def wav2vec2(width: int) -> torch.nn.Module:
    config = hf.Wav2Vec2Config(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=1, pad_token_id=0,
        num_attention_heads=width // 16, intermediate_size=2 * width, conv_dim=(16, 16),
        conv_stride=(5, 2), conv_kernel=(10, 3), num_feat_extract_layers=2,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4, mask_time_prob=0.0,
        hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0,
        final_dropout=0.0, layerdrop=0.0,
    )  # fmt: skip
    return hf.Wav2Vec2ForCTC(config)


def sounds() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "input_values": torch.randn(2, 400, generator=draw),
        "labels": torch.tensor([[5, 6, 7], [8, 9, 5]]),
    }


REFUSED: dict[str, tuple[Any, Any]] = {
    "XLNet": (xlnet, causal),
    "RecurrentGemma": _configured(recurrent_gemma),
    "wav2vec 2": (wav2vec2, sounds),
}
