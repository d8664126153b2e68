"""Plans that were saved before the package was laid out in folders still load and mean the same."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import paramz
from paramz.theory.power import Power

SAVED = Path(__file__).parent / "saved_before"
NAMES = ("tied_mup", "completep", "weight_norm", "umup")
OPTIMIZERS = {
    "adamw": {"lr": 0.01, "weight_decay": 0.1},
    "sgd": {"lr": 0.1, "weight_decay": 1e-4},
    "lion": {"lr": 0.01},
}


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)


class Net(nn.Module):
    """An embedding that is the readout, too, torch's attention, and blocks."""

    def __init__(self, width=16, depth=2):
        super().__init__()
        self.emb = nn.Embedding(11, width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 11, bias=False)
        self.head.weight = self.emb.weight


def mlp(width=8):
    return nn.Sequential(
        nn.Linear(4, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 2)
    )


def planned(name):
    """The model and the plan that the saved one was made of, made anew."""
    torch.manual_seed(0)
    if name == "tied_mup":
        model = Net(64)
        return model, paramz.parametrize_(model, "mup", base=Net)
    if name == "completep":
        model = Net(32, 6)
        branches = paramz.Branches(inside=r"^blocks[.][0-9]+[.]", ends=r"[.]fc2$")
        return model, paramz.parametrize_(
            model, "mup+completep", base=lambda w: Net(w, 2), base_width=16, branches=branches
        )
    model = mlp(32)
    if name == "umup":
        return model, paramz.parametrize_(model, "u-mup", example=torch.randn(8, 4))
    paramz.parametrize_(model, "mup", base=mlp)
    paramz.reparametrize_(model, paramz.WeightNorm())
    return model, paramz.plan_of(model)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_plan_loads_and_gives_the_same_groups(name):
    model, _ = planned(name)
    plan = paramz.Plan.load(SAVED / f"{name}.json")
    groups_before = json.loads((SAVED / f"{name}.groups.json").read_text(encoding="utf-8"))
    names = {id(p): n for n, p in model.named_parameters()}
    for optimizer, settings in OPTIMIZERS.items():
        groups = plan.param_groups(model, optimizer, **settings)
        now = {
            names[id(p)]: [g["lr"], g["weight_decay"], g.get("eps")]
            for g in groups
            for p in g["params"]
        }
        assert now == groups_before[optimizer]


def without_loops(rule):
    def plain(power):
        return Power(**{s: e for s, e in power.exponents if s != "loops"})

    return replace(rule, **{each.name: plain(getattr(rule, each.name)) for each in fields(rule)})


@pytest.mark.parametrize("name", NAMES)
def test_the_same_model_has_the_same_plan_today(name):
    _, plan = planned(name)
    before = paramz.Plan.load(SAVED / f"{name}.json")
    # muP has got rules for a role that these models lack, and depth schemes powers of loops, which
    # are 1 where no block is shared.
    table, saved = plan.parametrization.rules, before.parametrization.rules
    # Routers started like readouts then, and the loaded table has rows that say so.
    saved = {(column, role): rule for (column, role), rule in saved.items() if role != "router"}
    assert {key: without_loops(table[key]) for key in saved} == saved
    assert {role for _, role in table.keys() - saved.keys()} <= {"inward"}
    assert replace(plan, parametrization=before.parametrization) == before
    assert plan.summary().cells == before.summary().cells
