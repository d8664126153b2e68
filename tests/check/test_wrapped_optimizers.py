"""Wrappers that change what reaches an optimizer and leave its learning rates right."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import paramz

library = pytest.importorskip("pytorch_optimizer")

DRAW = torch.Generator().manual_seed(0)
INPUTS = torch.randn(256, 32, generator=DRAW)
LABELS = (INPUTS @ torch.randn(32, 10, generator=DRAW)).argmax(1)
INNER = {"adamw": (torch.optim.AdamW, 2**-8), "sgd": (torch.optim.SGD, 2**-4)}


def net(width):
    layers = [nn.Linear(32, width), nn.Linear(width, width), nn.Linear(width, width)]
    hidden = [part for layer in layers for part in (layer, nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


def of_two_tasks(optimizer, model):
    """PCGrad makes gradients itself, of the losses of two halves whose labels disagree."""
    wrapper, half = library.PCGrad(optimizer), INPUTS[:, 0] > 0

    def project(*_):
        with torch.enable_grad():
            out = model(INPUTS)
            first = cross_entropy(out[half], LABELS[half])
            second = cross_entropy(out[~half], (LABELS[~half] * 3 + 1) % 10)
            wrapper.pc_backward([first, second])

    optimizer.register_step_pre_hook(project)
    return optimizer


WRAPPERS = {
    "OrthoGrad": lambda optimizer, model: library.OrthoGrad(optimizer),
    "Lookahead": lambda optimizer, model: library.Lookahead(optimizer, k=2),
    "PCGrad": of_two_tasks,
}


def judged(wrapper, inner, scheme):
    kind, lr = INNER[inner]

    def make(plan, model, lr):
        return WRAPPERS[wrapper](kind(plan.param_groups(model, inner, lr=lr)), model)

    table = paramz.coord_check(
        net, (INPUTS, LABELS), loss=lambda model, batch: cross_entropy(model(batch[0]), batch[1]),
        widths=[64, 128, 256, 512], seeds=3, steps=3,
        parametrization=scheme, optimizer=make, lr=lr,
    )  # fmt: skip
    return paramz.judge(table).outcome


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_is_no_other_optimizer_than_the_one_inside(wrapper, inner):
    model = net(64)
    plan = paramz.parametrize_(model, "mup", base=net, base_width=32)
    groups = plan.param_groups(model, inner, lr=0.1)
    wrapped = getattr(library, wrapper)(INNER[inner][0](groups))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan.check(wrapped, model=model)


@pytest.mark.slow
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_learning_rates_hold_inside_a_wrapper_under_the_scheme_only(wrapper, inner):
    assert judged(wrapper, inner, "mup") == "pass"
    assert judged(wrapper, inner, "sp") == "fail"
