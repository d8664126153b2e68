"""The names by which other libraries call things: attributes, submodules, classes.

Everything that paramz recognises by its name stands here (fields of Hugging Face configs in
`paramz.anatomy.hf_names`), so supporting another library's layer is a matter of adding its name.
"""

from __future__ import annotations

import re

# ---- Classes -------------------------------------------------------------------------------------

# transformers' linear layer that stores its weight as (in, out).
TRANSPOSED_LINEAR = "Conv1D"
# torch's tensors that are spread over devices, whose module takes long to import.
SHARDED_TENSOR = "DTensor"
# RMS norms of transformers and others: how the class's name ends, and where they keep epsilon.
RMS_NORM = "RMSNorm"
NORM_EPSILONS = ("variance_epsilon", "eps")
# transformers' routers of experts, whose weight is (experts, d).
ROUTER_CLASSES = ("Router", "Gate")  # how the class's name ends

# Modules that compute an activation function -> the function.
ACTIVATIONS = {
    "GELU": "gelu",
    "GELUActivation": "gelu",
    "GELUTanh": "gelu",
    "NewGELUActivation": "gelu",
    "PytorchGELUTanh": "gelu",
    "ReLU": "relu",
    "SiLU": "silu",
    "SiLUActivation": "silu",
}

# ---- Parameters ----------------------------------------------------------------------------------

# Maps of PEFT from a frozen layer's input into the rank.
FROZEN_INPUT = ("lora_A", "lora_embedding_A")
# Rows of a table or readout that PEFT trains in their place, in a dict beside that layer, and where
# layers of PEFT keep the layer that they are around.
TOKEN_ROWS = "trainable_tokens_delta"
WRAPPED_LAYER = "base_layer"
# The layer of which a copy is trained, and those copies.
COPIED_LAYER, COPIES = "original_module", "modules_to_save"
# What stands behind a layer's own path in paths of what PEFT puts around it.
WRAPPED_IN = r"[.](base_layer|original_module|modules_to_save|token_adapter|lora_[A-Z])\b"
# Adapters: the factors into the rank and out of it, as PEFT's layers keep them by adapter.
EMBEDDING_DOWN = "lora_embedding_A"
ADAPTER_PAIRS = (("lora_A", "lora_B"), (EMBEDDING_DOWN, "lora_embedding_B"))
# Those of paramz.adapters: pools of rows of A and of columns of B, and weights between singular
# vectors, (vectors, entries); where a layer keeps its rank and how many layers use a row of a pool;
# and what makes the same adapters at another rank.
ADAPTER_POOLS = ("mos_A", "mos_B")
ADAPTER_ENTRIES = "svft_M"
ADAPTER_RANK = "adapter_rank"
ADAPTER_USES = "adapter_uses"
ADAPTER_AT_RANK = "at_rank"
# Gains of adapters -> their axis of the rank; None where they have none (VeRA, DoRA, IA3).
ADAPTER_GAINS = {
    "vera_lambda_d": 0, "vera_lambda_b": None, "lora_magnitude_vector": None, "ia3_l": None,
}  # fmt: skip
ADDED_GAIN = "vera_lambda_b"  # the one that multiplies what an adapter adds
ADAPTER_SCALING = "scaling"
ADAPTER_CONFIGS = "peft_config"
# Ways of drawing LoRA's factors that take what they make off the weights that it is put on.
INITS_OF_WEIGHTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Kinds of PEFT that the table for adapters has rules for over ranks, and why others have none.
ADAPTER_KINDS = (
    "LORA", "VERA", "IA3", "ADALORA", "LOHA", "LOKR", "VBLORA", "OFT", "BOFT", "MISS",
)  # fmt: skip
ADAPTERS_WITHOUT_RULE = {"XLORA": "it mixes adapters that are trained already"}
# Variants of PEFT's LoRA, by the field of its config that asks for them, and why they have none.
LORA_WITHOUT_RULE = {
    "kasa_config": "KaSA trains a diagonal that starts at random between A and B, and takes as "
    "many directions off the trained weight as the rank counts",
    "monteclora_config": "it trains priors of its own, from which it draws changes of A",
    "arrow_config": "Arrow routes among adapters that are trained already",
}
# Kinds that have no rule over width, and why.
ADAPTERS_OF_ONE_WIDTH = {
    "LOHA": "entries of two drawn matrices are multiplied, so its steps are not of low rank",
    "LOKR": "the sizes of both its factors follow from that of the layer",
    "VBLORA": "a wider layer mixes more vectors from the same bank",
}
# Kinds that have none under rslora, as a factor before another moves by steps that add up.
ADAPTERS_THAT_ADD_UP = ("ADALORA", "LOHA")
# Learned tables that users and libraries keep as bare parameters, one row per position or token.
TABLES = (
    "pos_emb", "pos_embed", "pos_embedding", "position_enc", "position_embeddings",
    "positional_embedding",
    # One row per distance between two positions, one number for each head: Swin, BEiT, timm.
    "relative_position_bias_table",
    # Learned tokens beside those of the input: registers, queries, latents.
    "reg_token", "register_tokens", "query_tokens", "latents",
)  # fmt: skip
# What PyTorch Geometric's attention multiplies features by and sums, (1, heads, channels).
ATTENTION_VECTORS = ("att", "att_src", "att_dst", "att_edge", "att_l", "att_r")
# Mamba's decay rates, one row of a fixed state per channel: (d, state).
ENTRYWISE = ("A_log",)

