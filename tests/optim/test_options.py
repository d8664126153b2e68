"""Options of parameter groups: the tables name real ones, and misspelt ones are never silent."""

import dataclasses
import inspect

import pytest
import torch
from torch import nn

import paramz
from paramz.optim import KFAC, LearnedOptimizer, Shampoo
from paramz.optim.learned.learned import META_PARAMETERS
from paramz.optim.make import MAKERS, make_optimizers
from paramz.theory.families import FAMILIES

# What a plan sets itself in the groups of an optimizer, and K-FAC's own count of steps.
SET_BY_THE_PLAN = {"lr", "weight_decay", "eps", "damping", "damping_a", "damping_b"}
COUNTERS = {"step"}


def net(width=8):
    return nn.Sequential(
        nn.Embedding(5, width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width),
        nn.ReLU(), nn.Linear(width, 3),
    )  # fmt: skip


@pytest.fixture
def planned():
    model = net(32)
    return model, paramz.parametrize_(model, "mup", base=net)


def group_options(optimizer):
    (group,) = optimizer.param_groups
    return set(group) - {"params"} - SET_BY_THE_PLAN - COUNTERS


def parameters_of(kind):
    """The names in the signature of a class, other than those of tensors and models."""
    found = inspect.signature(kind).parameters.values()
    named = {p.name for p in found if p.kind is not p.VAR_KEYWORD}
    return named - {"params", "model", "theta"}


# ---- The tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kfac", "foof"])
def test_the_options_of_kfac_are_those_of_its_groups(name):
    layer = nn.Linear(2, 2)
    with KFAC(layer.parameters(), layer) as optimizer:
        assert set(FAMILIES[name].options) == group_options(optimizer)


def test_the_options_of_shampoo_are_those_of_its_groups():
    optimizer = Shampoo([nn.Parameter(torch.ones(2, 2))])
    assert set(FAMILIES["shampoo"].options) == group_options(optimizer)
    assert set(FAMILIES["shampoo"].options) == parameters_of(Shampoo) - SET_BY_THE_PLAN


def test_the_learned_optimizer_has_no_options_of_its_groups():
    optimizer = LearnedOptimizer([nn.Parameter(torch.ones(2))], torch.zeros(META_PARAMETERS))
    assert set(FAMILIES["learned"].options) == group_options(optimizer) == set()


def test_the_options_of_soap_are_those_of_its_groups_and_the_rest_goes_to_its_constructor():
    soap = pytest.importorskip("pytorch_optimizer").SOAP
    options = set(FAMILIES["soap"].options)
    assert options == group_options(soap([nn.Parameter(torch.ones(2, 2))]))
    assert options | set(MAKERS["soap"].own) == parameters_of(soap) - SET_BY_THE_PLAN


@pytest.mark.parametrize("name", ["kfac", "foof"])
def test_what_goes_to_the_constructor_of_kfac_is_all_that_its_groups_do_not_hold(name):
    in_groups = SET_BY_THE_PLAN | set(FAMILIES[name].options)
    assert set(MAKERS[name].own) == parameters_of(KFAC) - in_groups - {"factors"}


def test_the_constructor_s_own_options_arrive(planned):
    model, plan = planned
    (optimizer,) = make_optimizers(plan, model, "kfac", lr=0.1, fisher="exact", inverse_every=20)
    with optimizer:
        assert optimizer._measured.estimate.fisher == "exact"
        assert optimizer._inverse_every == 20
        assert not {"fisher", "inverse_every"} & set(optimizer.param_groups[0])


def test_maximize_reaches_soap(planned):
    pytest.importorskip("pytorch_optimizer")
    model, plan = planned
    soap, _ = make_optimizers(plan, model, "soap", lr=0.1, maximize=True)
    assert soap.maximize
    with pytest.raises(TypeError, match="maximize=True is no option of soap"):
        plan.param_groups(model, "soap", lr=0.1, maximize=True)


# ---- Learning rates by role ----------------------------------------------------------------------


