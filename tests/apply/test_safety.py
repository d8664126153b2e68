"""What would silently make muP something else is detected, with what to do instead."""

import math
import re
import warnings

import pytest
import torch
from cases import attention_classifier, gpt, llama, mlp, tied_gpt
from torch import nn
from torch.optim import lr_scheduler as schedulers

import paramz


def planned(build=mlp, width=32, base=8):
    torch.manual_seed(0)
    model = build(width)
    return model, paramz.parametrize_(model, "mup", base=build, base_width=base)


def scheduled(kind, **options):
    model, plan = planned()
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1))
    before = [(g["lr"], g["betas"]) for g in optimizer.param_groups]
    scheduler = kind(optimizer, **options)
    set_by_it = [(g["lr"], g["betas"]) for g in optimizer.param_groups]
    state = {k: v for k, v in scheduler.state_dict().items() if k != "_schedulers"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        paramz.check_schedule(scheduler, plan.param_groups(model, "adamw", lr=0.1))
    # Neither the optimizer nor the scheduler moved.
    assert [(g["lr"], g["betas"]) for g in optimizer.param_groups] == set_by_it
    assert {k: v for k, v in scheduler.state_dict().items() if k != "_schedulers"} == state
    assert len(before) > 1
    return [str(w.message) for w in caught]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (schedulers.LambdaLR, {"lr_lambda": lambda step: max(0.0, 1 - step / 100)}),
        (schedulers.LinearLR, {}),
        (schedulers.StepLR, {"step_size": 10}),
        (schedulers.ExponentialLR, {"gamma": 0.9}),
        (schedulers.PolynomialLR, {"total_iters": 50}),
        (schedulers.CosineAnnealingLR, {"T_max": 50}),
        (schedulers.ReduceLROnPlateau, {}),
    ],
)
def test_schedules_that_multiply_pass(kind, options):
    assert scheduled(kind, **options) == []


@pytest.mark.parametrize(
    ("kind", "options", "fix"),
    [
        (schedulers.OneCycleLR, {"max_lr": 0.1, "total_steps": 50}, "max_lr=.g.'lr'. for g in"),
        (schedulers.CosineAnnealingLR, {"T_max": 50, "eta_min": 0.01}, "use eta_min=0"),
        (schedulers.ReduceLROnPlateau, {"min_lr": 0.05}, "min_lr as a list"),
        (
            schedulers.CyclicLR,
            {"base_lr": 0.01, "max_lr": 0.1, "cycle_momentum": False},
            "base_lr and max_lr as lists",
        ),
    ],
)
def test_schedules_that_set_absolute_rates_are_told(kind, options, fix):
    (message,) = scheduled(kind, **options)
    assert f"{kind.__name__} breaks the ratios between the plan's groups at step" in message
    assert re.search(fix, message)


def test_a_plateau_that_takes_small_changes_for_none_is_told_what_ends_that():
    """Below its eps of 1e-8 some groups' rates fall and others' stay; floors are no cure."""
    model, plan = planned(width=16)
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.02))
    with pytest.warns(UserWarning, match="ReduceLROnPlateau breaks the ratios.*pass eps=0, and"):
        paramz.check_schedule(schedulers.ReduceLROnPlateau(optimizer))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paramz.check_schedule(schedulers.ReduceLROnPlateau(optimizer, eps=0))


def test_one_cycle_with_a_rate_per_group_passes():
    model, plan = planned()
    groups = plan.param_groups(model, "adamw", lr=0.1)
    rates = [g["lr"] for g in groups]
    scheduler = schedulers.OneCycleLR(torch.optim.AdamW(groups), max_lr=rates, total_steps=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paramz.check_schedule(scheduler, plan.param_groups(model, "adamw", lr=0.1))


def test_schedules_of_transformers():
    from transformers import get_cosine_schedule_with_warmup, get_wsd_schedule

    assert not scheduled(get_cosine_schedule_with_warmup, num_warmup_steps=5, num_training_steps=50)
    assert not scheduled(
        get_wsd_schedule, num_warmup_steps=5, num_decay_steps=20, num_training_steps=50
    )


def test_a_schedule_of_another_optimizer():
    model, plan = planned()
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    groups = plan.param_groups(model, "adamw", lr=0.1)
    with pytest.raises(ValueError, match=r"a tensor \(2, 2\) of the optimizer is in none"):
        paramz.check_schedule(schedulers.LinearLR(other), groups)


def norms(width):
    """The global gradient norm at init, plain and in units of the base; 8 draws."""
    plain, ours = [], []
    ids = torch.randint(11, (4, 6), generator=torch.Generator().manual_seed(1))
    for seed in range(8):
        torch.manual_seed(seed)
        model = gpt(width)
        plan = paramz.parametrize_(model, "mup", base=gpt, base_width=32)
        loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.roll(-1, 1).flatten())
        loss.backward()
        gradients = [p.grad for p in model.parameters()]
        plain.append(float(nn.utils.get_total_norm(gradients)))
        ours.append(float(paramz.clip_grad_norm_(plan, model, math.inf)))
    return sum(plain) / 8, sum(ours) / 8


