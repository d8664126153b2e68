"""A constructed optimizer is the plan's, or the message says what is not."""

import dataclasses
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR

import paramz
from paramz.optim.make import make_optimizers

adafactor = pytest.importorskip("transformers.optimization").Adafactor
PLAIN = {"scale_parameter": False, "relative_step": False, "warmup_init": False}


def net(width=8):
    return nn.Sequential(
        nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width, bias=False), nn.ReLU(),
        nn.Linear(width, 3),
    )  # fmt: skip


@pytest.fixture
def planned():
    torch.manual_seed(0)
    model = net(32)
    return model, paramz.parametrize_(model, "mup", base=net)


def refused(plan, *optimizers, **options):
    with pytest.raises(ValueError) as error:
        plan.check(*optimizers, **options)
    return str(error.value)


# ---- Right ones pass -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["AdamW", "Adam", "NAdam", "SGD", "RMSprop", "Adafactor"])
def test_an_optimizer_of_torch_with_the_plans_groups_passes(planned, kind):
    model, plan = planned
    made = getattr(torch.optim, kind)
    plan.check(made(plan.param_groups(model, made, lr=0.1)), model=model)
    plan.check(made(plan.param_groups(model, kind, lr=0.1)))


@pytest.mark.parametrize("name", ["adamw", "muon", "kfac", "foof", "shampoo", "adafactor", "lion"])
def test_what_make_optimizers_made_passes(planned, name):
    model, plan = planned
    if name == "lion":  # not torch's: a class of the user's with that name

        class Lion(torch.optim.SGD):
            pass

        plan.check(Lion(plan.param_groups(model, "lion", lr=0.1)))
        return
    plan.check(*make_optimizers(plan, model, name, lr=0.1), model=model)


def test_roles_tuned_apart_and_frozen_tensors_pass(planned):
    model, plan = planned
    model[0].requires_grad_(False)
    optimizer = torch.optim.AdamW(
        plan.param_groups(model, "adamw", lr=0.1, role_lr={"output": 0.5, "vector": 0.0})
    )
    plan.check(optimizer, model=model)
    assert "0.weight, 0.bias is in no group" in refused(plan, optimizer)
    assert "if they are frozen, pass model=" in refused(plan, optimizer)


def test_a_wrapped_optimizer_and_a_loaded_one_pass(planned, tmp_path):
    model, plan = planned
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1))
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    again = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.3))
    again.load_state_dict(torch.load(tmp_path / "optimizer.pt"))
    plan.check(again, model=model)

    class Wrapper:
        def __init__(self, optimizer):
            self.optimizer, self.param_groups = optimizer, optimizer.param_groups

    plan.check(Wrapper(optimizer), model=model)


# ---- Groups --------------------------------------------------------------------------------------


def test_groups_that_no_plan_made_are_named_with_the_call_that_makes_them(planned):
    model, plan = planned
    text = refused(plan, torch.optim.AdamW(model.parameters(), lr=0.1))
    assert "AdamW has a group of 5 tensors that no plan made, all at lr 0.1" in text
    assert "AdamW(plan.param_groups(model, AdamW, lr=...))" in text


def test_a_lost_group_is_named(planned):
    model, plan = planned
    groups = plan.param_groups(model, "adamw", lr=0.1)
    assert "is in no group, so it is not trained" in refused(plan, torch.optim.AdamW(groups[:-1]))
    hidden, rest = plan.split_groups(model, muon={"lr": 0.1}, adamw={"lr": 0.1})
    muon, adamw = torch.optim.Muon(hidden), torch.optim.AdamW(rest)
    plan.check(muon, adamw)
    assert "2.weight is in no group" in refused(plan, adamw, model=model)


def test_a_tensor_that_is_trained_twice_is_named(planned):
    model, plan = planned
    one = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1))
    hidden, _ = plan.split_groups(model, muon={"lr": 0.1}, adamw={"lr": 0.1})
    assert "2.weight is in more than one group" in refused(plan, one, torch.optim.Muon(hidden))


