"""The names of fields in Hugging Face configs: which follow the width, the depth, the experts.

Supporting another family of models is a matter of adding its names.
"""

from __future__ import annotations

import re

# Fields that grow in proportion to the width.
WIDTHS = (
    "hidden_size", "n_embd", "d_model", "dim", "word_embed_proj_dim", "embed_dim", "d_inner",
    "intermediate_size", "n_inner", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim",
    "moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size",
    "moe_shared_expert_intermediate_size", "ffn_hidden_size", "hidden_dim", "mlp_dim",
    "mamba_d_ssm", "lru_width", "attention_hidden_size", "emb_dim", "dff", "dim_ff",
    "dim_feedforward", "encoder_feedforward_dim", "intermediate_size_mlp",
    "dense_intermediate_size", "share_expert_dim", "shared_experts_intermediate_size",
    "expert_ffn_hidden_size",
    "feed_forward_size", "decoder_hidden_size", "decoder_intermediate_size",
    "speech_encoder_intermediate_size", "t2u_encoder_ffn_dim", "t2u_decoder_ffn_dim",
    "memory_attention_feed_forward_hidden_size", "vision_output_dim", "axial_pos_embds_dim",
    "patch_embeds_hidden_size", "embed_dim_per_stage", "backbone_channel_list", "num_pos_feats",
    "projector_input_dim", "projector_output_dim", "memory_attention_mlp_hidden_size",
    "memory_fuser_intermediate_dim",
)  # fmt: skip
# Those that follow only where they are the width: embeddings that may be factorised, and what takes
# or gives as many channels as the model has.
WIDTHS_IF_EQUAL = (
    "embedding_size", "embedding_dim", "d_embed", "attention_dim", "projection_size",
    "pooler_output_size", "decoder_in_channels", "codebook_dim", "flow_size", "upsample_groups",
    "t2u_variance_predictor_embed_dim", "ext_pw_out_channel", "depthwise_separable_out_channel",
    "nemo_conv_channels",
)  # fmt: skip
# Widths that one part of a model has from another, as what cross attention takes or a tower puts
# out: they follow where they are the width of a part. X-CLIP's mit_hidden_size is that of a
# projection, which stays, and Pix2Struct's patch_embed_hidden_size the number of a patch's pixels.
WIDTH_OF_A_PART = re.compile(
    r"(?<!^mit)(?<!^patch_embed)_hidden_size$|_hidden_dim$|^output_proj_dims$|(^|_)output_dim$"
    r"|^output_channels$|^vit_dim$|^adapter_(in|out)_dim$|^(adapter_)?input_size$|^condition_dim$|^hidden_size_global$"
    r"|^(mask_downsampler|memory_fuser)_embed_dim$|^text_projection_in_dim$"
)
# What a tower is mapped to: the text's width, as PaliGemma's, where no field of the second kind
# says that text and pictures are mapped to a space of their own, as CLIP's.
PROJECTION = "projection_dim"
CONTRASTS = ("logit_scale_init_value", "temperature_init_value")
# Sizes of embeddings that stand beside each other and are the width together, and how often.
WIDTH_IN_SHARES = {"coordinate_size": 4, "shape_size": 2}
HEADS = (
    "num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads",
    "num_encoder_attention_heads", "num_decoder_attention_heads", "decoder_num_heads",
    "cross_num_attention_heads", "decoder_self_attention_heads", "decoder_cross_attention_heads",
    "swa_num_attention_heads", "num_sliding_attention_heads", "conf_num_attention_heads",
    "speech_encoder_attention_heads", "t2u_encoder_attention_heads", "t2u_decoder_attention_heads",
    "num_attention_heads_per_layer", "linear_num_heads",
    "encoder_attention_heads", "decoder_attention_heads",
    "encoder_num_attention_heads", "decoder_num_attention_heads",
    "mamba_n_heads", "mamba_num_heads", "n_mamba_heads", "linear_num_value_heads",
    "linear_num_key_heads", "num_attention_heads_per_stage",
)  # fmt: skip
KV_HEADS = (
    "num_key_value_heads", "num_kv_heads", "kv_n_heads", "n_kv_heads", "num_query_groups",
    "encoder_num_key_value_heads", "decoder_num_key_value_heads", "cross_num_key_value_heads",
    "swa_num_key_value_heads", "num_key_value_heads_per_layer", "num_key_value_attention_heads",
)  # fmt: skip
HEAD_SIZES = (
    "head_dim", "d_kv", "d_head", "attention_head_dim", "attention_head_size", "mamba_d_head",
    "mamba_head_dim", "mamba_headdim", "linear_key_head_dim", "linear_value_head_dim",
    "linear_head_dim", "swa_head_dim", "cross_head_dim", "kv_channels", "qk_nope_head_dim",
    "qk_rope_head_dim", "qk_head_dim", "v_head_dim",
)  # fmt: skip
# Those that follow only where they are that of a head: Gemma divides logits by the root of it.
HEAD_SIZES_IF_EQUAL = ("query_pre_attn_scalar",)
# Nested configs whose width is that of the whole, even where that has a number of its own; and in
# this order where it has none.
TEXT_CONFIGS = ("text_config", "llm_config")
MAIN_CONFIGS = ("text_config", "decoder", "decoder_config", "encoder", "llm_config")
# Lists with an entry for every block.
KINDS = (
    "layer_types", "layers_block_type", "mlp_layer_types", "block_types", "no_rope_layers",
    "attention_layers", "attn_layers", "indexer_types", "activation_sparsity_pattern",
)  # fmt: skip
# Lists with the number of blocks of every stage.
STAGES = ("depths", "num_block_repeats")
# Lists of the numbers of some blocks, from zero on.
NUMBERS_OF_BLOCKS = re.compile(r"(?<!proj_)(layers|layer_ids|idxs|indexe?s|indices)$")
# Those after which something is taken out of the stack, whose number other modules depend on.
PLACES = re.compile(
    r"out_indices$|^deepstack_visual_indexes$|^intermediate_\w+_indices$|^subsample_layers$"
    r"|^target_layer_ids$"
)
# How many of the blocks are of a kind.
COUNTS_OF_BLOCKS = (
    "num_kv_shared_layers", "num_first_full_attention_layers", "num_last_full_attention_layers",
    "num_sparse_encoder_layers", "num_sparse_decoder_layers", "num_layers_per_stack",
)  # fmt: skip
DEPTHS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
    "num_decoder_layers", "encoder_num_hidden_layers", "decoder_num_hidden_layers",
)  # fmt: skip
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
# How many of them see each token; and experts without weights, among which routers choose as well.
ACTIVE_EXPERTS = (
    "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "moe_k",
)  # fmt: skip
EMPTY_EXPERTS = "zero_expert_num"