# ---- mup and unit_scaling ------------------------------------------------------------------------

# What the packages attach to a parameter: mup the axes that grow, unit_scaling the parameter's type
# and the number of layers of the stack that it is in.
MUP_SHAPE = "infshape"
UNIT_TYPE = "mup_type"
UNIT_DEPTH = "mup_scaling_depth"
# mup's classes of readouts.
MUP_READOUTS = ("MuReadout", "MuSharedReadout")

# ---- Attention -----------------------------------------------------------------------------------

# Where a module keeps the factor on the logits: transformers, timm, and plain GPTs.
LOGIT_SCALES = (
    "scaling", "scale", "softmax_scale", "attn_scale", "attention_scale", "scale_factor",
)  # fmt: skip
HEAD_COUNTS = (
    "num_heads", "n_head", "n_heads", "nhead", "num_attention_heads", "heads", "nheads", "h",
    "n_q_heads",
)  # fmt: skip
# The size of a head.
HEAD_SIZES = (
    "head_dim", "dim_head", "d_head", "head_size", "attention_head_size", "d_k",
    "hidden_size_per_attention_head", "qk_head_dim", "key_value_proj_dim",
)  # fmt: skip
# Classes of attention, and of norms, which keep factors of their own.
ATTENTION_CLASS = re.compile(r"att(n|en)|(^|_)MHA|MHSA|MultiHead", re.IGNORECASE)
NORM_CLASS = re.compile(r"norm", re.IGNORECASE)
# Children that make queries, or queries, keys and values together.
QUERY_PROJECTION = re.compile(
    r"^(to_|in_|c_|w_?|W_?)?(q|qk|qv|kv|qkv|query|queries|query_key_value)"
    r"(_proj|_lin|_linear|_layer|s)?$|^in_proj$|^c_attn$"
)
# A child called q alone is a critic's value or a quantizer, too: queries have keys beside them.
ONLY_Q = frozenset({"q", "qs"})
OF_KEYS = re.compile(r"key|mem|(^|[^a-z])k(v|s|[^a-z]|$)|^w_?k", re.IGNORECASE)
# Parameters of mixers that have rates of decay and no logits: state-space layers and RWKV.
DECAY_RATES = ("A_log", "time_decay")
# Submodules that make the queries, alone or together with keys and values (in this order).
QUERIES = ("q_proj", "query", "q", "wq", "to_q", "q_lin")
KEYS = ("k_proj", "key", "k", "wk", "to_k", "k_lin")
FUSED_QUERIES = ("c_attn", "qkv", "in_proj", "qkv_proj")
# Norms between the query projection and the logits.
QUERY_NORMS = ("q_norm", "q_layernorm", "query_norm")
# torch's encoder hands its layers tensors without their padding where this is set, which needs the
# fast path of its attention, which needs a module without hooks.
NESTED_TENSORS = "use_nested_tensor"
# Where this is set, timm's attention calls torch's fused function, which takes 1/sqrt(d_head);
# else it multiplies by its own scale.
FUSED_ATTENTION = "fused_attn"
# An attribute of attention modules whose queries have more heads than their keys.
GROUPED_QUERIES = "num_key_value_groups"