def test_groups_of_another_model_or_of_tensors_that_were_replaced_are_named(planned):
    model, plan = planned
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1))
    model[4].weight = nn.Parameter(model[4].weight.detach().clone())
    assert "another tensor than the model's 4.weight" in refused(plan, optimizer, model=model)
    other = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 2), nn.Linear(2, 2))
    build = lambda w=8: nn.Sequential(nn.Linear(4, w), nn.Linear(w, 2), nn.Linear(2, 2))  # noqa: E731
    strange = paramz.parametrize_(other, "mup", base=build).param_groups(other, "adamw", lr=0.1)
    assert "1.weight" in refused(plan, torch.optim.AdamW(strange))


def test_a_learning_rate_that_was_set_by_hand_is_named(planned):
    model, plan = planned
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1))
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    plan.check(optimizer)
    optimizer.param_groups[0]["lr"] = 0.01
    text = refused(plan, optimizer)
    assert "the ratios between the learning rates are no longer the plan's" in text
    assert "0.01, 0.1 times" in text


# ---- Schedules -----------------------------------------------------------------------------------


def test_schedules_are_run_with_it(planned):
    model, plan = planned
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1))
    plan.check(optimizer, schedulers=[LinearLR(optimizer)])
    floor = CosineAnnealingLR(optimizer, 50, eta_min=0.01)
    assert "use eta_min=0" in refused(plan, optimizer, schedulers=[floor])
    assert "use eta_min=0" in refused(plan, optimizer, schedulers=floor)
    # One that has set its own rates is seen without being given.
    OneCycleLR(optimizer, max_lr=0.1, total_steps=50)
    assert "ratios between the learning rates" in refused(plan, optimizer)


def test_a_schedule_in_the_place_of_an_optimizer_is_named(planned):
    model, plan = planned
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1))
    for schedule in (LinearLR(optimizer), ByUpdate(optimizer, 0.0)):
        said = f"got {type(schedule).__name__} in the place of an optimizer.*schedulers=scheduler"
        with pytest.raises(TypeError, match=said):
            plan.check(optimizer, schedule)


def test_an_optimizer_or_a_function_is_no_schedule_and_no_groups(planned):
    model, plan = planned
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1))
    with pytest.raises(
        TypeError, match=r"got the optimizer AdamW: .*LambdaLR\(optimizer, function"
    ):
        paramz.check_schedule(optimizer, lambda step: 1.0)
    with pytest.raises(TypeError, match=r"groups=<lambda> are no groups: leave them out"):
        paramz.check_schedule(LinearLR(optimizer), lambda step: 1.0)


class ByEpoch:
    """A schedule whose step needs the epoch, the updates so far, or a loss, as timm's do."""

    def __init__(self, optimizer, floor):
        self.optimizer, self.floor = optimizer, floor
        self.first = [group["lr"] for group in optimizer.param_groups]

    def step(self, epoch, metric=None):
        for group, lr in zip(self.optimizer.param_groups, self.first, strict=True):
            group["lr"] = self.floor + (lr - self.floor) * 0.9**epoch


class ByUpdate(ByEpoch):
    def step(self, metric):
        assert metric > 0

    def step_update(self, num_updates, metric=None):
        super().step(num_updates)


@pytest.mark.parametrize("kind", [ByEpoch, ByUpdate])
def test_a_schedule_that_is_told_the_time_is_told_it(planned, kind):
    model, plan = planned
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paramz.check_schedule(kind(optimizer, 0.0))
    with pytest.warns(UserWarning, match=f"{kind.__name__} breaks the ratios .* at step 2: it"):
        paramz.check_schedule(kind(optimizer, 1e-3))
    plan.check(optimizer)


def test_a_schedule_without_an_optimizer_is_named(planned):
    with pytest.raises(TypeError, match="object has no attribute 'optimizer'"):
        paramz.check_schedule(object())


