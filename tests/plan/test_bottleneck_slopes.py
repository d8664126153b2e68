"""What goes through a normed bottleneck learns alike at every width (others: test_zoo.py)."""

from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import paramz


class Normed(nn.Module):
    """A residual branch through sixteen channels, normed where they are few."""

    def __init__(self, width):
        super().__init__()
        self.first, self.down = nn.Linear(16, width), nn.Linear(width, 16, bias=False)
        self.norm, self.back = nn.LayerNorm(16), nn.Linear(16, width, bias=False)
        self.hidden, self.head = nn.Linear(width, width), nn.Linear(width, 8)

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return self.head(torch.relu(self.hidden(h + self.back(self.norm(self.down(h))))))


def change(scheme, build, batch, module, width, seed, steps=3):
    """The size of the change of a module's output after a few steps of AdamW."""
    torch.manual_seed(seed)
    model, out = build(width), []
    plan = paramz.parametrize_(model, scheme, base=build, base_width=64)
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=2**-8))
    model.get_submodule(module).register_forward_hook(lambda _m, _i, o: out.append(o.detach()))
    for _ in range(steps + 1):
        x, y = batch
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    return (out[-1] - out[0]).pow(2).mean().sqrt().item()


def slope(scheme, build, batch, module, widths=(64, 128, 256, 512), seeds=3):
    """Log change over log width."""
    sizes = [
        np.mean([change(scheme, build, batch, module, w, s) for s in range(seeds)]) for w in widths
    ]
    return np.polyfit(np.log2(widths), np.log2(sizes), 1)[0]


def points():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(128, 16, generator=draw), torch.arange(128) % 8


def test_a_normed_bottleneck_learns_alike_at_every_width():
    measured = partial(slope, build=Normed, batch=points(), module="back")
    assert abs(measured("mup")) <= 0.1
    assert measured("mup+bottleneck-readout") > 0.1