# ---- Embeddings ----------------------------------------------------------------------------------

# The factor on embeddings: Gemma and its heirs keep it on the embedding, as a buffer beside a float
# of the second name; BART, Pegasus, Marian and their heirs as a float, on the embedding or on the
# encoder and decoder that own it as `embed_tokens`.
EMBED_SCALE = "embed_scale"
EMBEDDING = "embed_tokens"
# Names of floats that multiply what a module of embeddings gives.
EMBED_FACTORS = re.compile(r"scale|mult|factor|normali[sz]er|sqrt")
# T5 and its heirs divide what goes into a tied readout by sqrt(d_model). T5 says so in its config;
# these classes ask their config whether they are tied instead.
SCALES_DECODER_OUTPUTS = "scale_decoder_outputs"
SCALED_WHEN_TIED = (
    "UMT5ForConditionalGeneration",
    "SwitchTransformersForConditionalGeneration",
    "UdopForConditionalGeneration",
)

# ---- Experts -------------------------------------------------------------------------------------

EXPERT_CONTAINER = "experts"
ROUTERS = ("gate", "router", "wg", "gating")
# Biases on the scores of experts that no gradient reaches, in a layer of experts or in its router.
EXPERT_BALANCES = ("e_score_correction_bias", "expert_bias")
ACTIVE_EXPERTS = ("top_k", "num_experts_per_tok", "k")
# Of modules that hold experts as bare stacks, as MoEUT's: how many there are (for each head), how
# many a token goes to, routers, stacks, and the stacks that map back to width.
EXPERT_COUNTS = ("n_experts", "num_experts")
BARE_ACTIVE = ("moe_k", "top_k", "n_heads")
BARE_ROUTERS = ("expert_sel", "sel_v", "sel_o")
BARE_EXPERTS = ("keys", "values", "v", "o")
BARE_LAST_MAPS = ("values", "o")

# ---- Residual blocks -----------------------------------------------------------------------------

# Modules that end a branch, as they are named inside a block: attention output, then feed-forward.
BRANCH_ENDS = re.compile(
    r"(^|[.])("
    r"o_proj|out_proj|c_proj|proj|out|to_out|out_lin|(Self|EncDec)?Attention[.]o|attention[.]output[.]dense"
    r"|(self_attn|attention|self_attention)[.]dense"
    r"|ffn_output|down_proj|down|fc2|fc_out|linear2|lin2|w2|wo|dense_4h_to_h|output[.]dense"
    r")$"
)
# Norms between the last linear map and the sum (Gemma 2 and 3, OLMo 2, GLM 4): they end the branch.
POST_ATTENTION_NORM = "post_self_attn_layernorm"
BRANCH_END_NORMS = (
    POST_ATTENTION_NORM,
    "post_mlp_layernorm",
    "post_feedforward_layernorm",
)
# The norm after attention in blocks that have one of the last two.
PLAIN_POST_ATTENTION_NORM = "post_attention_layernorm"
# ResNet blocks: the children that tell the layout, and the end of its only branch.
RESNET_BLOCKS = (
    ({"conv3", "bn3"}, r"^bn3$"),
    ({"conv2", "bn2"}, r"^bn2$"),
    ({"shortcut", "layer"}, r"^layer[.]\d+[.]normalization$"),
)
RESNET_NORMS = ("bn2", "bn3")
SKIP_CONNECTIONS = re.compile(r"^(downsample|shortcut)([.]|$)")

# ALBERT runs groups of shared layers: fields of its config for their number and for how many layers
# each has.
SHARED_GROUPS = "num_hidden_groups"
LAYERS_OF_GROUP = "inner_group_num"

# Attributes of modules and configs that count how often blocks run, beside the fields of configs
# that hold their number.
RUN_COUNTS = (
    "depth", "n_blocks", "num_blocks", "loops", "n_loop", "n_loops", "num_loops",
    "iterations", "n_iter", "n_iters", "n_iterations", "num_iterations", "recurrence",
    "recurrences", "num_recurrences", "repeats", "n_repeats", "num_repeats", "n_steps", "num_steps",
    "max_steps", "hops", "max_hops",
)  # fmt: skip