# ---- Classes that nobody knows -------------------------------------------------------------------


class AdaMine(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})


class Fused(torch.optim.AdamW):
    """A known class under another name."""


def test_a_class_that_nobody_knows_is_warned_of_and_can_be_declared(planned):
    model, plan = planned
    with pytest.warns(UserWarning, match="does not know AdaMine, whose groups were made for adamw"):
        plan.check(AdaMine(plan.param_groups(model, "adamw", lr=0.1)), model=model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        declared = dataclasses.replace(paramz.family("adamw"), name="adamine")
        plan.check(AdaMine(plan.param_groups(model, declared, lr=0.1)), model=model)
        plan.check(Fused(plan.param_groups(model, "adamw", lr=0.1)), model=model)


# ---- Factors of an optimizer's own ---------------------------------------------------------------


class TimmsMuon(torch.optim.Optimizer):
    """Muon with timm's options and default; its steps are not needed here."""

    def __init__(self, params, lr=0.02, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"):
        defaults = {"lr": lr, "weight_decay": weight_decay, "adjust_lr_fn": adjust_lr_fn}
        super().__init__(params, defaults)


TimmsMuon.__name__ = "Muon"


class DionsMuon(torch.optim.Optimizer):
    def __init__(self, params, lr=0.02, adjust_lr="spectral_norm"):
        super().__init__(params, {"lr": lr, "adjust_lr": adjust_lr})


DionsMuon.__name__ = "Muon"


class SilentMuon(torch.optim.Optimizer):
    def __init__(self, params, lr=0.02):
        super().__init__(params, {"lr": lr})


SilentMuon.__name__ = "Muon"


def hidden(plan, model, **muon):
    return plan.split_groups(model, muon={"lr": 0.1, **muon}, adamw={"lr": 0.1})[0]


def muon_checked(plan, model, groups, kind, **options):
    _, rest = plan.split_groups(model, muon={"lr": 0.1}, adamw={"lr": 0.1})
    plan.check(kind(groups, **options), torch.optim.AdamW(rest), model=model)


@pytest.mark.parametrize(
    ("options", "lr"),
    [
        ({}, 0.1),
        ({"adjust_lr_fn": "match_rms_adamw"}, 0.05),
        ({"optimizer": TimmsMuon}, 0.05),
        ({"optimizer": TimmsMuon, "adjust_lr_fn": "rms_to_rms"}, 0.1),
        ({"optimizer": DionsMuon}, 0.1),
        ({"optimizer": DionsMuon, "adjust_lr": "rms_norm"}, 0.05),
        ({"optimizer": SilentMuon, "adjust_lr_fn": "none"}, 0.1),
        ({"optimizer": torch.optim.Muon}, 0.1),
    ],
)
def test_the_factor_is_read_from_the_class_and_its_options(planned, options, lr):
    """A square matrix at 4 times the width: sqrt(max(rows, columns)) is twice the base's."""
    model, plan = planned
    (group,) = hidden(plan, model, **options)
    assert group["lr"] == pytest.approx(lr)
    muon_checked(plan, model, [group], options.get("optimizer", torch.optim.Muon))


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize("by_class", [False, True])
def test_the_muon_of_pytorch_optimizer_takes_the_groups_factor(planned, adjusted, by_class):
    kind = pytest.importorskip("pytorch_optimizer").Muon
    model, plan = planned
    options = (
        {"optimizer": kind, "use_adjusted_lr": adjusted, "use_muon": True}
        if by_class
        else {"adjust_lr_fn": "match_rms_adamw" if adjusted else "original"}
    )
    groups = hidden(plan, model, **options)
    assert groups[0]["lr"] == pytest.approx(0.05 if adjusted else 0.1)
    # What the constructor says goes behind what the groups say.
    muon_checked(plan, model, groups, kind, use_adjusted_lr=not adjusted)


def test_a_muon_that_puts_another_factor_on_its_steps_is_named(planned):
    model, plan = planned
    with pytest.raises(ValueError) as error:
        muon_checked(plan, model, hidden(plan, model), DionsMuon)
    assert (
        "the group of 2.weight in Muon counts on the factor 'original' that its optimizer puts on "
        "its steps, and this Muon has 'rms_to_rms'" in str(error.value)
    )
    assert "plan.param_groups(model, Muon, lr=..., adjust_lr_fn=...)" in str(error.value)


def test_a_muon_that_does_not_say_its_factor_is_refused(planned):
    model, plan = planned
    with pytest.raises(ValueError, match="does not say which factor of a matrix's shape") as error:
        hidden(plan, model, optimizer=SilentMuon)
    assert "adjust_lr_fn='original' for sqrt(max(1, rows/columns))" in str(error.value)


@pytest.mark.parametrize("word", ["rms_to_rms", "spectral"])
def test_a_factor_that_torchs_muon_would_take_for_none_is_refused(planned, word):
    model, plan = planned
    with pytest.raises(ValueError, match=f"adjust_lr_fn={word!r} is no factor of torch"):
        hidden(plan, model, adjust_lr_fn=word)


def test_groups_for_another_optimizer_are_named(planned):
    model, plan = planned
    sgd = torch.optim.SGD(plan.param_groups(model, "adamw", lr=0.1))
    assert "was planned for adamw, whose learning rates are other ones than those of SGD" in (
        refused(plan, sgd)
    )


def test_torchs_adafactor_without_scaling_is_refused(planned):
    model, plan = planned
    with pytest.raises(ValueError, match="has no scale_parameter=False"):
        plan.param_groups(model, torch.optim.Adafactor, lr=0.1, scale_parameter=False)
    groups = plan.param_groups(model, "adafactor", lr=0.1, scale_parameter=False)
    assert "has no scale_parameter=False" in refused(plan, torch.optim.Adafactor(groups))
    plan.check(adafactor(groups))
    with pytest.raises(ValueError, match="has no scale_parameter=False"):
        make_optimizers(plan, model, "adafactor", lr=0.1, scale_parameter=False)


def test_a_rate_that_follows_the_number_of_steps_is_refused(planned):
    model, plan = planned
    with pytest.raises(ValueError, match="relative_step=True takes the learning rate from the"):
        plan.param_groups(model, adafactor, lr=0.1, relative_step=True)
    # The default of the class would do it: the groups say no.
    optimizer = adafactor(plan.param_groups(model, adafactor, lr=0.1))
    assert not any(group["relative_step"] for group in optimizer.param_groups)


WIDTHS = (32, 128, 512)


def slopes(groups_and_optimizer, scheme="mup", widths=WIDTHS):
    """Of the change of hidden features and logits over width, after three steps; 2 seeds."""
    torch.manual_seed(1)
    x, y = torch.randn(64, 6), torch.randint(0, 3, (64,))
    sizes = []
    for width in widths:
        found = []
        for seed in range(2):
            torch.manual_seed(seed)
            model = net(width)
            plan = paramz.parametrize_(model, scheme, base=net, base_width=widths[0])
            optimizers = groups_and_optimizer(plan, model)
            before = model[:3](x).detach(), model(x).detach()
            for _ in range(3):
                model.zero_grad()
                F.cross_entropy(model(x), y).backward()
                for optimizer in optimizers:
                    optimizer.step()
            after = model[:3](x), model(x)
            found.append(
                [(a - b).square().mean().sqrt().item() for a, b in zip(after, before, strict=True)]
            )
        sizes.append(np.mean(found, 0))
    return np.polyfit(np.log2(widths), np.log2(sizes), 1)[0]


def with_adafactor(**options):
    def make(plan, model):
        kind = options.pop("kind", adafactor)
        return [kind(plan.param_groups(model, kind, lr=2**-8, **options))]

    return make


def test_adafactor_without_scaling_transfers_as_it_does_not_under_sp():
    assert abs(slopes(with_adafactor(**PLAIN))).max() < 0.15
    assert abs(slopes(with_adafactor(**PLAIN), "sp")).max() > 0.3


def test_adafactor_of_transformers_with_scaling_transfers():
    assert abs(slopes(with_adafactor(scale_parameter=True))).max() < 0.2


@pytest.mark.parametrize("adjusted", [False, True])
def test_the_step_of_pytorch_optimizers_muon_is_the_tables(adjusted):
    """sqrt(OUT/IN) of a matrix whose sides grow 4 and 16 times, with the package's own factor.

    An orthogonal update has the same size at every width, so the size of a step is that of the lr
    after the factor. (In steps themselves bfloat16 moves it by several percent.)
    """
    kind = pytest.importorskip("pytorch_optimizer").Muon
    from pytorch_optimizer.optimizer.muon import get_adjusted_lr

    build = lambda width, inner: nn.Sequential(  # noqa: E731
        nn.Linear(6, width), nn.Linear(width, inner, bias=False), nn.Linear(inner, 3)
    )
    sizes = []
    for width, inner in ((8, 32), (32, 512)):
        model = build(width, inner)
        plan = paramz.parametrize_(model, "mup", base=build(8, 32), wider=build(16, 64))
        groups = hidden(plan, model, optimizer=kind, use_adjusted_lr=adjusted, use_muon=True)
        (group,) = kind(groups).param_groups
        shape = tuple(model[1].weight.shape)
        sizes.append(get_adjusted_lr(group["lr"], shape, group["use_adjusted_lr"]))
    assert sizes[1] / sizes[0] == pytest.approx(2.0)


# ---- One shape or one tensor per group -----------------------------------------------------------


def test_groups_can_be_split_by_shape_or_by_tensor(planned):
    model = nn.Sequential(*(nn.Linear(32, 32) for _ in range(3)), nn.Linear(32, 64))
    build = lambda w=8: nn.Sequential(*(nn.Linear(w, w) for _ in range(3)), nn.Linear(w, 2 * w))  # noqa: E731
    plan = paramz.parametrize_(model, "mup", base=build)
    for split, count in ((None, 2), ("shape", 4), ("tensor", 8)):
        groups = plan.param_groups(model, "adamw", lr=0.1, split=split)
        assert len(groups) == count
        plan.check(torch.optim.AdamW(groups), model=model)
        if split:
            assert all(len({p.shape for p in group["params"]}) == 1 for group in groups)
    matrices, _ = plan.split_groups(model, muon={"lr": 0.1, "split": "shape"}, adamw={"lr": 0.1})
    for group in matrices:
        torch.stack(group["params"])
    with pytest.raises(ValueError, match="split='shapes' is neither of 'shape', 'tensor'"):
        plan.param_groups(model, "adamw", lr=0.1, split="shapes")


def test_epsilons_and_decays_that_were_set_by_hand_are_named(planned):
    model, plan = planned

    def optimizer():
        return torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1, weight_decay=0.1))

    changed = optimizer()
    for group in changed.param_groups:
        group["weight_decay"] *= 2  # a schedule of all
    plan.check(changed)
    changed.param_groups[0]["weight_decay"] = 0.5
    said = refused(plan, changed)
    assert said.startswith("weight_decay of the group of 0.weight, 0.bias in AdamW is 0.5 and was")
    assert "planned as 0.1 (others have 2 times): pass weight_decay= to plan.param_groups" in said
    changed = optimizer()
    for group in changed.param_groups:
        group["eps"] = 1e-8
    assert re.search(r"eps of the group of .* is 1e-08 and was planned as", refused(plan, changed))