def rates(model, groups):
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in groups for p in group["params"]}


def by_two(plan, model, **options):
    both = plan.split_groups(model, muon={"lr": 0.02, **options}, adamw={"lr": 1e-3, **options})
    return [group for groups in both for group in groups]


def by_name(plan, model, **options):
    made = make_optimizers(plan, model, "muon", lr=0.02, rest_lr=1e-3, **options)
    return [group for optimizer in made for group in optimizer.param_groups]


@pytest.mark.parametrize("groups_of", [by_two, by_name])
@pytest.mark.parametrize("role", ["input", "hidden", "vector", "output", "scalar"])
def test_a_role_keeps_its_own_rate_where_two_optimizers_share_a_model(planned, groups_of, role):
    model, plan = planned
    usual = rates(model, groups_of(plan, model))
    found = rates(model, groups_of(plan, model, role_lr={role: 0.5}))
    roles = {row.name: row.role for row in plan.rows}
    assert role in roles.values() and usual.keys() == found.keys() == roles.keys()
    for name, lr in found.items():
        base = 0.02 if roles[name] == "hidden" else 1e-3
        wanted = usual[name] * 0.5 / base if roles[name] == role else usual[name]
        assert lr == pytest.approx(wanted, rel=1e-12), name


def test_each_of_two_optimizers_may_have_rates_of_its_own(planned):
    model, plan = planned
    _, rest = plan.split_groups(
        model, muon={"lr": 0.02}, adamw={"lr": 1e-3, "role_lr": {"output": 4e-3}}
    )
    _, plain = plan.split_groups(model, muon={"lr": 0.02}, adamw={"lr": 1e-3})
    assert rates(model, rest)["5.weight"] == pytest.approx(4 * rates(model, plain)["5.weight"])
    assert rates(model, rest)["0.weight"] == rates(model, plain)["0.weight"]


@pytest.mark.parametrize(
    ("muon", "adamw", "text"),
    [
        (
            {"role_lr": {"input": 0.5}},
            {},
            "role_lr of muon has 'input', whose tensors adamw trains",
        ),
        ({}, {"role_lr": {"hidden": 0.5}}, "role_lr of adamw has 'hidden', whose tensors muon"),
        ({"no_decay": ("vector",)}, {}, "no_decay of muon has 'vector', whose tensors adamw"),
    ],
)
def test_rates_of_roles_that_the_other_optimizer_trains_are_refused(planned, muon, adamw, text):
    model, plan = planned
    with pytest.raises(ValueError, match=text):
        plan.split_groups(model, muon={"lr": 0.02, **muon}, adamw={"lr": 1e-3, **adamw})


def test_roles_to_split_by_are_roles(planned):
    model, plan = planned
    asked = {"muon": {"lr": 0.02}, "adamw": {"lr": 1e-3}}
    with pytest.raises(ValueError, match="roles has 'hiden', but the roles are input, hidden"):
        plan.split_groups(model, roles=("hiden",), **asked)
    assert len(plan.split_groups(model, roles="hidden", **asked)[0]) == 1


def test_a_rate_for_an_optimizer_that_is_not_there_is_refused(planned):
    model, plan = planned
    with pytest.raises(TypeError, match="rest_lr=0.1: adamw trains all tensors"):
        make_optimizers(plan, model, "adamw", lr=0.1, rest_lr=0.1)


# ---- Misspelt options ----------------------------------------------------------------------------

MISSPELT = [
    ("adamw", "weigth_decay", "weight_decay"),
    ("adamw", "beta", "betas"),
    ("sgd", "momentun", "momentum"),
    ("muon", "ns_step", "ns_steps"),
    ("kfac", "dampling", "damping"),
    ("kfac", "momentums", "momentum"),
    ("shampoo", "exponents", "exponent"),
    ("soap", "shampoo_betas", "shampoo_beta"),
    ("adamw", "role_lrs", "role_lr"),
    ("adamw", "nodecay", "no_decay"),
]


