"""Whose steps a constructed optimizer takes, if its class is derived or around another one."""

import warnings

import pytest
import torch
from torch import nn

import paramz


def net(width=8):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


@pytest.fixture
def planned():
    model = net(32)
    return model, paramz.parametrize_(model, "mup", base=net)


def passes(plan, model, optimizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan.check(optimizer, model=model)


class Lamb(torch.optim.AdamW):
    """No rule for it, whatever it is derived from."""

    def step(self, closure=None):
        raise NotImplementedError


class ClampedLamb(Lamb):
    pass


class Trusted(torch.optim.AdamW):
    """Steps of its own, in a class derived from a known one."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.norm() * p.grad.sign())


class Logged(torch.optim.AdamW):
    """AdamW's steps, with something beside them."""

    @torch.no_grad()
    def step(self, closure=None):
        self.steps = getattr(self, "steps", 0) + 1
        return super().step(closure)


@pytest.mark.parametrize("kind", [Lamb, ClampedLamb])
def test_a_class_without_a_rule_is_refused_whatever_it_is_derived_from(planned, kind):
    model, plan = planned
    optimizer = kind(plan.param_groups(model, "adamw", lr=0.1))
    with pytest.raises(ValueError, match=f"there is no rule for {kind.__name__}: its step is in"):
        plan.check(optimizer, model=model)


def test_steps_of_its_own_in_a_derived_class_are_warned_of(planned):
    model, plan = planned
    with pytest.warns(UserWarning, match="does not know Trusted, whose groups were made for adamw"):
        plan.check(Trusted(plan.param_groups(model, "adamw", lr=0.1)), model=model)
    passes(plan, model, Logged(plan.param_groups(model, "adamw", lr=0.1)))


class Around(torch.optim.Optimizer):
    """It has the groups of the optimizer in it, as timm's Lookahead and torch's ZeRO do."""

    def __init__(self, inside, name):
        super().__init__(inside.param_groups, {})
        self.param_groups = inside.param_groups
        setattr(self, name, inside)

    def step(self, closure=None):
        raise NotImplementedError


@pytest.mark.parametrize("name", ["_base_optimizer", "base_optimizer", "optim"])
def test_of_a_wrapper_the_optimizer_in_it_counts(planned, name):
    model, plan = planned
    passes(plan, model, Around(torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1)), name))
    wrong = Around(torch.optim.SGD(plan.param_groups(model, "adamw", lr=0.1)), name)
    with pytest.raises(ValueError, match="planned for adamw, whose learning rates are other ones"):
        plan.check(wrong, model=model)


class Container(torch.optim.Optimizer):
    """Several optimizers as one, with groups of its own that nothing reads, as torchtitan's."""

    def __init__(self, *optimizers):
        self.optimizers = list(optimizers)
        every = [p for each in optimizers for group in each.param_groups for p in group["params"]]
        super().__init__(every, {})


def test_of_a_container_the_optimizers_in_it_count():
    model = deep(32)
    plan = paramz.parametrize_(model, "mup", base=deep)
    hidden, rest = plan.split_groups(model, muon={"lr": 0.1}, adamw={"lr": 0.1})
    passes(plan, model, Container(torch.optim.Muon(hidden), torch.optim.AdamW(rest)))
    wrong = Container(torch.optim.Muon(hidden), torch.optim.SGD(rest))
    with pytest.raises(ValueError, match="in SGD was planned for adamw"):
        plan.check(wrong, model=model)


# ---- A Muon with an optimizer for the rest in it, as timm has it ---------------------------------


class Muon(torch.optim.Optimizer):
    """timm's options; where a group does not say it, a shape tells what is no matrix for Muon."""

    def __init__(
        self, params, lr=0.02, weight_decay=0.0, adjust_lr_fn="match_rms_adamw", algo="muon"
    ):
        options = {
            "lr": lr,
            "weight_decay": weight_decay,
            "adjust_lr_fn": adjust_lr_fn,
            "algo": algo,
        }
        super().__init__(params, options)


def deep(width=8):
    return nn.Sequential(nn.Linear(6, width), nn.Linear(width, 4 * width), nn.Linear(4 * width, 3))


def test_no_factor_is_none_where_a_class_has_a_word_for_its_own():
    model = deep(32)
    plan = paramz.parametrize_(model, "mup", base=deep)
    rates = {}
    for factor in ("original", "match_rms_adamw", None):
        asked = {"optimizer": Muon, "lr": 0.1, "adjust_lr_fn": factor}
        (group,), rest = plan.split_groups(model, muon=asked, adamw={"lr": 0.1})
        rates[factor] = group["lr"]
        assert group["adjust_lr_fn"] == factor and group["planned_factor"] == str(factor).lower()
        # Whatever its shape, it is a matrix for Muon; and the rest may be in the same optimizer.
        assert group["use_muon"]
        passes(plan, model, Muon([group, *({**other, "use_fallback": True} for other in rest)]))
    # Four times the base's width and the same shape: sqrt(max(1, rows / columns)) stays.
    assert rates == {"original": 0.1, "match_rms_adamw": pytest.approx(0.05), None: 0.1}


def test_an_algorithm_with_other_rates_is_refused_before_and_after_it_is_made():
    model = deep(32)
    plan = paramz.parametrize_(model, "mup", base=deep)
    asked = {"optimizer": Muon, "lr": 0.1}
    with pytest.raises(ValueError, match="algo='adamuon' divides every entry of a step"):
        plan.split_groups(model, muon={**asked, "algo": "adamuon"}, adamw={"lr": 0.1})
    hidden, rest = plan.split_groups(model, muon=asked, adamw={"lr": 0.1})
    with pytest.raises(ValueError, match="group of 1.weight in Muon: algo='adamuon' divides every"):
        plan.check(Muon(hidden, algo="adamuon"), torch.optim.AdamW(rest), model=model)


@pytest.mark.parametrize("name", ["Muon", "NorMuon", "AdaMuon"])
def test_one_optimizer_of_a_library_may_take_both_kinds_of_groups(name):
    kind = getattr(pytest.importorskip("pytorch_optimizer"), name)
    model = deep(32)
    plan = paramz.parametrize_(model, "mup", base=deep)
    asked = {"optimizer": kind, "lr": 0.1}
    hidden, rest = plan.split_groups(model, muon=asked, adamw={"lr": 0.1})
    optimizer = kind([*hidden, *({**group, "use_muon": False} for group in rest)])
    passes(plan, model, optimizer)
    model(torch.ones(4, 6)).square().sum().backward()
    optimizer.step()
