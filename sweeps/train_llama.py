"""An unmodified Hugging Face Llama of any width on the text of train_lm (needs transformers)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from train_lm import batch_of
from train_loop import fit

import paramz
from paramz.apply.hf import scaled_config


def llama(
    width: int,
    *,
    depth: int = 2,
    tied: bool = False,
    heads: str = "count",
    kv_heads: int | None = None,
) -> nn.Module:
    """A Llama with grouped-query attention (2 query heads per key head).

    Args:
        width: hidden size, a multiple of 32.
        depth: number of layers.
        tied: share embedding and readout.
        heads: what grows with width: ``"count"`` for the number of heads, ``"size"`` for theirs.
        kv_heads: their number at every width, as in released models; None lets it grow.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=depth,
        num_attention_heads=8,
        num_key_value_heads=kv_heads or 4,
        head_dim=16,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
    )
    kept = "keep" if kv_heads else "scale"
    return LlamaForCausalLM(scaled_config(config, width, heads=heads, kv_heads=kept))


def next_byte(
    path: str | None, size: int, context: int, seed: int, step: int
) -> dict[str, torch.Tensor]:
    """A batch as Hugging Face models take it: labels are the inputs, shifted inside the model."""
    tokens, _ = batch_of(path, size, context, seed, step)
    return {"input_ids": tokens, "labels": tokens}


def task(config: dict[str, Any]) -> paramz.Task:
    """The model and data of a config.

    Keys: depth, tied, heads, kv_heads, context, batch_size, text, seed (of the batches, too).
    """
    build = partial(
        llama,
        depth=config.get("depth", 2),
        tied=config.get("tied", False),
        heads=config.get("heads", "count"),
        kv_heads=config.get("kv_heads"),
    )
    size, context = config.get("batch_size", 16), config.get("context", 64)
    drawn = (config.get("text"), size, context, config.get("seed", 0))
    return paramz.Task(build=build, batch=partial(next_byte, *drawn))


def train(config: dict[str, Any], trial: Any) -> dict[str, float]:
    """Train one model. Needs width and lr; loss is the mean over the last tenth of the steps."""
    return fit(task(config), config, trial)
