"""Models written anew with the layers, names and factors that well-known repositories have."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zoo_torch import CLASSES

# ---- nanoGPT and nanochat ------------------------------------------------------------------------


class CausalSelfAttention(nn.Module):
    """nanoGPT's: queries, keys and values in one map, torch's fused attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.n_head, self.n_embd = heads, width

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            for part in self.c_attn(x).split(self.n_embd, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width: int, bias: bool = True) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width, bias=bias)
        self.c_proj = nn.Linear(4 * width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = CausalSelfAttention(width, heads), MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """nanoGPT: the readout shares the table of tokens, blocks are counted in forward."""

    def __init__(self, width: int, layers: int = 3, vocabulary: int = 20) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocabulary, width),
                "wpe": nn.Embedding(16, width),
                "h": nn.ModuleList(Block(width, width // 16) for _ in range(layers)),
                "ln_f": nn.LayerNorm(width),
            }
        )
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.transformer.wte.weight = self.lm_head.weight
        for name, p in self.named_parameters():
            if p.ndim == 2:
                out = name.endswith("c_proj.weight")
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * layers) if out else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.transformer.wte(ids) + self.transformer.wpe(torch.arange(ids.shape[1]))
        for i in range(len(self.transformer.h)):
            x = self.transformer.h[i](x)
        return self.lm_head(self.transformer.ln_f(x))


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:])


