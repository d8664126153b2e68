"""Multi-head attention with the parameters and the signature of ``nn.MultiheadAttention``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramz.nn import functional as U
from paramz.nn.layers.linear import Linear
from paramz.nn.linear import scaled_linear
from paramz.nn.scale import Scale


class MultiheadAttention(nn.Module):
    """Attention whose projections carry their factors, with logits ``mult / d_head q k``.

    Args:
        embed_dim: of queries, keys, values and output.
        num_heads: number of heads.
        dropout: of the attention weights, in training.
        bias: of the projections; none by default.
        batch_first: tensors are (batch, length, embed_dim), else (length, batch, embed_dim).
        mult: u-muP's alpha_attn-softmax.
        scales: factors of the projections of queries, keys and values; those of a hidden layer if
            left out.
        scale: factors of the output projection, including that of attention itself; if left out,
            they are a hidden layer's, times attention's for the number of keys of each call.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        scaled_by_call: the factor on attention depends on the number of keys of each call.

    >>> layer = MultiheadAttention(64, 4, batch_first=True)
    >>> x = torch.randn(8, 32, 64)
    >>> out, weights = layer(x, x, x, need_weights=False)
    >>> bool(0.8 < out.std() < 1.2), weights
    (True, None)
    """

    # Torch's own encoder layers take a shortcut around this module's forward unless this is False.
    _qkv_same_embed_dim = False

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = False,
        *,
        batch_first: bool = False,
        mult: float = 1.0,
        scales: tuple[Scale, Scale, Scale] | None = None,
        scale: Scale | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim={embed_dim} is no multiple of num_heads={num_heads}")
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.batch_first, self.mult = batch_first, mult
        hidden = U.linear_scale(embed_dim, embed_dim)
        self.scales = scales or (hidden, hidden, hidden)
        self.scaled_by_call = scale is None
        kind = {"device": device, "dtype": dtype}
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim, **kind))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * embed_dim, **kind)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, scale=scale, **kind)
        nn.init.normal_(self.in_proj_weight)
        if self.in_proj_bias is not None:
            nn.init.zeros_(self.in_proj_bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Output and attention weights, with arguments and shapes of ``nn.MultiheadAttention``.

        With ``is_causal`` and no mask, later positions are hidden (torch asks for the mask). The
        factor of causal attention is used if it is set, whatever the mask.
        """
        batched = query.dim() == 3
        q, k, v = (self._heads(x) for x in self._project(query, key, value))
        fused = is_causal and key_padding_mask is None and not need_weights
        if is_causal and attn_mask is None and not fused:
            attn_mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device)
            attn_mask = attn_mask.triu(1)
        mask = self._mask(q, k, attn_mask, key_padding_mask)
        weights = None
        factor, p = self.mult / (self.embed_dim // self.num_heads), self.dropout
        p = p if self.training else 0.0
        if need_weights:
            logits = q @ k.transpose(-2, -1) * factor
            weights = F.softmax(logits if mask is None else logits + mask, dim=-1)
            y = F.dropout(weights, p) @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        elif fused:
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True, scale=factor)
        else:
            y = F.scaled_dot_product_attention(q, k, v, mask, p, scale=factor)
        return self._out(y, batched, k.shape[-2], is_causal), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if query is key and key is value and len(set(self.scales)) == 1:
            return scaled_linear(query, weight, bias, scale=self.scales[0]).chunk(3, dim=-1)
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        parts = zip((query, key, value), weight.chunk(3), biases, self.scales, strict=True)
        return tuple(scaled_linear(x, w, b, scale=s) for x, w, b, s in parts)

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, heads, length, d_head) of a projected tensor."""
        if x.dim() == 2:
            x = x.unsqueeze(0)
        elif not self.batch_first:
            x = x.transpose(0, 1)
        return x.view(*x.shape[:-1], self.num_heads, -1).transpose(1, 2)

    def _mask(
        self, q: Tensor, k: Tensor, attn_mask: Tensor | None, padding: Tensor | None
    ) -> Tensor | None:
        """What is added to the logits; in boolean masks True means hidden."""
        shape = (q.shape[0], self.num_heads, q.shape[-2], k.shape[-2])
        found = []
        if attn_mask is not None:
            own = attn_mask.view(shape) if attn_mask.dim() == 3 else attn_mask
            found.append(_additive(own, q))
        if padding is not None:
            found.append(_additive(padding.view(-1, 1, 1, shape[-1]), q))
        return sum(found[1:], found[0]) if found else None

    def _out(self, y: Tensor, batched: bool, length: int, causal: bool) -> Tensor:
        y = y.transpose(1, 2).flatten(2)
        if not batched:
            y = y.squeeze(0)
        elif not self.batch_first:
            y = y.transpose(0, 1)
        layer = self.out_proj
        scale = layer.scale
        if self.scaled_by_call:
            d_head = self.embed_dim // self.num_heads
            unit = U.attention_scale(length, d_head, causal=causal, mult=self.mult)
            scale = scale.times(input=unit, grad_input=unit)
        return scaled_linear(y, layer.weight, layer.bias, scale=scale, fp8=layer.fp8)


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
