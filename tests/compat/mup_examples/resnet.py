"""A ResNet of basic blocks, after examples/ResNet of the mup package: one line is about muP."""

import torch
import torch.nn.functional as F
from mup import MuAdam, MuAdamW, MuReadout, MuSGD, get_shapes, make_base_shapes, set_base_shapes
from torch import nn
from torch.nn import init


def convolution(fan_in, fan_out, size, stride):
    made = nn.Conv2d(fan_in, fan_out, size, stride=stride, padding=size // 2, bias=False)
    init.kaiming_normal_(made.weight, a=1)
    return made


class BasicBlock(nn.Module):
    def __init__(self, before, planes, stride=1):
        super().__init__()
        self.conv1, self.bn1 = convolution(before, planes, 3, stride), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = convolution(planes, planes, 3, 1), nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != planes:
            short = convolution(before, planes, 1, stride)
            self.shortcut = nn.Sequential(short, nn.BatchNorm2d(planes))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, num_blocks, num_classes=10, wm=1):
        super().__init__()
        widths = [int(width * wm) for width in (4, 8, 16, 32)]
        self.conv1, self.bn1 = convolution(3, widths[0], 3, 1), nn.BatchNorm2d(widths[0])
        layers, before = [], widths[0]
        for stage, (planes, blocks) in enumerate(zip(widths, num_blocks, strict=True)):
            for block in range(blocks):
                layers.append(BasicBlock(before, planes, 2 if stage and not block else 1))
                before = planes
        self.layers = nn.Sequential(*layers)
        self.linear = MuReadout(before, num_classes, readout_zero_init=True)

    def forward(self, x):
        out = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.linear(F.avg_pool2d(out, 2).flatten(1))


def build(wm):
    return ResNet([2, 2, 2, 2], wm=wm)


def save(file, base):
    make_base_shapes(get_shapes(build(base)), get_shapes(build(base / 2)), savefile=file)


def make(wm, file):
    return set_base_shapes(build(wm), file)


def batch():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, 16, 16, generator=draw, dtype=torch.float64)
    return x, torch.arange(8) % 10


loss = F.cross_entropy
OPTIMIZERS = {"sgd": MuSGD, "adam": MuAdam, "adamw": MuAdamW}
SETTINGS = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "adam": {"lr": 0.001},
    "adamw": {"lr": 0.001, "weight_decay": 0.05},
}