class ChatBlock(nn.Module):
    """nanochat's: norms without gains, queries and keys normalised, ReLU squared, value tables."""

    def __init__(self, width: int, head: int, gated: bool) -> None:
        super().__init__()
        self.n_head, self.head_dim = width // head, head
        self.c_q, self.c_k, self.c_v, self.c_proj = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.ve_gate = nn.Linear(12, width // head, bias=False) if gated else None
        self.mlp = MLP(width, bias=False)

    def forward(self, x: Tensor, values: Tensor | None) -> Tensor:
        q, k, v = (
            f(norm(x)).unflatten(-1, (-1, self.head_dim)) for f in (self.c_q, self.c_k, self.c_v)
        )
        if self.ve_gate is not None and values is not None:
            gate = 2 * torch.sigmoid(self.ve_gate(x[..., :12]))
            v = v + gate[..., None] * values.unflatten(-1, (-1, self.head_dim))
        q, k, v = (part.transpose(1, 2) for part in (norm(q), norm(k), v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).flatten(2))
        return x + self.mlp.c_proj(F.relu(self.mlp.c_fc(norm(x))).square())


class Chat(nn.Module):
    """nanochat: an untied readout with soft-capped logits, a scalar per block on its two inputs."""

    def __init__(self, width: int, layers: int = 2, vocabulary: int = 20, head: int = 16) -> None:
        super().__init__()
        gated = [i % 2 == (layers - 1) % 2 for i in range(layers)]
        self.wte = nn.Embedding(vocabulary, width)
        self.h = nn.ModuleList(ChatBlock(width, head, each) for each in gated)
        self.value_embeds = nn.ModuleDict(
            {str(i): nn.Embedding(vocabulary, width) for i, each in enumerate(gated) if each}
        )
        self.resid_lambdas = nn.Parameter(torch.ones(layers))
        self.x0_lambdas = nn.Parameter(torch.zeros(layers))
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        for block in self.h:
            nn.init.zeros_(block.c_proj.weight)
            nn.init.zeros_(block.mlp.c_proj.weight)

    def forward(self, ids: Tensor) -> Tensor:
        x = first = norm(self.wte(ids))
        for i, block in enumerate(self.h):
            x = self.resid_lambdas[i] * x + self.x0_lambdas[i] * first
            table = self.value_embeds[str(i)] if str(i) in self.value_embeds else None
            x = block(x, None if table is None else table(ids))
        return 15 * torch.tanh(self.lm_head(norm(x)) / 15)


# ---- timm ----------------------------------------------------------------------------------------


class Attention(nn.Module):
    """timm's: the scale is used only where the fused function is off."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.scale, self.fused_attn = self.head_dim**-0.5, True
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if self.fused_attn:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = (q * self.scale @ k.mT).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).flatten(2))


class LayerScale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(0.1 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class VisionBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.ls1, self.ls2 = Attention(dim, num_heads), LayerScale(dim), LayerScale(dim)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x)))))


class VisionTransformer(nn.Module):
    """timm's ViT with registers, layer scale and a table of positions."""

    def __init__(self, width: int, heads: int | None = None) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 4, stride=4)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.reg_token = nn.Parameter(0.02 * torch.randn(1, 2, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 4, width))
        self.blocks = nn.Sequential(*(VisionBlock(width, heads or width // 16) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2) + self.pos_embed
        first = torch.cat([self.cls_token, self.reg_token], 1).expand(len(x), -1, -1)
        return self.head(self.norm(self.blocks(torch.cat([first, x], 1)))[:, 0])


def heads_grow(width: int) -> nn.Module:
    """The same with four heads at every width."""
    return VisionTransformer(width, heads=4)


class ScaledStdConv2d(nn.Conv2d):
    """timm's: weights are standardised in forward, so their own size means nothing there."""

    def __init__(self, inner: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inner, out, kernel, stride, kernel // 2, groups=groups)
        self.gain = nn.Parameter(torch.ones(out, 1, 1, 1))
        self.scale, self.eps = self.weight[0].numel() ** -0.5, 1e-6

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(
            self.weight.reshape(1, self.out_channels, -1), None, None,
            weight=(self.gain * self.scale).view(-1), training=True, momentum=0.0, eps=self.eps,
        ).reshape_as(self.weight)  # fmt: skip
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class NormFreeBlock(nn.Module):
    """NFNet's bottleneck block: squeeze and excite at its end, one scalar on the branch."""

    def __init__(self, inner: int, out: int, beta: float, stride: int = 1) -> None:
        super().__init__()
        middle, self.beta = out // 2, beta
        self.downsample = ScaledStdConv2d(inner, out, 1) if inner != out else nn.Identity()
        self.pool = nn.AvgPool2d(stride)
        self.conv1 = ScaledStdConv2d(inner, middle, 1)
        self.conv2 = ScaledStdConv2d(middle, middle, 3, stride, groups=middle // 16)
        self.conv3 = ScaledStdConv2d(middle, out, 1)
        self.fc1, self.fc2 = nn.Conv2d(out, out // 2, 1), nn.Conv2d(out // 2, out, 1)
        self.skipinit_gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(x) * self.beta
        skip = self.downsample(self.pool(y)) if isinstance(self.downsample, nn.Conv2d) else x
        y = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(y)))))
        gate = self.fc2(F.relu(self.fc1(y.mean((2, 3), keepdim=True)))).sigmoid()
        return skip + 0.2 * self.skipinit_gain * (2 * gate * y)


class NFNet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = ScaledStdConv2d(3, width, 3)
        self.stages = nn.Sequential(
            NormFreeBlock(width, width, 1.0), NormFreeBlock(width, 2 * width, 0.9, stride=2)
        )
        self.final_conv = ScaledStdConv2d(2 * width, 4 * width, 1)
        self.head = nn.Linear(4 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.final_conv(self.stages(self.stem(x)))).mean((2, 3)))


# ---- PyTorch Geometric and neural operators ------------------------------------------------------


class GATConv(nn.Module):
    """PyTorch Geometric's: heads of a fixed size, weighed by vectors (1, heads, channels)."""

    def __init__(self, inner: int, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.out_channels = heads, channels
        self.lin = nn.Linear(inner, heads * channels, bias=False)
        self.att_src = nn.Parameter(0.2 * torch.randn(1, heads, channels))
        self.att_dst = nn.Parameter(0.2 * torch.randn(1, heads, channels))
        self.bias = nn.Parameter(torch.zeros(heads * channels))

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        h = self.lin(x).unflatten(-1, (self.heads, self.out_channels))
        source, target = (h * self.att_src).sum(-1), (h * self.att_dst).sum(-1)
        logits = F.leaky_relu(target[:, None] + source[None], 0.2)
        weights = logits.masked_fill(adjacency[..., None] == 0, -1e9).softmax(1)
        return torch.einsum("ijh,jhc->ihc", weights, h).flatten(1) + self.bias


class GAT(nn.Module):
    """Two of them and a readout; the size of heads stays while their number grows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([GATConv(6, 16, width // 16), GATConv(width, 16, width // 16)])
        self.head = nn.Linear(width, CLASSES)

    def forward(self, graph: tuple[Tensor, Tensor]) -> Tensor:
        x, adjacency = graph
        for conv in self.convs:
            x = F.elu(conv(x, adjacency))
        return self.head(x)


class SpectralConv1d(nn.Module):
    """A Fourier neural operator's: a complex matrix (in, out) for each frequency that it keeps."""

    def __init__(self, inner: int, out: int, modes: int = 4) -> None:
        super().__init__()
        self.modes = modes
        self.weights1 = nn.Parameter(
            torch.randn(inner, out, modes, dtype=torch.cfloat) / inner**0.5
        )

    def forward(self, x: Tensor) -> Tensor:
        waves = torch.fft.rfft(x)
        kept = torch.einsum("bix,iox->box", waves[..., : self.modes], self.weights1)
        return torch.fft.irfft(F.pad(kept, (0, waves.shape[-1] - self.modes)), x.shape[-1])


class FNO(nn.Module):
    """A Fourier neural operator in one dimension with complex weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lifting = nn.Linear(1, width)
        self.convs = nn.ModuleList(SpectralConv1d(width, width) for _ in range(2))
        self.ws = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(2))
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lifting(x).mT
        for spectral, local in zip(self.convs, self.ws, strict=True):
            h = F.gelu(spectral(h) + local(h))
        return self.fc2(F.gelu(self.fc1(h.mT)))
