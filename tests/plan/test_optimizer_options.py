"""Options of optimizers that change what a plan counts on: followed, or refused by name."""

import inspect

import pytest
import torch
from cases import Plain
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

import paramz

library = pytest.importorskip("pytorch_optimizer")
adafactor = pytest.importorskip("transformers.optimization").Adafactor


def net(width=8):
    return nn.Sequential(
        nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.Linear(width, 3)
    )


class FusedAdam(torch.optim.SGD):
    """Apex's, by its name and options."""

    def __init__(self, params, lr=1e-3, weight_decay=0.0, eps=1e-8, adam_w_mode=True):
        super().__init__(params, lr=lr, weight_decay=weight_decay)


@pytest.fixture
def planned():
    model = net(32)
    return model, paramz.parametrize_(model, "mup", base=net, base_width=8)


def decays(groups):
    return {tensor: group["weight_decay"] for group in groups for tensor in group["names"]}


def refused(plan, *optimizers):
    with pytest.raises(ValueError) as error:
        plan.check(*optimizers)
    return str(error.value)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.NAdam, torch.optim.RAdam])
def test_groups_state_their_kind_of_decay_whatever_the_constructor_gets(planned, kind):
    model, plan = planned
    for apart in (True, False):
        options = {"weight_decay": 0.1, "decoupled_weight_decay": apart}
        made = kind(plan.param_groups(model, kind, lr=0.1, **options))
        other = kind(made.param_groups, decoupled_weight_decay=not apart)
        assert {group["decoupled_weight_decay"] for group in other.param_groups} == {apart}


def test_coupled_decay_is_read_under_every_name_that_libraries_give_it(planned):
    model, plan = planned

    def asked(kind, **options):
        return decays(plan.param_groups(model, kind, lr=0.1, weight_decay=0.1, **options))

    assert asked(FusedAdam) == asked(torch.optim.AdamW)
    assert asked(FusedAdam, adam_w_mode=False) == asked(torch.optim.Adam)
    assert asked(library.AdEMAMix, weight_decouple=False) == asked(torch.optim.Adam)
    assert asked(library.SGDW, weight_decouple=False) == asked("sgd")


def of_a_library(name, module="a_library", **own):
    """An optimizer with a constructor's options, which its groups hold, as libraries have it."""

    def __init__(self, params, lr=1e-3, weight_decay=0.0, **given):
        torch.optim.Optimizer.__init__(
            self, params, {"lr": lr, "weight_decay": weight_decay, **own}
        )

    plain = [inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    options = {"lr": 1e-3, "weight_decay": 0.0, **own}
    plain += [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=v) for n, v in options.items()
    ]
    kind = type(name, (torch.optim.Optimizer,), {"__init__": __init__, "__module__": module})
    kind.__signature__ = inspect.Signature(plain)
    return kind


@pytest.mark.parametrize(
    ("kind", "options", "apart"),
    [
        # The options and defaults of ADOPT's authors and timm, of optimi, lion-pytorch, and
        # bitsandbytes, whose Adam has the kernel of its AdamW; torchao's Adam8bit has not.
        (of_a_library("ADOPT", decoupled=False), {}, False),
        (of_a_library("ADOPT", decoupled=False), {"decoupled": True}, True),
        (of_a_library("Adam", decouple_wd=False), {}, False),
        (of_a_library("Adam", decouple_wd=False), {"decouple_wd": True}, True),
        (of_a_library("Lion", decoupled_weight_decay=False), {}, True),
        (of_a_library("Adam8bit", "bitsandbytes.optim.adam"), {}, True),
        (of_a_library("Adam8bit", "torchao.optim.adam"), {}, False),
        (library.Adan, {}, True),  # divides weights by 1 + lr wd
        (library.Lion, {"weight_decouple": False}, False),
        ("pagedadam", {}, True),
    ],
)
def test_decay_is_apart_where_a_library_has_it_so(planned, kind, options, apart):
    model, plan = planned
    groups = plan.param_groups(model, kind, lr=0.1, weight_decay=0.1, **options)
    assert decays(groups) == pytest.approx(
        decays(plan.param_groups(model, "adamw" if apart else "adam", lr=0.1, weight_decay=0.1))
    )
    assert all(group[name] is value for group in groups for name, value in options.items())
    if not isinstance(kind, str):
        plan.check(kind(groups), model=model)


