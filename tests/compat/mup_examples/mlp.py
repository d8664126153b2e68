"""An MLP on images with base shapes in a file, after examples/MLP of the mup package."""

import torch
import torch.nn.functional as F
from mup import MuAdam, MuAdamW, MuReadout, MuSGD, get_shapes, make_base_shapes, set_base_shapes
from torch import nn


class MLP(nn.Module):
    def __init__(self, width=128, num_classes=10, nonlin=F.relu, output_mult=1.0, input_mult=1.0):
        super().__init__()
        self.nonlin, self.input_mult = nonlin, input_mult
        self.fc_1 = nn.Linear(3 * 8 * 8, width, bias=False)
        self.fc_2 = nn.Linear(width, width, bias=False)
        self.fc_3 = MuReadout(width, num_classes, bias=False, output_mult=output_mult)
        nn.init.kaiming_normal_(self.fc_1.weight, a=1, mode="fan_in")
        self.fc_1.weight.data /= self.input_mult**0.5
        nn.init.kaiming_normal_(self.fc_2.weight, a=1, mode="fan_in")
        nn.init.zeros_(self.fc_3.weight)

    def forward(self, x):
        out = self.nonlin(self.fc_1(x.flatten(1)) * self.input_mult**0.5)
        return self.fc_3(self.nonlin(self.fc_2(out)))


def build(width):
    return MLP(width, nonlin=torch.tanh, output_mult=32, input_mult=0.125)


def save(file, base):
    make_base_shapes(get_shapes(build(base)), get_shapes(build(base + 1)), savefile=file)


def make(width, file):
    return set_base_shapes(build(width), file)


def batch():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(16, 3, 8, 8, generator=draw, dtype=torch.float64)
    return x, torch.arange(16) % 10


loss = F.cross_entropy
OPTIMIZERS = {"sgd": MuSGD, "adam": MuAdam, "adamw": MuAdamW}
SETTINGS = {
    "sgd": {"lr": 0.003, "momentum": 0.9},  # 0.1 blew up under output_mult=32
    "adam": {"lr": 0.003},
    "adamw": {"lr": 0.003, "weight_decay": 0.1},
}
