"""Plain torch models with fixed sizes inside, and small ones of other families, written anew."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zoo_torch import CLASSES


class SqueezeExcite(nn.Module):
    """Residual convolutions whose channels are weighted through four of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.fc1, self.fc2 = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.stem(x))
        y = self.conv(h)
        h = h + y * self.fc2(F.relu(self.fc1(y.mean((2, 3), keepdim=True)))).sigmoid()
        return self.head(F.relu(h).mean((2, 3)))


class Perceiver(nn.Module):
    """Learned latents read the input through queries and keys of a fixed size."""

    def __init__(self, width: int, keys: int = 16) -> None:
        super().__init__()
        self.pixels = nn.Conv2d(3, width, 1)
        self.latents = nn.Embedding(4, width)
        self.q, self.k = nn.Linear(width, keys), nn.Linear(width, keys)
        self.v, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.pixels(x).flatten(2).transpose(1, 2)
        h = self.latents.weight.expand(len(x), -1, -1)
        read = F.scaled_dot_product_attention(self.q(h), self.k(seen), self.v(seen))
        h = h + self.out(read)
        h = h + self.down(F.gelu(self.up(self.norm(h))))
        return self.head(h.mean(1))


class DiT(nn.Module):
    """A diffusion transformer's block, modulated by a vector of the classes' width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patches, self.label = nn.Conv2d(3, width, 2, 2), nn.Embedding(CLASSES, width)
        self.modulate = nn.Linear(width, 6 * width)
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width, 2 * 2 * 3)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        h = self.patches(x).flatten(2).transpose(1, 2)
        a, b, c, d, e, f = self.modulate(F.silu(self.label(y)))[:, None].chunk(6, -1)
        q, k, v = (
            part.unflatten(-1, (-1, 16)).transpose(1, 2)
            for part in self.qkv(self.norm1(h) * (1 + a) + b).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = h + c * self.out(mixed)
        h = h + f * self.down(F.gelu(self.up(self.norm2(h) * (1 + d) + e)))
        return self.head(h)


class AttentionGraph(nn.Module):
    """Two graph attention layers: each edge's weight is read from both of its nodes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, width), nn.Linear(width, width)
        self.source = nn.ModuleList(nn.Linear(width, 1, bias=False) for _ in range(2))
        self.target = nn.ModuleList(nn.Linear(width, 1, bias=False) for _ in range(2))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, graph: tuple[Tensor, Tensor]) -> Tensor:
        x, adjacency = graph
        for layer, map_ in enumerate((self.first, self.second)):
            x = map_(x)
            scores = F.leaky_relu(self.source[layer](x) + self.target[layer](x).T, 0.2)
            x = F.elu(scores.masked_fill(adjacency == 0, -1e9).softmax(-1) @ x)
        return self.head(x)


class Fourier(nn.Module):
    """A Fourier neural operator: real and imaginary maps for each of a few frequencies."""

    def __init__(self, width: int, modes: int = 4) -> None:
        super().__init__()
        self.lift, self.local = nn.Linear(1, width), nn.Linear(width, width)
        self.spectral = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(2 * modes))
        self.project, self.head = nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)
        waves = torch.fft.rfft(h, dim=1)
        parts = [
            torch.complex(real(w.real) - imag(w.imag), real(w.imag) + imag(w.real))
            for real, imag, w in zip(
                self.spectral[::2], self.spectral[1::2], waves.unbind(1), strict=False
            )
        ]
        kept = F.pad(torch.stack(parts, 1), (0, 0, 0, waves.shape[1] - len(parts)))
        h = F.gelu(self.local(h) + torch.fft.irfft(kept, h.shape[1], dim=1))
        return self.head(F.gelu(self.project(h)))


class Adapted(nn.Module):
    """A small MLP with a bottleneck adapter behind each layer, as in parameter-efficient tuning."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.body = nn.Linear(3 * 64, width), nn.Linear(width, width)
        self.down = nn.ModuleList(nn.Linear(width, 8) for _ in range(2))
        self.up = nn.ModuleList(nn.Linear(8, width) for _ in range(2))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(1)
        for layer, map_ in enumerate((self.first, self.body)):
            h = F.relu(map_(h))
            h = h + self.up[layer](F.relu(self.down[layer](h)))
        return self.head(h)


class ActorCritic(nn.Module):
    """Two readouts side by side, the second behind a layer of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body, self.policy = nn.Linear(3 * 64, width), nn.Linear(width, CLASSES)
        self.value = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.body(x.flatten(1)))
        return self.policy(h) + self.value(h)


class NanoGPT(nn.Module):
    """The layers of nanoGPT's block, by its names, with one key-value head as nanochat may have."""

    def __init__(self, width: int, vocabulary: int = 20, head: int = 16) -> None:
        super().__init__()
        self.head, self.wte = head, nn.Embedding(vocabulary, width)
        self.c_q, self.c_k, self.c_v = (
            nn.Linear(width, n, bias=False) for n in (width, head, head)
        )
        self.c_proj, self.c_fc = nn.Linear(width, width), nn.Linear(width, 4 * width)
        self.mlp_proj, self.lm_head = nn.Linear(4 * width, width), nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        x = F.rms_norm(self.wte(ids), self.wte.weight.shape[-1:])
        q, k, v = (
            f(x).unflatten(-1, (-1, self.head)).transpose(1, 2)
            for f in (self.c_q, self.c_k, self.c_v)
        )
        q, k = (F.rms_norm(part, part.shape[-1:]) for part in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.c_proj(y.transpose(1, 2).flatten(2))
        x = x + self.mlp_proj(F.relu(self.c_fc(F.rms_norm(x, x.shape[-1:]))).square())
        return self.lm_head(F.rms_norm(x, x.shape[-1:]))