def test_how_adan_decays_is_left_to_it(planned):
    model, plan = planned
    assert {
        g["weight_decouple"]
        for g in library.Adan(plan.param_groups(model, library.Adan, lr=0.1)).param_groups
    } == {False}


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (library.Lion, {"fixed_decay": True}, "fixed_decay=True .* decay='independent'"),
        (library.Muon, {"weight_decouple": False}, "muon without decoupled decay"),
        ("adagrad", {"initial_accumulator_value": 0.1}, "initial_accumulator_value=0.1 is added"),
        ("lion", {"eps": 1e-6}, "lion has no epsilon that a rule moves"),
        ("adamw", {"no_decay": ("bias",)}, "no_decay has 'bias', but the roles are"),
        ("adamw", {"lr": "1e-3"}, "lr='1e-3' must be a number, and not a str"),
    ],
)
def test_options_that_no_rule_can_follow_are_refused(planned, kind, options, text):
    model, plan = planned
    with pytest.raises(ValueError, match=text):
        plan.param_groups(model, kind, **{"lr": 0.1, "weight_decay": 0.1, **options})


def test_the_way_out_of_a_decay_without_the_learning_rate_is_the_same_decay(planned):
    model, plan = planned
    groups = plan.param_groups(model, library.Lion, lr=0.1, weight_decay=0.1, decay="independent")
    assert {round(group["lr"] * group["weight_decay"], 12) for group in groups} == {0.1}


def test_what_a_constructor_gets_and_its_groups_do_not_read_is_named(planned):
    model, plan = planned
    groups = plan.param_groups(model, "adamw", lr=0.1, weight_decay=0.2)
    plan.check(torch.optim.AdamW(groups, weight_decay=0.2))
    said = refused(plan, torch.optim.AdamW(groups, weight_decay=0.3))
    assert "AdamW got weight_decay=0.3, which its groups do not read: theirs comes from 0.2" in said
    adagrad = plan.param_groups(model, "adagrad", lr=0.1)
    said = refused(plan, torch.optim.Adagrad(adagrad, initial_accumulator_value=0.1))
    assert said.startswith("Adagrad: initial_accumulator_value=0.1 is added to squared gradients")


def test_the_two_epsilons_of_adafactor_reach_its_groups(planned):
    model, plan = planned
    plain = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
    groups = plan.param_groups(model, adafactor, lr=0.1, eps=(1e-30, 1e-3), **plain)
    assert {group["eps"] for group in groups} == {(1e-30, 1e-3)}


def test_one_role_without_decay_may_be_named_alone(planned):
    model, plan = planned
    one, several = (
        plan.param_groups(model, "adamw", lr=0.1, no_decay=roles)
        for roles in ("vector", ["vector"])
    )
    assert decays(one) == decays(several)


def test_a_learning_rate_that_is_a_tensor_shares_groups_and_keeps_what_was_planned(planned):
    model, plan = planned
    groups = plan.param_groups(model, "adamw", lr=torch.tensor(0.5))
    assert len(groups) == len(plan.param_groups(model, "adamw", lr=0.5))
    made = torch.optim.AdamW(groups)
    plan.check(made, model=model)
    OneCycleLR(made, max_lr=0.5, total_steps=10)  # which fills the tensors
    assert "the ratios between the learning rates are no longer the plan's" in refused(plan, made)


def test_decay_and_epsilon_that_are_left_out_are_those_of_the_class_or_instance(planned):
    model, plan = planned
    groups = plan.param_groups(model, FusedAdam, lr=0.1)
    assert set(decays(groups).values()) == {0.0}
    plan.check(FusedAdam(groups), model=model)
    own = torch.optim.AdamW(model.parameters(), weight_decay=0.25, eps=1e-5)
    groups = plan.param_groups(model, own, lr=0.1)
    shares = {group["lr"] * group["weight_decay"] for group in groups}
    assert shares == {0.1 * 0.25} and max(group["eps"] for group in groups) == 1e-5
    assert paramz.family("fusedadam").weight_decay == 0.0  # as apex has it, where a name tells less


def test_wrappers_pass_but_for_those_that_no_rule_can_follow(planned):
    model, plan = planned
    groups = plan.param_groups(model, "adamw", lr=0.1)
    for wrapped in (library.Lookahead, library.ScheduleFreeWrapper):
        plan.check(wrapped(torch.optim.AdamW(groups)), model=model)
    learned = library.TRAC(torch.optim.AdamW(groups))
    assert "no rule for TRAC, which is around AdamW: it estimates" in refused(plan, learned)
    moved = library.SAM(plan.param_groups(model, "adamw", lr=0.1), torch.optim.AdamW)
    assert "the radius needs a rule of its own" in refused(plan, moved)
    projected = library.GaLore(plan.param_groups(model, "adamw", lr=0.1))
    assert "in a subspace whose rank" in refused(plan, projected)


