"""Depth schemes: the formulas, the identity at the base, and the same training when folded."""

import pickle
from fractions import Fraction
from functools import partial

import pytest
import torch
from cases import Block, build64, resnet, train
from torch import nn

import paramz
from paramz.theory.power import Power
from paramz.theory.printed import HALF
from paramz.theory.tables import COMPLETEP, DEPTH_MUP


class Deep(nn.Module):
    """A GPT of any width and depth."""

    def __init__(self, width=8, depth=2):
        super().__init__()
        self.tokens = nn.Embedding(11, width)
        self.blocks = nn.ModuleList(Block(width, heads=2) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 11, bias=False)

    def forward(self, ids):
        x = self.tokens(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def batch():
    ids = torch.randint(11, (4, 6), generator=torch.Generator().manual_seed(7))
    return ids, ids.roll(-1, dims=-1)


@pytest.mark.parametrize(("table", "a"), [(DEPTH_MUP, HALF), (COMPLETEP, Fraction(1))])
@pytest.mark.parametrize(("column", "e"), [("sgd", Fraction(0)), ("adam", HALF), ("muon", HALF)])
def test_every_role_has_the_formula(table, a, column, e):
    # The gradient in a branch is depth^-a; depth updates of degree 1 - 2e must add up to one. The
    # runs of a shared block add up by themselves: at init, and in its gradient.
    blocks = Power(depth=1, loops=-1)
    assert table.branch == blocks**-a * Power(loops=-1)
    for role in ("input", "hidden", "output", "expert", "router"):
        rule = table.rule(column, role)
        assert rule.lr == blocks ** (2 * a * (1 - e) - 1)
        assert rule.lr * rule.weight_decay == Power()
        assert rule.eps == (Power() if column == "sgd" else blocks**-a)


SCHEMES = ("mup+depth-mup", "mup+completep", "mup+completep+moe", "sp+completep", "ntp+depth-mup")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_at_the_base_nothing_changes(scheme):
    torch.manual_seed(0)
    model = Deep(8, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plan = paramz.parametrize_(model, scheme, base=partial(Deep, depth=3), base_width=8)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not plan.branches
    for optimizer in ("adamw", "sgd", "adam", "lion"):
        eps = {"eps": 0.01} if optimizer in ("adam", "adamw") else {}
        for group in plan.param_groups(model, optimizer, lr=0.3, weight_decay=0.7, **eps):
            assert (group["lr"], group["weight_decay"]) == (0.3, 0.7)
            assert group.items() >= eps.items()


OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}


@pytest.mark.parametrize("scheme", ["mup+depth-mup", "mup+completep"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_folding_the_branch_factor_is_the_same_training(scheme, optimizer):
    # Ratio 4 in depth: the factors are powers of two, so that rounding cannot hide a mistake.
    def trajectory(fold):
        model = build64(Deep, 16, depth=8)
        plan = paramz.parametrize_(
            model, scheme, base=lambda w=8: build64(Deep, w, depth=2), fold=fold
        )
        assert len(plan.branches) == (0 if fold else 16)
        eps = {} if optimizer == "sgd" else {"eps": 1e-2}
        groups = plan.param_groups(model, optimizer, lr=0.05, weight_decay=0.1, **eps)
        return train(model, OPTIMIZERS[optimizer](groups), batch(), steps=6)

    folded, hooked = trajectory(True), trajectory(False)
    assert (folded - folded[0]).abs().max() > 1e-3
    assert torch.allclose(folded, hooked, rtol=0, atol=1e-12)


def gpt2(width=32, depth=2):
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=width, n_layer=depth, n_head=4, vocab_size=40, n_positions=16,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


@pytest.mark.parametrize(("scheme", "power"), [("mup+depth-mup", -0.5), ("mup+completep", -1.0)])
def test_an_init_that_falls_with_depth_is_replaced_and_not_counted_twice(scheme, power):
    # GPT-2 starts c_proj at 0.02 / sqrt(2 depth), which is Depth-muP's own factor.
    torch.manual_seed(0)
    model = gpt2(64, depth=8)
    own = {name: value.clone() for name, value in model.named_parameters()}
    base = gpt2(64, depth=2)
    plan = paramz.parametrize_(model, scheme, base=base, wider=gpt2(128, depth=2))
    assert "the model's own init of 16 tensors falls like depth^-1/2: the sch" in plan.notes[1]
    ends = [row for row in plan.rows if row.name.endswith("c_proj.weight")]
    assert len(ends) == 16
    for row in ends:
        std = float(dict(model.named_parameters())[row.name].std())
        assert std == pytest.approx(0.02 / 4**0.5 * 4**power, rel=0.05)
        same = torch.equal(own[row.name], dict(model.named_parameters())[row.name])
        assert same == (scheme == "mup+depth-mup")


def test_the_gain_of_a_norm_that_ends_a_branch_takes_the_factor():
    model = resnet("basic", depths=(8, 8))
    base, wider = resnet("basic"), resnet("basic")
    wider.classifier[1] = nn.Linear(32, 2)  # only there to grow
    model.classifier[1] = nn.Linear(16, 2)
    plan = paramz.parametrize_(model, "mup+completep", base=base, wider=wider)
    gains = {row.name for row in plan.rows if row.ends and row.name.endswith("weight")}
    assert len(gains) == 16
    for name, parameter in model.named_parameters():
        if name.endswith("normalization.weight"):
            assert set(parameter.tolist()) == {0.25 if name in gains else 1.0}


def test_init_on_meta_draws_constants_with_their_factor():
    with torch.device("meta"):
        model = Deep(16, 8)
    plan = paramz.parametrize_(model, "mup+completep", base=partial(Deep, depth=2), base_width=8)
    model.to_empty(device="cpu")
    paramz.init_(model)
    rows = {row.name: row for row in plan.rows}
    name = "blocks.5.mlp.2.weight"
    assert rows[name].ends
    std = float(dict(model.named_parameters())[name].std())
    assert std == pytest.approx(plan.init_std(rows[name]), rel=0.1)


def test_plans_round_trip_and_survive_pickle(tmp_path):
    model = Deep(16, 4)
    plan = paramz.parametrize_(
        model, "mup+completep", base=partial(Deep, depth=2), base_width=8, fold=False
    )
    plan.save(tmp_path / "plan.json")
    assert paramz.Plan.load(tmp_path / "plan.json") == plan
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert "depth times 2: residual branches times 0.5" in str(plan.summary())


def test_depth_needs_a_scheme_that_scales_it():
    with pytest.raises(ValueError, match="blocks has 4 modules and the base 2. Make them equal, o"):
        paramz.parametrize_(Deep(16, 4), "mup", base=Deep)
    with pytest.raises(ValueError, match="completep has no rule for width. Multiply it .*mup.comp"):
        paramz.parametrize_(Deep(16, 4), "completep", base=Deep)


def test_a_shallower_target_reads_the_same_rules():
    model = Deep(8, 1)
    plan = paramz.parametrize_(model, "mup+completep", base=partial(Deep, depth=4))
    assert {row.ratios["depth"] for row in plan.rows if row.block} == {0.25}
    assert plan.rulebook.branch_factor(next(row for row in plan.rows if row.ends)) == 4.0
