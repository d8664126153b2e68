"""PEFT's LoRA with options that change what its tensors are, under `lora` and `mup+lora`."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from test_adapters import adapted
from torch import nn

import paramz
from paramz.plan.plan import Plan

peft = pytest.importorskip("peft")
BIAS = "base_model.model.one.lora_B.default.bias"


def rate(plan: Plan, model: nn.Module, optimizer: str, name: str) -> tuple[float, float]:
    groups = plan.param_groups(model, optimizer, lr=1.0, weight_decay=0.1, split="tensor")
    (group,) = (g for g in groups if g["names"] == [name])
    return group["lr"], group["weight_decay"]


@pytest.mark.parametrize(
    ("options", "adamw", "sgd"),
    [
        ({"lora_alpha": 8}, (4.0, 0.025), (16.0, 0.1 / 16)),
        ({"lora_alpha": 8, "use_rslora": True}, (2.0, 0.05), (4.0, 0.025)),
        ({}, (1.0, 0.1), (1.0, 0.1)),  # alpha is the rank: s is 1
    ],
)
def test_a_bias_of_b_is_behind_the_scaling(options, adamw, sgd):
    build = partial(adapted, lora_bias=True, **options)
    model = build(rank=16)
    plan = paramz.parametrize_(model, "lora", base=build(rank=4))
    assert Plan.from_json(plan.to_json()) == plan
    assert rate(plan, model, "adamw", BIAS) == pytest.approx(adamw)
    assert rate(plan, model, "sgd", BIAS) == pytest.approx(sgd)
    assert sum("adapters" in note for note in plan.notes) == 1
    wide = paramz.make_plan(
        build(64, 16), "mup+lora", base=lambda width: build(width, 4), base_width=32,
        example=torch.arange(11)[None],
    )  # fmt: skip
    assert rate(wide, build(64, 16), "adamw", BIAS) == pytest.approx(adamw)
    matrices, rest = plan.split_groups(model, muon=dict(lr=1.0), adamw=dict(lr=1.0))
    assert not any(BIAS in group["names"] for group in matrices)
    assert any(BIAS in group["names"] for group in rest)


@pytest.mark.parametrize("field", ["kasa_config", "monteclora_config", "arrow_config"])
def test_variants_of_lora_without_a_rule_are_refused_by_their_option(field):
    model = adapted(rank=8)
    setattr(model.peft_config["default"], field, object())
    with pytest.raises(ValueError, match=f"kind LORA: with {field}, .* Keep the rank"):
        paramz.make_plan(model, "lora", base=adapted(rank=4))