def test_steps_with_the_sizes_of_another_optimizer_have_its_learning_rates(planned):
    model, plan = planned
    kind, given = of_a_library("DistributedShampoo", grafting_config=None), {"lr": 0.1}

    def hidden(**options):
        shampoo = {"optimizer": kind, **given, **options}
        return plan.split_groups(model, distributedshampoo=shampoo, adamw=given)[0]

    with pytest.raises(
        ValueError, match=r"grafting_config='Adam' gives distributedshampoo's steps"
    ):
        hidden(grafting_config="Adam")
    (group,) = hidden(grafting_config="Adam", graft="adam")
    assert group["lr"] == 0.025  # Adam's, a quarter; its own is that of the base
    plan.check(
        kind([group]), torch.optim.AdamW(plan.split_groups(model, muon=given, adamw=given)[1])
    )
    (group,) = hidden()
    assert group["lr"] == 0.1
    group["grafting_config"] = "Adam"  # as its constructor does
    assert "gives distributedshampoo's steps the sizes of another" in refused(plan, kind([group]))


def test_weights_below_the_floor_of_adafactor_are_told_of():
    def zeroed(width=8):
        model = net(width)
        nn.init.zeros_(model[3].weight)
        return model

    model = zeroed(32)
    plan = paramz.parametrize_(model, "mup", base=zeroed, base_width=8)
    with pytest.warns(UserWarning, match=r"3.weight: smaller than 0.001 .* are 4 times too large"):
        groups = plan.param_groups(model, "adafactor", lr=1.0)
    assert {g["lr"] for g in groups if "3.weight" in g["names"]} == {1.0}  # 1/4 over 1/4


def test_zeros_of_a_bias_are_not_asked_to_be_drawn():
    def build(width=8, depth=2):
        blocks = [Plain(width) for _ in range(depth)]
        for block in blocks:
            nn.init.zeros_(block.ffn[2].bias)
        return nn.Sequential(nn.Linear(4, width), nn.Sequential(*blocks), nn.Linear(width, 3))

    model = build(depth=4)
    plan = paramz.parametrize_(model, "mup+completep", base=build, base_width=8)
    with pytest.warns(UserWarning, match=r"ffn.2.bias .* are 2 times too large. Use .* or AdamW$"):
        plan.param_groups(model, "adafactor", lr=1.0)


def test_other_optimizers_and_drawn_weights_have_no_floor(planned, recwarn):
    model, plan = planned
    plan.param_groups(model, "adafactor", lr=2**-9)
    with torch.no_grad():
        model[3].weight.zero_()
    plan.param_groups(model, "adamw", lr=1.0)
    plain = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
    plan.param_groups(model, adafactor, lr=1.0, **plain)
    assert not recwarn.list


def test_readouts_that_are_small_in_wide_models_are_below_it_too(recwarn):
    def small(width=8):
        model = net(width)
        with torch.no_grad():
            model[3].weight.sign_().mul_(2e-3)
        return model

    model = small(32)
    plan = paramz.parametrize_(model, "mup", base=small, base_width=8)
    with pytest.warns(UserWarning, match=r"3.weight: smaller than 0.001 .* are 2 times too"):
        plan.param_groups(model, torch.optim.Adafactor, lr=2**-9)
    plan.param_groups(model, torch.optim.Adafactor, lr=2**-9, eps=(None, 1e-5))
    plan.param_groups(model, library.AdaFactor, lr=2**-9, eps2=1e-5)  # its name for the second
    assert not recwarn.list


