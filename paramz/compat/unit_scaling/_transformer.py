"""unit_scaling's transformer: SwiGLU, causal attention without positions, norms without gains."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from paramz.compat.unit_scaling import functional as U
from paramz.compat.unit_scaling._layers import Embedding, Linear, LinearReadout, RMSNorm
from paramz.compat.unit_scaling._stacks import DepthSequential
from paramz.compat.unit_scaling.core.functional import (
    ResidualScalingFn,
    transformer_residual_scaling_rule,
)

_RULE = transformer_residual_scaling_rule()


class MLP(nn.Module):
    """SwiGLU; up and gate mirror down, so none of the three is constrained.

    Args:
        hidden_size: of the model.
        expansion_factor: size of the layer, relative to the model's.
    """

    def __init__(self, hidden_size: int, expansion_factor: int = 4) -> None:
        super().__init__()
        size = hidden_size * expansion_factor
        self.linear_1 = Linear(hidden_size, size, constraint=None)
        self.linear_gate = Linear(hidden_size, size, constraint=None)
        self.linear_2 = Linear(size, hidden_size, constraint=None)

    def forward(self, input: Tensor) -> Tensor:
        """(..., hidden_size) -> the same shape."""
        y: Tensor = self.linear_2(U.silu_glu(self.linear_1(input), self.linear_gate(input)))
        return y


class MHSA(nn.Module):
    """Multi-head self-attention.

    Args:
        hidden_size: of the model.
        heads: number of heads.
        is_causal: hide later positions.
        dropout_p: of the attention weights, in training.
        mult: factor on the logits.
    """

    def __init__(
        self,
        hidden_size: int,
        heads: int,
        is_causal: bool,
        dropout_p: float = 0.0,
        mult: float = 1.0,
    ) -> None:
        super().__init__()
        self.heads, self.is_causal = heads, is_causal
        self.dropout_p, self.mult = dropout_p, mult
        self.linear_qkv = Linear(hidden_size, 3 * hidden_size)
        self.linear_o = Linear(hidden_size, hidden_size)

    def forward(self, input: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> the same shape."""
        q, k, v = self.linear_qkv(input).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        p = self.dropout_p if self.training else 0.0
        y = U.scaled_dot_product_attention(
            q, k, v, dropout_p=p, is_causal=self.is_causal, mult=self.mult
        )
        if p != self.dropout_p:  # the factor of dropout stays, as that of U.dropout does
            y = y * math.sqrt(1 - self.dropout_p)
        out: Tensor = self.linear_o(y.transpose(1, 2).flatten(2))
        return out


class TransformerLayer(nn.Module):
    """Attention and SwiGLU, each behind a norm and beside a skip connection.

    Args:
        hidden_size: of the model.
        heads: number of heads.
        mhsa_tau, mlp_tau: scales of the branches relative to their skip connections.
        is_causal: hide later positions.
        dropout_p: of the branches and of the attention weights, in training.
    """

    def __init__(
        self,
        hidden_size: int,
        heads: int,
        mhsa_tau: float,
        mlp_tau: float,
        is_causal: bool,
        dropout_p: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout_p, self.mhsa_tau, self.mlp_tau = dropout_p, mhsa_tau, mlp_tau
        self.mhsa_norm = RMSNorm(hidden_size)
        self.mhsa = MHSA(hidden_size, heads, is_causal=is_causal, dropout_p=dropout_p)
        self.mlp_norm = RMSNorm(hidden_size)
        self.mlp = MLP(hidden_size)

    def forward(self, input: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> the same shape."""
        x = self._branch(self.mhsa_norm, self.mhsa, input, self.mhsa_tau)
        return self._branch(self.mlp_norm, self.mlp, x, self.mlp_tau)

    def _branch(self, norm: nn.Module, function: nn.Module, x: Tensor, tau: float) -> Tensor:
        branch, skip = U.residual_split(x, tau)
        y: Tensor = function(norm(branch))
        if self.dropout_p:
            y = U.dropout(y, self.dropout_p, self.training)
        return U.residual_add(y, skip, tau)


class TransformerStack(DepthSequential):
    """Transformer layers whose branches follow a rule for their scales.

    Args:
        layers: number of layers.
        residual_scaling: ``tau(index, branches)``; the tau rule by default.
        **kwargs: for `TransformerLayer`.
    """

    def __init__(
        self, layers: int, residual_scaling: ResidualScalingFn = _RULE, **kwargs: Any
    ) -> None:
        super().__init__(
            *(
                TransformerLayer(
                    **kwargs,
                    mhsa_tau=residual_scaling(2 * i, 2 * layers),
                    mlp_tau=residual_scaling(2 * i + 1, 2 * layers),
                )
                for i in range(layers)
            )
        )


class TransformerDecoder(nn.Sequential):
    """A causal language model.

    Args:
        hidden_size: of the model.
        vocab_size: number of tokens.
        layers: number of layers.
        heads: number of attention heads.
        dropout_p: of the branches and of the attention weights, in training.
        residual_scaling: as for `TransformerStack`.

    >>> import torch
    >>> model = TransformerDecoder(32, vocab_size=11, layers=2, heads=2)
    >>> model(torch.zeros(3, 8, dtype=torch.long)).shape
    torch.Size([3, 8, 11])
    """

    def __init__(
        self,
        hidden_size: int,
        vocab_size: int,
        layers: int,
        heads: int,
        dropout_p: float = 0.0,
        residual_scaling: ResidualScalingFn = _RULE,
    ) -> None:
        super().__init__()
        self.embedding = Embedding(vocab_size, hidden_size)
        self.layers = TransformerStack(
            layers=layers,
            hidden_size=hidden_size,
            heads=heads,
            is_causal=True,
            dropout_p=dropout_p,
            residual_scaling=residual_scaling,
        )
        self.final_norm = RMSNorm(hidden_size)
        self.projection = LinearReadout(hidden_size, vocab_size)

    def loss(self, input_ids: Tensor) -> Tensor:
        """Mean cross-entropy of every next token of ids (batch, length)."""
        logits = self(input_ids).float()
        return U.cross_entropy(
            logits[..., :-1, :].flatten(end_dim=-2), input_ids[..., 1:].flatten()
        )
