"""A Transformer that models language, after examples/Transformer of the mup package.

Three things are about muP: the readout, initial values of std 1/sqrt(width), attention over d.
"""

import math

import torch
import torch.nn.functional as F
from mup import (
    MuAdam,
    MuAdamW,
    MuReadout,
    MuSGD,
    get_shapes,
    make_base_shapes,
    set_base_shapes,
)
from mup.init import normal_
from torch import nn

TOKENS = 13


class Attention(nn.Module):
    def __init__(self, width, heads, attn_mult, std):
        super().__init__()
        self.heads, self.attn_mult = heads, attn_mult
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.bias_k = nn.Parameter(torch.zeros(1, 1, width))
        self.out_proj = nn.Linear(width, width)
        nn.init.normal_(self.in_proj_weight, std=std)
        nn.init.normal_(self.out_proj.weight, std=std)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x, mask):
        length, batch, width = x.shape
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        k = k + self.bias_k
        q, k, v = (t.reshape(length, batch * self.heads, -1).transpose(0, 1) for t in (q, k, v))
        scores = self.attn_mult * q @ k.transpose(1, 2) / q.shape[-1]
        out = torch.softmax(scores + mask, dim=-1) @ v
        return self.out_proj(out.transpose(0, 1).reshape(length, batch, width))


class Layer(nn.Module):
    def __init__(self, width, heads, hidden, attn_mult, init_var):
        super().__init__()
        std = (init_var / width) ** 0.5
        self.self_attn = Attention(width, heads, attn_mult, std)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        for linear in (self.linear1, self.linear2):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)

    def forward(self, x, mask):
        x = self.norm1(x + self.self_attn(x, mask))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class TransformerModel(nn.Module):
    def __init__(self, width, nhead=2, ffn_ratio=2, nlayers=2, attn_mult=4.0, init_var=1.0):
        super().__init__()
        place = torch.arange(64).unsqueeze(1)
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        pe = torch.stack([torch.sin(place * rate), torch.cos(place * rate)], dim=-1)
        self.register_buffer("pe", pe.reshape(64, 1, width))
        self.encoder = nn.Embedding(TOKENS, width)
        self.layers = nn.ModuleList(
            Layer(width, nhead, ffn_ratio * width, attn_mult, init_var) for _ in range(nlayers)
        )
        self.decoder = MuReadout(width, TOKENS, output_mult=2.0)
        nn.init.zeros_(self.decoder.bias)
        nn.init.zeros_(self.decoder.weight)

    def forward(self, ids):
        mask = torch.full((len(ids), len(ids)), -math.inf, dtype=self.pe.dtype).triu(1)
        x = self.encoder(ids) + self.pe[: len(ids)]
        for layer in self.layers:
            x = layer(x, mask)
        return F.log_softmax(self.decoder(x), dim=-1)


def build(width):
    return TransformerModel(width)


def save(file, base):
    make_base_shapes(get_shapes(build(base)), get_shapes(build(2 * base)), savefile=file)


def make(width, file):
    model = set_base_shapes(build(width), file)
    normal_(model.encoder.weight, std=0.5)
    return model


def batch():
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(TOKENS, (12, 4), generator=draw)
    return ids, ids.roll(-1, 0)


def loss(output, y):
    return F.nll_loss(output.flatten(0, 1), y.flatten())


OPTIMIZERS = {"sgd": MuSGD, "adam": MuAdam, "adamw": MuAdamW}
SETTINGS = {
    "sgd": {"lr": 0.05},  # 0.5 blew up at width 48
    "adam": {"lr": 0.003},
    "adamw": {"lr": 0.003, "weight_decay": 0.1},
}