def test_the_step_at_which_adafactor_bounds_learning_rates_is_told(planned, recwarn):
    model, plan = planned
    plan.check(torch.optim.Adafactor(plan.param_groups(model, torch.optim.Adafactor, lr=2**-9)))
    plain = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
    plan.check(adafactor(plan.param_groups(model, adafactor, lr=0.125, **plain), **plain))
    assert not recwarn.list
    made = torch.optim.Adafactor(plan.param_groups(model, torch.optim.Adafactor, lr=0.5))
    rates = sorted({group["lr"] for group in made.param_groups})
    with pytest.warns(UserWarning, match=rf"from step {rates[-1] ** -2:.0f} on its group at lr"):
        plan.check(made)
    # Steps of weights of one size are apart by the rates before that step, and not after the last.
    apart = []
    for step in range(1, round(rates[0] ** -2) + 2):
        for p in model.parameters():
            p.data.fill_(1.0)
            p.grad = torch.ones_like(p)
        made.step()
        if step in (2, round(rates[0] ** -2) + 1):
            moves = [float((1 - p.detach()).mean()) for p in (model[2].weight, model[0].bias)]
            apart.append(moves[1] / moves[0])
    assert apart == pytest.approx([rates[-1] / rates[0], 1.0], rel=0.02)


def test_an_epsilon_of_another_name_moves_with_width_under_that_name(planned):
    model, plan = planned
    kind = library.Shampoo

    def hidden(optimizer, **options):
        first = {"optimizer": optimizer, "lr": 0.1, **options}
        return plan.split_groups(model, shampoo=first, adamw={"lr": 0.1})

    ratio = plan.rule(plan.rows[2], paramz.family("shampoo")).eps(plan.rows[2].ratios)
    for options, base in (({}, 1e-6), ({"eps": 1e-3}, 1e-3), ({"matrix_eps": 1e-3}, 1e-3)):
        groups, rest = hidden(kind, **options)
        assert groups[0]["matrix_eps"] == pytest.approx(base * ratio) and "eps" not in groups[0]
        plan.check(kind(groups), torch.optim.AdamW(rest))
    with pytest.raises(TypeError, match="eps and matrix_eps are one setting of shampoo: give one"):
        hidden(kind, eps=1e-3, matrix_eps=1e-3)
    groups, rest = hidden("shampoo")
    text = refused(plan, kind(groups), torch.optim.AdamW(rest))
    assert "Shampoo calls matrix_eps and has 1e-06 there: make the groups for its class" in text


def test_decay_in_the_gradient_in_an_optimizer_that_takes_it_off_the_weights(planned):
    model, plan = planned
    asked = {"lr": 0.1, "weight_decay": 0.1}
    for kind in (library.Lion, library.Adan):
        text = refused(plan, kind(plan.param_groups(model, "adam", **asked)))
        assert f"adds it to the gradient, and {kind.__name__} takes it off the weights" in text
        plan.check(kind(plan.param_groups(model, kind, **asked)))
    plan.check(torch.optim.AdamW(plan.param_groups(model, "adam", **asked)))  # its groups say it

    class Fused(torch.optim.SGD):
        """Keeps its kind of decay as apex's does."""

        def __init__(self, params, lr=1e-3, adam_w_mode=True, **options):
            super().__init__(params, lr=lr, **options)
            self.adam_w_mode = int(adam_w_mode)

    Fused.__name__ = "FusedAdam"
    groups = plan.param_groups(model, "adam", **asked)
    plan.check(Fused(groups, adam_w_mode=False))
    assert "FusedAdam takes it off the weights" in refused(plan, Fused(groups))


def test_an_epsilon_that_a_constructor_gets_and_its_groups_do_not_read_is_named(planned):
    model, plan = planned
    made = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1), eps=1e-6)
    assert "AdamW got eps=1e-06, which its groups do not read: theirs comes" in refused(plan, made)
    groups = plan.param_groups(model, "adamw", lr=0.1, eps=1e-6)
    plan.check(torch.optim.AdamW(groups, eps=1e-6))


def test_the_bound_of_torchs_adafactor_is_told_with_its_groups(planned, recwarn):
    model, plan = planned
    for given in ("adafactor", torch.optim.Adafactor):
        with pytest.warns(UserWarning, match=r"takes the smaller of lr and 1 / sqrt\(step\)"):
            plan.param_groups(model, given, lr=0.5)
    plan.param_groups(model, "adafactor", lr=2**-9)
    plan.param_groups(model, adafactor, lr=0.5)  # of transformers
    assert not recwarn.list


def test_the_decay_of_a_class_that_hands_its_options_on_is_not_the_constructors(planned):
    model, plan = planned

    class AdamW(torch.optim.AdamW):
        def __init__(self, params, **options):
            super().__init__(params, **options)

    groups = plan.param_groups(model, AdamW, lr=0.1, weight_decay=0.1)
    plan.check(AdamW(groups))
    assert "got weight_decay=0.2, which" in refused(plan, AdamW(groups, weight_decay=0.2))