def test_the_norm_in_units_of_the_base_does_not_move_with_width():
    small, large = norms(32), norms(512)
    per_doubling = [math.log2(b / a) / 4 for a, b in zip(small, large, strict=True)]
    assert per_doubling[0] > 0.3  # the readout's gradient grows like width^1/2
    assert abs(per_doubling[1]) < 0.1


def test_at_the_base_it_is_the_plain_norm():
    model, plan = planned(width=8)
    model(torch.randn(4, 6)).square().sum().backward()
    plain = nn.utils.get_total_norm([p.grad for p in model.parameters()])
    found = paramz.clip_grad_norm_(plan, model, 0.5)
    assert torch.allclose(found, plain)
    clipped = nn.utils.get_total_norm([p.grad for p in model.parameters()])
    assert float(clipped) == pytest.approx(0.5, rel=1e-5)


def test_folded_or_not_the_norm_is_the_same():
    """Multipliers in hooks change raw gradients, and the expected ratio with them."""
    found = []
    for fold in (True, False):
        torch.manual_seed(0)
        model = mlp(32).double()
        plan = paramz.parametrize_(model, "mean-field", base=lambda w=8: mlp(w).double(), fold=fold)
        model(torch.ones(4, 6, dtype=torch.float64)).square().sum().backward()
        found.append(float(paramz.clip_grad_norm_(plan, model, 1.0)))
    assert found[0] == pytest.approx(found[1], rel=0.2)


def test_schemes_without_a_rule_for_gradients_say_so():
    model = mlp(32)
    plan = paramz.parametrize_(model, "sp", base=mlp)
    with pytest.raises(ValueError, match="sp has no rule for the size of gradients"):
        paramz.clip_grad_norm_(plan, model, 1.0)


def test_an_unknown_optimizer_is_named_with_its_closest_relative():
    model, plan = planned()

    class AdmW(torch.optim.Optimizer):
        pass

    with pytest.raises(ValueError, match="closest name is 'adamw'") as error:
        plan.param_groups(model, AdmW, lr=0.1)
    assert "dataclasses.replace(paramz.families.ADAMW, name='admw')" in str(error.value)


@pytest.mark.parametrize("build", [gpt, tied_gpt, attention_classifier])
def test_a_checkpoint_without_its_plan_is_refused(build, tmp_path):
    model, plan = planned(build)
    file = tmp_path / "model.pt"
    torch.save(model.state_dict(), file)
    plain = build(32)
    paramz.check_checkpoint(plain, file)  # nobody said that there is a plan
    plan.save(tmp_path / "paramz.json")
    plain.load_state_dict(torch.load(file))  # all keys match
    with pytest.raises(ValueError, match="was trained under mup") as error:
        paramz.check_checkpoint(plain, file)
    text = str(error.value)
    assert "the plain model has another function" in text
    assert "paramz.restore_(model, paramz.Plan.load(" in text
    assert "paramz.fold_(model)" in text
    paramz.check_checkpoint(model, tmp_path)
    paramz.restore_(plain, paramz.Plan.load(tmp_path / "paramz.json"))
    paramz.check_checkpoint(plain, file)


def test_a_checkpoint_of_the_plain_function_still_wants_the_learning_rates(tmp_path):
    _, plan = planned(mlp)
    plan.save(tmp_path / "paramz.json")
    with pytest.raises(ValueError, match="its function is the plain one"):
        paramz.check_checkpoint(mlp(32), tmp_path)


def test_a_plan_inside_what_is_planned_is_seen():
    inner, _ = planned(mlp)
    outer = nn.Sequential(inner)
    with pytest.raises(ValueError, match="0 inside this Sequential is under a plan already"):
        paramz.parametrize_(outer, "mup", base=lambda w=8: nn.Sequential(mlp(w)))


def test_hugging_face_checkpoints_carry_their_plan(tmp_path):
    model = llama(64, tied=True)
    plan = paramz.parametrize_(model, "mup", base=32)
    paramz.hf.save_pretrained(model, tmp_path)
    assert paramz.Plan.load(tmp_path / "paramz.json") == plan
    ids = torch.randint(40, (2, 8))

    again = paramz.hf.from_pretrained(type(model), tmp_path)
    assert paramz.plan_of(again) == plan
    assert torch.equal(again(ids).logits, model(ids).logits)
    again, said = paramz.hf.from_pretrained(type(model), tmp_path, output_loading_info=True)
    assert paramz.plan_of(again) == plan and not said["missing_keys"]

    bare = type(model).from_pretrained(tmp_path)
    assert torch.equal(bare(ids).logits, model(ids).logits)
    assert bare.config.paramz == "mup, plan in paramz.json, weights folded"
    with pytest.raises(ValueError, match=r"To train it further load it with paramz.hf.from_pre"):
        paramz.check_checkpoint(bare, tmp_path)
    with pytest.raises(ValueError, match="loaded folded .*factors would count twice"):
        paramz.restore_(bare, plan)
    with pytest.raises(ValueError, match="was trained under mup, plan in paramz.json, .*: scaling"):
        paramz.parametrize_(bare, "mup", base=32)
    with pytest.raises(ValueError, match="under no plan"):
        paramz.hf.save_pretrained(llama(64), tmp_path)