@pytest.mark.parametrize(("optimizer", "written", "meant"), MISSPELT)
def test_a_misspelt_option_is_refused_everywhere(planned, optimizer, written, meant):
    model, plan = planned
    wrong = {"lr": 0.01, written: 0.5}
    other = "sgd" if optimizer == "adamw" else "adamw"
    calls = [
        lambda: plan.param_groups(model, optimizer, **wrong),
        lambda: plan.split_groups(model, **{optimizer: wrong, other: {"lr": 0.01}}),
        lambda: plan.split_groups(model, **{other: {"lr": 0.01}, optimizer: wrong}),
        lambda: make_optimizers(plan, model, optimizer, **wrong),
    ]
    for call in calls:
        with pytest.raises(TypeError) as error:
            call()
        assert f"{written}=0.5 is no option of {optimizer}" in str(error.value)
        assert f"Did you mean {meant}?" in str(error.value)


@pytest.mark.parametrize("first", ["muon", "shampoo", "kfac"])
def test_a_misspelt_option_of_the_adamw_beside_another_optimizer_is_refused(planned, first):
    model, plan = planned
    with pytest.raises(TypeError, match=r"weigth_decay=0.3 is no option of adamw.*weight_decay\?"):
        make_optimizers(plan, model, first, lr=0.02, adamw={"lr": 1e-3, "weigth_decay": 0.3})


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, "instance"])
def test_a_class_and_an_instance_refuse_what_they_do_not_have(planned, optimizer):
    model, plan = planned
    if optimizer == "instance":
        optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(TypeError, match=r"amsgard=True is no option of adamw.*mean amsgrad\?"):
        plan.param_groups(model, optimizer, lr=0.01, amsgard=True)
    with pytest.raises(TypeError, match="momentum=0.9 is no option of adamw"):
        plan.param_groups(model, optimizer, lr=0.01, momentum=0.9)


# ---- Options that are spelt rightly --------------------------------------------------------------

SPELT = [
    ("adamw", {"betas": (0.8, 0.9), "amsgrad": True, "foreach": False}),
    ("sgd", {"momentum": 0.9, "nesterov": True}),
    ("rmsprop", {"alpha": 0.9, "centered": True}),
    ("nadam", {"momentum_decay": 1e-3, "decoupled_weight_decay": True}),
    ("shampoo", {"exponent": 0.5, "betas": (0.8, 0.9), "root": "newton"}),
]


@pytest.mark.parametrize(("optimizer", "options"), SPELT)
def test_options_that_the_optimizer_has_arrive_in_its_groups(planned, optimizer, options):
    model, plan = planned
    for group in make_optimizers(plan, model, optimizer, lr=0.01, **options)[0].param_groups:
        assert {name: group[name] for name in options} == options


@pytest.mark.parametrize("kind", ["name", "class", "instance"])
def test_a_name_a_class_and_an_instance_give_the_same_groups(planned, kind):
    model, plan = planned
    given = {
        "name": "adamw",
        "class": torch.optim.AdamW,
        "instance": torch.optim.AdamW(model.parameters()),
    }[kind]
    settings = {"lr": 0.01, "weight_decay": 0.3, "betas": (0.8, 0.9), "no_decay": ("vector",)}
    groups = plan.param_groups(model, given, **settings)
    assert all(group["betas"] == (0.8, 0.9) for group in groups)
    for found, wanted in zip(groups, plan.param_groups(model, "adamw", **settings), strict=True):
        assert {k: v for k, v in found.items() if k != "params"} == {
            k: v for k, v in wanted.items() if k != "params"
        }
    torch.optim.AdamW(groups)


