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
    part["sqrt-width"] = 0.025  # lr 1/4, decay 4^1/2
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
    assert transfer_run("sde", "sgd", lr=0.1, momentum=0.9, batch=4, steps=0.25)["lr"] == 0.4


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
    optimizer = "adamh" if HORIZONS[rule].spheres else "adamw"
    assert transfer_run(rule, optimizer, **known) == known


def test_runs_that_cannot_be():
    with pytest.raises(ValueError, match="no horizon rule 'sdee'; there are sde, completed, times"):
        transfer_run("sdee", "adamw", lr=1.0)
    with pytest.raises(ValueError, match="'timescale' has no column sgd; it has adam; constant ha"):
        transfer_run("timescale", "sgd", lr=1.0)
    with pytest.raises(ValueError, match="1 - beta = 0.1 times 16 is more than 1: at this batch"):
        transfer_run("sde", "adamw", lr=1.0, betas=(0.9, 0.99), batch=16, steps=1 / 16)
    with pytest.raises(ValueError, match="batch=0 is no ratio"):
        transfer_run("sde", "adamw", lr=1.0, batch=0)


def test_nothing_that_changes_is_ignored():
    with pytest.raises(ValueError, match="is for the same number of tokens.*give steps=0.25, "):
        transfer_run("sde", "adamw", lr=1.0, batch=4)
    with pytest.raises(ValueError, match="is for the same batch size, and batch=4: .*'sde[+]tok"):
        transfer_run("token-horizon", "adamw", lr=1.0, batch=4)
    with pytest.raises(ValueError, match="completed and token-horizon both say how .* with token"):
        transfer_run("completed+token-horizon", "adamw", lr=1.0)
    with pytest.raises(ValueError, match="no Shampoo with exponents that sum to 1; it has adam"):
        transfer_run("sde", paramz.optim.Shampoo([torch.ones(2, 2)], exponent=1 / 2), lr=1.0)


def test_rules_for_batch_and_tokens_multiply():
    run = transfer_run("sde+token-horizon", "adamw", lr=1.0, weight_decay=0.1, batch=4, steps=2)
    assert run["lr"] == pytest.approx(2 * 8**-0.32)
    # Decay keeps its averaging time in steps of the schedule: lr * wd * steps, at any batch size.
    whole = transfer_run("sde+timescale", "adamw", lr=1.0, weight_decay=0.1, batch=4, steps=2)
    assert whole["lr"] * whole["weight_decay"] * 2 == pytest.approx(0.1)


@pytest.mark.parametrize("optimizer", ["muon", "soap", "shampoo", "kfac", "sgd"])
def test_optimizers_beside_adam_have_a_batch_rule(optimizer):
    run = transfer_run("sde", optimizer, lr=1.0, eps=1.0, batch=4, steps=0.25)
    normalised = optimizer not in ("kfac", "sgd")
    assert run["lr"] == (2.0 if normalised else 4.0)
    # Shampoo's is added to G G^T, whose noise falls as the square of the gradient's.
    assert run["eps"] == {"shampoo": 0.25, "sgd": 1.0, "kfac": 1.0}.get(optimizer, 0.5)


def test_decay_in_the_gradient_and_epsilons_without_a_size_stay():
    """Four times the batch halves the gradient's noise, and with it what decay is added to."""
    known = {"lr": 1.0, "weight_decay": 0.1, "batch": 4, "steps": 0.25}
    for rule in ("sde", "sde+timescale"):
        inside, apart = (transfer_run(rule, name, **known) for name in ("adam", "adamw"))
        assert apart["lr"] * apart["weight_decay"] == pytest.approx(4 * 0.1)
        # A step takes lr * decay / |g| away.
        assert inside["lr"] * inside["weight_decay"] * 2 == pytest.approx(4 * 0.1)
    assert transfer_run("sde", "normuon", lr=1.0, eps=1.0, batch=4, steps=0.25)["eps"] == 1.0


def test_nanochat_scales_muon_and_adam_alike():
    for optimizer in ("muon", "adamw"):
        run = transfer_run("nanochat", optimizer, lr=1.0, weight_decay=0.2, batch=4, steps=2)
        assert (run["lr"], run["weight_decay"]) == (2.0, 0.2 * 2 / 8)


def test_sqrt_width_decays_matrices_only():
    model = mlp(32)
    plan = paramz.parametrize_(model, "mup", base=mlp)
    groups = plan.param_groups(model, "adamw", lr=0.5, weight_decay=0.1, decay="sqrt-width")
    found = {row.role: row.name for row in plan.rows}
    by_id = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    decay = {role: by_id[id(model.get_parameter(name))] for role, name in found.items()}
    assert decay["hidden"] == pytest.approx(0.2) and decay["output"] == pytest.approx(0.2)
    assert decay["input"] == decay["vector"] == 0.0