def test_groups_of_another_base_or_scheme_are_another_plans(planned):
    model, plan = planned
    for other in (
        paramz.make_plan(model, "mup", base=net, base_width=16),
        paramz.make_plan(model, "sp", base=net),
    ):
        made = torch.optim.AdamW(other.param_groups(model, "adamw", lr=0.1))
        said = refused(plan, made, model=model)
        assert re.match(r"another plan made the group of .*, this one \(mup\) by 0.25", said)
        assert "paramz.plan_of(model)" in said


def test_every_mistake_is_said_once(planned):
    model, plan = planned
    apart = torch.optim.AdamW([{"params": [p], "lr": 0.1} for p in model.parameters()])
    assert refused(plan, apart).startswith("AdamW has 5 groups of 5 tensors that no plan made, all")
    other = torch.optim.SGD(plan.param_groups(model, "adamw", lr=0.1))
    assert refused(plan, other).endswith("(3 more groups are the same)")
    for given, got in (((), "none"), ((["adamw"],), "list"), (("adamw",), "str")):
        with pytest.raises(TypeError, match=f"takes the optimizers that train the model.*{got}"):
            plan.check(*given)


def test_groups_with_decoupled_decay_in_an_optimizer_that_adds_it_to_the_gradient(planned):
    model, plan = planned
    groups = plan.param_groups(model, "adamw", lr=0.1, weight_decay=0.1)
    assert "which takes it off the weights, and Adam adds it to the gradient" in refused(
        plan, torch.optim.Adam(groups)
    )
    plan.check(torch.optim.Adam(plan.param_groups(model, "adamw", lr=0.1, weight_decay=0.0)))
    groups = plan.param_groups(model, "adamw", lr=0.1, weight_decay=0.1)
    plan.check(torch.optim.NAdam(groups, decoupled_weight_decay=True))
    plan.check(torch.optim.Adam(plan.param_groups(model, torch.optim.Adam, lr=0.1)))