class Lion(torch.optim.Optimizer):
    """As a user would write it, with an option that no optimizer of torch has."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, cautious=False):
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "cautious": cautious}
        super().__init__(params, defaults)


class AdamW8bit(torch.optim.AdamW):
    """As in libraries that hand on what they do not know."""

    def __init__(self, params, block_wise=True, **kwargs):
        super().__init__(params, **kwargs)


def test_a_class_of_the_user_s_brings_its_own_options(planned):
    model, plan = planned
    optimizer = Lion(plan.param_groups(model, Lion, lr=0.01, cautious=True))
    assert all(group["cautious"] for group in optimizer.param_groups)
    with pytest.raises(TypeError, match=r"cautios=True is no option of lion.*mean cautious\?"):
        plan.param_groups(model, Lion, lr=0.01, cautios=True)
    with pytest.raises(TypeError, match="cautious=True is no option of lion.*pass its class"):
        plan.param_groups(model, "lion", lr=0.01, cautious=True)


def test_a_class_with_kwargs_takes_any_option_but_a_near_miss(planned):
    model, plan = planned
    options = {"block_wise": False, "percentile_clipping": 5}
    groups = plan.param_groups(model, AdamW8bit, lr=0.01, **options)
    assert {group["percentile_clipping"] for group in groups} == {5}
    assert {group["block_wise"] for group in groups} == {False}
    with pytest.raises(TypeError, match=r"weigth_decay=0.3 is no option.*mean weight_decay\?"):
        plan.param_groups(model, AdamW8bit, lr=0.01, weigth_decay=0.3)


def test_an_instance_takes_what_its_groups_hold(planned):
    """Its defaults say so, where a class's signature also has what only the constructor reads."""
    model, plan = planned
    given = AdamW8bit(model.parameters())
    groups = plan.param_groups(model, given, lr=0.01, amsgrad=True)
    assert {group["amsgrad"] for group in groups} == {True}
    for option in ("block_wise", "weigth_decay", "percentile_clipping"):
        with pytest.raises(TypeError, match=f"{option}=0.5 is no option of adamw8bit"):
            plan.param_groups(model, given, lr=0.01, **{option: 0.5})


def test_options_of_a_constructor_of_paramz_are_none_of_its_groups(planned):
    model, plan = planned
    with pytest.raises(TypeError, match="fisher='exact' is no option of kfac"):
        plan.param_groups(model, paramz.optim.KFAC, lr=0.1, fisher="exact")
    (optimizer,) = paramz.make_optimizers(plan, model, "kfac", lr=0.1, fisher="exact")
    assert isinstance(optimizer, paramz.optim.KFAC)
    optimizer.close()


class HandsOn(torch.optim.SGD):
    def __init__(self, params, **kwargs):
        super().__init__(params, **kwargs)


def test_a_class_that_hands_its_arguments_on_has_those_of_its_base(planned):
    """An option is not taken for a misspelt one because it resembles another (damping)."""
    model, plan = planned
    groups = plan.param_groups(
        model, type("SGD", (HandsOn,), {}), lr=0.1, momentum=0.9, dampening=0.1
    )
    assert {group["dampening"] for group in groups} == {0.1}


def test_options_that_choose_the_rules_are_taken_for_any_class_of_the_family(planned):
    model, plan = planned

    class Adam8bit(torch.optim.Optimizer):
        def __init__(self, params, lr=1e-3, betas=(0.9, 0.999)):
            super().__init__(params, {"lr": lr, "betas": betas})

    settings = {"lr": 0.1, "weight_decay": 0.1}
    apart = plan.param_groups(model, Adam8bit, decoupled_weight_decay=True, **settings)
    wanted = plan.param_groups(model, "adamw", **settings)
    assert [g["weight_decay"] for g in apart] == [g["weight_decay"] for g in wanted]


def test_a_family_of_the_user_s_takes_its_own_options(planned):
    model, plan = planned
    family = dataclasses.replace(paramz.families.ADAMW, name="ademamix")
    groups = plan.param_groups(model, family, lr=0.1, beta3=0.9)
    assert {group["beta3"] for group in groups} == {0.9}
    with pytest.raises(TypeError, match=r"weigth_decay=0.3 is no option of ademamix"):
        plan.param_groups(model, family, lr=0.1, weigth_decay=0.3)
