"""Plain torch models, as users write them: nothing in here knows of paramz."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 4


class BasicBlock(nn.Module):
    """The residual block of ResNet-18 and 34."""

    def __init__(self, inner: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inner != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inner, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + skip)


class Bottleneck(nn.Module):
    """The residual block of ResNet-50 and larger."""

    expansion = 4

    def __init__(self, inner: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        out = planes * self.expansion
        self.conv1 = nn.Conv2d(inner, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or inner != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(inner, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + skip)


class ResNet(nn.Module):
    """A stem, two stages and a readout of the average."""

    def __init__(self, width: int, bottleneck: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        if bottleneck:
            planes = width // 4
            self.layer1 = nn.Sequential(Bottleneck(width, planes), Bottleneck(width, planes))
            self.layer2 = nn.Sequential(Bottleneck(width, 2 * planes, 2))
        else:
            self.layer1 = nn.Sequential(BasicBlock(width, width))
            self.layer2 = nn.Sequential(BasicBlock(width, 2 * width, 2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2 * width, CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        return self.fc(self.avgpool(x).flatten(1))


class ConvNeXtBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(0.1 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Patchified stem, depthwise blocks with a layer scale, one downsampling."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 2, stride=2)
        self.blocks = nn.Sequential(ConvNeXtBlock(width), ConvNeXtBlock(width))
        self.downsample = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.last = ConvNeXtBlock(2 * width)
        self.norm = nn.LayerNorm(2 * width, eps=1e-6)
        self.head = nn.Linear(2 * width, CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.downsample(self.blocks(self.stem(x))))
        return self.head(self.norm(x.mean((-2, -1))))


def double_conv(inner: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, out, 3, padding=1), nn.GroupNorm(4, out), nn.SiLU(),
        nn.Conv2d(out, out, 3, padding=1), nn.GroupNorm(4, out), nn.SiLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """Down, up by transposed convolutions, and concatenated skip connections."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down1 = double_conv(3, width)
        self.down2 = double_conv(width, 2 * width)
        self.middle = double_conv(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.merge2 = double_conv(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.merge1 = double_conv(2 * width, width)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        x = self.middle(F.max_pool2d(two, 2))
        x = self.merge2(torch.cat([self.up2(x), two], 1))
        x = self.merge1(torch.cat([self.up1(x), one], 1))
        return self.out(x)


class Tagger(nn.Module):
    """A recurrent language model: two layers, whose gates read the state of the step before."""

    def __init__(self, width: int, kind: type[nn.RNNBase] = nn.LSTM, vocabulary: int = 20) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.rnn = kind(width, width, num_layers=2, batch_first=True)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.rnn(self.embed(ids))[0])


class Translator(nn.Module):
    """torch's own nn.Transformer, with the sinusoidal positions of its tutorial."""

    def __init__(self, width: int, vocabulary: int = 20, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.transformer = nn.Transformer(
            width, heads, 1, 1, 2 * width, dropout=0.0, batch_first=True
        )
        self.out = nn.Linear(width, vocabulary)
        position = torch.arange(16).unsqueeze(1)
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        table = torch.zeros(16, width)
        table[:, 0::2], table[:, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
        self.register_buffer("positions", table)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.positions[: ids.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        return self.out(self.transformer(x, x, tgt_mask=mask))


class MixerBlock(nn.Module):
    def __init__(self, width: int, patches: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(
            nn.Linear(patches, 2 * patches), nn.GELU(), nn.Linear(2 * patches, patches)
        )
        self.channels = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """MLP-Mixer: the matrices over patches do not grow with width."""

    def __init__(self, width: int, patches: int = 4) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.blocks = nn.Sequential(MixerBlock(width, patches), MixerBlock(width, patches))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.patch(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(1))


def tower(inner: int, width: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inner, width),
        nn.Tanh(),
        nn.Linear(width, width),
        nn.Tanh(),
        nn.Linear(width, out),
    )


class DeepONet(nn.Module):
    """Branch and trunk network meet in a dot product of ``latent`` numbers, whatever the width."""

    def __init__(self, width: int, latent: int | None = 16) -> None:
        super().__init__()
        latent = width if latent is None else latent
        self.branch = tower(8, width, latent)
        self.trunk = tower(1, width, latent)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        function, points = pair
        return self.branch(function) @ self.trunk(points).mT + self.bias


class GraphConv(nn.Module):
    def __init__(self, inner: int, out: int) -> None:
        super().__init__()
        self.lin = nn.Linear(inner, out, bias=False)
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return adjacency @ self.lin(x) + self.bias


class GraphNet(nn.Module):
    """Three graph convolutions over a normalised adjacency matrix."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [GraphConv(6, width), GraphConv(width, width), GraphConv(width, CLASSES)]
        )

    def forward(self, graph: tuple[Tensor, Tensor]) -> Tensor:
        x, adjacency = graph
        for conv in self.convs[:-1]:
            x = F.relu(conv(x, adjacency))
        return self.convs[-1](x, adjacency)
