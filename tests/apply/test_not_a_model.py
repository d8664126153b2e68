"""What is given as the model and is none is refused by name, with what to give in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import paramz


def net(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))


PLAN = paramz.make_plan(net(32), "mup", base=net)
DOORS: dict[str, Callable[[Any], Any]] = {
    "parametrize_": lambda m: paramz.parametrize_(m, "mup", base=net),
    "make_plan": lambda m: paramz.make_plan(m, "mup", base=net),
    "adopt_": lambda m: paramz.adopt_(m, "mup", base=net),
    "restore_": lambda m: paramz.restore_(m, PLAN),
    "suggest": lambda m: paramz.suggest(m, "adamw", base=net),
    "init_": lambda m: paramz.init_(m, PLAN),
    "remove_": paramz.remove_,
    "fold_": paramz.fold_,
    "param_groups": lambda m: PLAN.param_groups(m, "adamw", lr=0.1),
    "split_groups": lambda m: PLAN.split_groups(m, muon={"lr": 0.1}, adamw={"lr": 0.1}),
    "make_optimizers": lambda m: paramz.make_optimizers(PLAN, m, "adamw", lr=0.1),
    "clip_grad_norm_": lambda m: paramz.clip_grad_norm_(PLAN, m, 1.0),
    "reparametrize_": lambda m: paramz.reparametrize_(m, paramz.WeightNorm()),
    "unreparametrize_": paramz.unreparametrize_,
    "weight_norm_init_": lambda m: paramz.reparam.weight_norm_init_(m, torch.ones(2, 4)),
    "unit_scale_": lambda m: paramz.nn.unit_scale_(m, torch.ones(2, 4)),
    "unit_plan": paramz.nn.unit_plan,
    "fold_scales_": paramz.nn.fold_scales_,
    "fp8_": paramz.nn.fp8_,
}
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "optimizer": (
        lambda: torch.optim.Adam(net().parameters()),
        "got Adam: give the model whose parameters it trains, before any optimizer",
    ),
    "parameters": (
        lambda: net().parameters(),
        "got generator: give the model itself, not its parameters or its state_dict",
    ),
    "state_dict": (lambda: net().state_dict(), "got OrderedDict: give the model itself, not its"),
    "factory": (lambda: net, "got function: give what it returns when it is called"),
    "class": (lambda: nn.Linear, "got Linear: give what it returns when it is called"),
    "nothing": (lambda: None, "got NoneType: give the model itself"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_model_is_refused_by_name(door: str, wrong: str) -> None:
    make, words = WRONG[wrong]
    with pytest.raises(TypeError) as caught:
        DOORS[door](make())
    assert str(caught.value).startswith("the model must be a torch.nn.Module, ")
    assert words in str(caught.value)