def test_groups_of_two_learning_rates_of_the_base_are_named(planned):
    model, plan = planned
    one, two = (plan.param_groups(model, "adamw", lr=lr) for lr in (0.01, 0.03))
    with pytest.raises(ValueError, match=r"several learning rates at the base: 0\.01 .* 0\.03 .*"):
        plan.check(torch.optim.AdamW([one[0], *two[1:]]))
    # Roles that are tuned apart are one plan's.
    plan.check(torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1, role_lr={"input": 1.0})))


def test_an_optimizer_without_a_rule_is_named_whatever_its_groups_are(planned):
    model, plan = planned
    lamb = pytest.importorskip("pytorch_optimizer").Lamb
    with pytest.raises(ValueError, match="was planned for adam, and there is no rule for Lamb"):
        plan.check(lamb(plan.param_groups(model, "adam", lr=0.1)))


def test_bounds_on_gradients_inside_an_optimizer_are_refused(planned):
    model, plan = planned
    adan = pytest.importorskip("pytorch_optimizer").Adan
    with pytest.raises(ValueError, match=r"max_grad_norm=1\.0 .*paramz\.clip_grad_norm_\(plan"):
        plan.param_groups(model, adan, lr=0.1, max_grad_norm=1.0)
    plan.check(adan(plan.param_groups(model, adan, lr=0.1)))
    groups = plan.param_groups(model, adan, lr=0.1)
    with pytest.raises(ValueError, match="Adan: max_grad_norm=2.0 bounds plain gradients inside"):
        plan.check(adan(groups, max_grad_norm=2.0))


def test_schedules_that_come_late_in_a_sequence_are_run_too(planned):
    model, plan = planned

    def late(low):
        made = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1))
        warm = torch.optim.lr_scheduler.LinearLR(made, 0.1, 1.0, total_iters=5000)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(made, 20_000, eta_min=low)
        return made, torch.optim.lr_scheduler.SequentialLR(made, [warm, fall], milestones=[5000])

    made, right = late(0.0)
    plan.check(made, model=model, schedulers=[right])
    made, wrong = late(1e-4)
    with pytest.raises(ValueError, match=r"CosineAnnealingLR breaks the ratios .* use eta_min=0"):
        plan.check(made, model=model, schedulers=[wrong])
