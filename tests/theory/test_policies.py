"""Weight-decay policies and rules for another batch size or number of steps."""

import pytest
import torch
from cases import mlp

import paramz
from paramz.theory.decay import DECAYS
from paramz.theory.horizon import HORIZONS, transfer_run


def decays(policy, optimizer="adamw", lr=0.5, **options):
    model = mlp(32)
    plan = paramz.parametrize_(model, "mup", base=mlp)
    groups = plan.param_groups(model, optimizer, lr=lr, weight_decay=0.1, decay=policy, **options)
    by_id = {id(p): g for g in groups for p in g["params"]}
    return [
        (by_id[id(model[i].weight)]["lr"], by_id[id(model[i].weight)]["weight_decay"])
        for i in (0, 2, 6)
    ]


def test_lr_constant_keeps_what_a_step_takes_away():
    assert decays(None) == decays("lr-constant")
    assert [lr * decay for lr, decay in decays("lr-constant")] == pytest.approx([0.05] * 3)


def test_coupled_keeps_the_number():
    assert [decay for _, decay in decays("coupled")] == [0.1] * 3


def test_independent_takes_the_same_part_at_any_learning_rate():
    for lr in (0.5, 0.125):
        products = [rate * decay for rate, decay in decays("independent", lr=lr)]
        assert products == pytest.approx([0.1] * 3)


def test_one_over_width_is_independent_decay_that_falls():
    products = [rate * decay for rate, decay in decays("1/width")]
    assert products == pytest.approx([0.1 / 4] * 3)


@pytest.mark.parametrize("policy", DECAYS)
def test_policies_move_weights_as_they_say(policy):
    # With a zero gradient a step is decay alone.
    model = mlp(32)
    plan = paramz.parametrize_(model, "mup", base=mlp)
    groups = plan.param_groups(model, "adamw", lr=0.5, weight_decay=0.1, decay=policy)
    before = model[2].weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(groups).step()
    part = {"lr-constant": 0.05, "coupled": 0.0125, "independent": 0.1, "1/width": 0.025}
    torch.testing.assert_close(model[2].weight.detach(), before * (1 - part[policy]))


def test_policies_that_cannot_be():
    with pytest.raises(ValueError, match="decay='constant' is no policy; there are lr-constant, "):
        decays("constant")
    with pytest.raises(ValueError, match="decay='independent' needs decay apart from the gradient"):
        decays("independent", "adam")


def test_the_square_root_rule_by_hand():
    run = transfer_run(
        "sde", "adamw", lr=1e-3, weight_decay=0.1, eps=1e-8, betas=(0.9, 0.95), batch=4, steps=0.25
    )
    assert run == {
        "lr": 2e-3, "weight_decay": 0.2, "eps": 5e-9, "betas": (0.6, 0.8),
    }  # fmt: skip
    assert transfer_run("sde", "sgd", lr=0.1, momentum=0.9, batch=4)["lr"] == 0.4


def test_rules_agree_at_a_fixed_number_of_tokens():
    known = {"lr": 1e-3, "weight_decay": 0.1, "eps": 1e-8, "betas": (0.9, 0.95), "batch": 4.0}
    one, other = (transfer_run(r, "adamw", **known, steps=0.25) for r in ("sde", "completed"))
    for name, value in one.items():
        assert value == pytest.approx(other[name])


def test_decay_averages_over_the_same_part_of_the_run():
    # lr * weight_decay * steps, the number of averaging times in a run.
    for rule in ("completed", "timescale"):
        run = transfer_run(rule, "adamw", lr=1e-3, weight_decay=0.1, steps=8)
        assert run["lr"] * run["weight_decay"] * 8 == pytest.approx(1e-4)


@pytest.mark.parametrize("rule", HORIZONS)
def test_the_same_run_keeps_everything(rule):
    known = {"lr": 1e-3, "weight_decay": 0.1, "eps": 1e-8, "betas": (0.9, 0.95)}
    assert transfer_run(rule, "adamw", **known) == known


def test_runs_that_cannot_be():
    with pytest.raises(ValueError, match="no horizon rule 'sdee'; there are sde, completed, times"):
        transfer_run("sdee", "adamw", lr=1.0)
    with pytest.raises(ValueError, match="'timescale' has no column sgd; it has adam"):
        transfer_run("timescale", "sgd", lr=1.0)
    with pytest.raises(ValueError, match="1 - beta = 0.1 times 16 is more than 1: at this batch"):
        transfer_run("sde", "adamw", lr=1.0, betas=(0.9, 0.99), batch=16)
