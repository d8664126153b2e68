"""The small models, batches and the training loop that the tests of the core share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 3
VOCABULARY = 11


def mlp(width: int = 8, readout: type[nn.Linear] = nn.Linear, bias: bool = True) -> nn.Module:
    """Input, hidden and output matrices, with feed-forward sizes that differ."""
    return nn.Sequential(
        nn.Linear(6, width, bias=bias),
        nn.Tanh(),
        nn.Linear(width, 2 * width, bias=bias),
        nn.Tanh(),
        nn.Linear(2 * width, width, bias=bias),
        nn.Tanh(),
        readout(width, CLASSES, bias=bias),
    )


def convnet(width: int = 8, readout: type[nn.Linear] = nn.Linear) -> nn.Module:
    """Two convolutions and a readout of the average over positions."""
    return nn.Sequential(
        nn.Conv2d(2, width, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        readout(2 * width, CLASSES),
    )


def checked_net(width: int) -> nn.Module:
    """What the quick coordinate checks train."""
    return nn.Sequential(
        nn.Linear(16, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 4, bias=False),
    )


def checked_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """And on what."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 16, generator=generator), torch.arange(32) % 4


def resnet(kind: str, depths: tuple[int, ...] = (2, 2)) -> nn.Module:
    """A Hugging Face ResNet with basic or bottleneck blocks."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=list(depths), layer_type=kind
    )
    model: nn.Module = ResNetForImageClassification(config)
    return model.eval()


class Attention(nn.Module):
    """Causal attention with fused projections and its scale in an attribute."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        return self.proj(y.transpose(1, 2).reshape(batch, length, width))


class Plain(nn.Module):
    """A residual feed-forward behind a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(self.norm(x))


def residual_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of size 16 and their classes, of eight, for networks of `Plain` blocks."""
    torch.manual_seed(0)
    x = torch.randn(128, 16)
    return x, (x @ torch.randn(16, 8)).argmax(1)


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """A small GPT: the number of heads is fixed, so the size of a head grows with width."""

    def __init__(
        self, width: int, readout: type[nn.Linear] = nn.Linear, tied: bool = False
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.pos_emb = nn.Parameter(torch.randn(6, width))
        self.blocks = nn.ModuleList(Block(width, heads=2) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = readout(width, VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.pos_emb[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def gpt(width: int = 8, readout: type[nn.Linear] = nn.Linear) -> nn.Module:
    return GPT(width, readout)


def tied_gpt(width: int = 8) -> nn.Module:
    return GPT(width, tied=True)


def attention_classifier(width: int = 8) -> nn.Module:
    """torch's own attention, four heads whose size grows."""
    return nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, dropout=0.0)


def llama(width: int = 32, *, tied: bool = False, head_dim: int = 8) -> nn.Module:
    """A Hugging Face Llama with grouped-query attention; the number of heads grows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = width // head_dim
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=heads,
            num_key_value_heads=heads // 2,
            vocab_size=40,
            max_position_embeddings=16,
            tie_word_embeddings=tied,
        )
    )


def gpt2(width: int = 32) -> nn.Module:
    """A Hugging Face GPT-2 (Conv1D, fused projections, tied); the size of a head grows."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=width, n_layer=2, n_head=4, vocab_size=40, n_positions=16,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model that learns to classify, with a batch for it."""

    build: Callable[..., nn.Module]
    shape: tuple[int, ...]
    tokens: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def batch(self, seed: int = 7) -> tuple[Tensor, Tensor]:
        """Inputs and integer targets, the same for every width."""
        draw = torch.Generator().manual_seed(seed)
        if self.tokens:
            ids = torch.randint(VOCABULARY, self.shape, generator=draw)
            return ids, ids.roll(-1, dims=-1)
        x = torch.randn(self.shape, generator=draw, dtype=torch.float64)
        return x, torch.randint(CLASSES, self.shape[:1], generator=draw)


CASES = {
    "mlp": Case(mlp, (16, 6)),
    "convnet": Case(convnet, (8, 2, 6, 6)),
    "gpt": Case(gpt, (4, 6), tokens=True),
}


def build64(build: Callable[..., nn.Module], width: int, seed: int = 0, **options: Any) -> Any:
    """A model in double precision, always with the same random numbers."""
    torch.manual_seed(seed)
    return build(width, **options).double()


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor], steps: int
) -> Tensor:
    """The outputs before each step and after the last, stacked."""
    x, y = batch
    outputs = []
    for _ in range(steps):
        optimizer.zero_grad()
        out = model(x)
        outputs.append(out.detach().clone())
        F.cross_entropy(out.flatten(0, -2), y.flatten()).backward()
        optimizer.step()
    with torch.no_grad():
        outputs.append(model(x))
    return torch.stack(outputs)
