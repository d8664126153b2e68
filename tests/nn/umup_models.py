"""A plain decoder, unit_scaling's, and paramz.nn's: one architecture, three ways."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramz.nn import TransformerDecoder

WIDTH, VOCABULARY, LAYERS, HEADS = 32, 29, 3, 4


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(width, 1e-5, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.RMSNorm(width, 1e-5, elementwise_affine=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.gate = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, HEADS, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        n = self.norm2(x)
        return x + self.down(self.up(n) * F.silu(self.gate(n)))


class Plain(nn.Module):
    """Written without a thought of unit scaling."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(LAYERS))
        self.norm = nn.RMSNorm(width, 1e-5, elementwise_affine=False)
        self.readout = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x)
        return self.readout(self.norm(x))


def mean_loss(model: nn.Module, ids: Tensor) -> Tensor:
    """Ordinary cross-entropy of the next token, over as many rows as the model sees."""
    return F.cross_entropy(model(ids[:, :-1]).flatten(end_dim=1), ids[:, 1:].flatten())


def tokens(length: int = 17, batch: int = 4) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(5))


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of any of the three under one set of names."""
    names, head = {}, "readout"
    if isinstance(model, TransformerDecoder):
        names = {
            "0.qkv": "qkv", "0.out": "out", "1.up": "up", "1.gate": "gate", "1.down": "down",
        }  # fmt: skip
    elif not isinstance(model, Plain):
        names = {
            "mhsa.linear_qkv": "qkv", "mhsa.linear_o": "out", "mlp.linear_1": "up",
            "mlp.linear_gate": "gate", "mlp.linear_2": "down",
        }  # fmt: skip
        head = "projection"
    found = {}
    for name, parameter in model.named_parameters():
        name = name.removesuffix(".weight").replace(head, "readout")
        for theirs, ours in names.items():
            name = name.replace(f".{theirs}", f".{ours}")
        found[name] = parameter
    return found


def copy_weights_(target: nn.Module, source: nn.Module) -> None:
    values = weights(source)
    with torch.no_grad():
        for name, parameter in weights(target).items():
            parameter.copy_(values[name])
