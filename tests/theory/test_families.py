"""Which torch optimizer is which family, and that the facts stated of a family are the optimizer's.

Learning rate, eps and decay of most families are tested as trajectories in test_rules.py.
"""

import dataclasses
import inspect

import pytest
import torch
from cases import build64, mlp

import paramz
from paramz.theory.families import ADAMW, FAMILIES, SGD, family

COLUMN_OF = {
    "SGD": ("sgd", "l2"),
    "Adam": ("adam", "l2-normalised"),
    "AdamW": ("adam", "decoupled"),
    "NAdam": ("adam", "l2-normalised"),
    "RAdam": ("adam", "l2-normalised"),
    "Adamax": ("adam", "l2-normalised"),
    "Adagrad": ("adam", "l2-normalised"),
    "RMSprop": ("adam", "l2-normalised"),
    "Adafactor": ("adam", "decoupled"),
    "Muon": ("muon", "decoupled"),
}


@pytest.mark.parametrize(
    ("field", "given", "said"),
    [
        ("column", "adamw", "mine: column='adamw' is no column .* sgd, adam, muon, kfac, foof"),
        ("graft", "adamw", "mine: graft='adamw' is no column"),
        ("decay", "weight", "mine: decay='weight' is none of none, decoupled, l2, l2-normalised"),
        ("options", "momentum", r"mine: options='momentum' is to be a tuple of names"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(field, given, said):
    with pytest.raises((ValueError, TypeError), match=said):
        paramz.Family(**{"name": "mine", "column": "adam", "lr_shift": 1, field: given})


UNKNOWN = {"ASGD", "Adadelta", "LBFGS", "Rprop", "SparseAdam"}


def test_every_optimizer_of_torch_is_known_or_refused():
    classes = {
        name
        for name, thing in vars(torch.optim).items()
        if inspect.isclass(thing) and issubclass(thing, torch.optim.Optimizer)
    }
    assert classes - {"Optimizer"} == set(COLUMN_OF) | UNKNOWN
    for name in UNKNOWN:
        with pytest.raises(ValueError, match=f"there is no rule for {name}: it"):
            family(getattr(torch.optim, name))


@pytest.mark.parametrize("name", COLUMN_OF)
def test_family_of_torch_optimizers(name):
    kind = getattr(torch.optim, name)
    found = family(kind)
    assert (found.column, found.decay) == COLUMN_OF[name]
    instance = kind([torch.nn.Parameter(torch.ones(2, 2))])
    assert family(name) == family(name.upper()) == family(instance) == found


@pytest.mark.parametrize("name", COLUMN_OF)
def test_defaults_are_torchs_own(name):
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(getattr(torch.optim, name)).parameters.items()
    }
    known = family(name)
    assert known.weight_decay == defaults["weight_decay"]
    if known.eps is not None:
        assert known.eps == defaults["eps"]
    else:
        assert not isinstance(defaults.get("eps"), float)


def test_families_of_second_order():
    assert family("KFAC").column == "kfac"
    assert family("FOOF").column == "foof"
    assert family("SOAP").column == family("shampoo").column == "muon"
    assert not family("soap").shape_factor
    one_sided = family("DistributedShampoo", exponent=(0.5, 0))
    assert one_sided.name == "distributedshampoo"
    assert (one_sided.exponent, one_sided.lr_shift, one_sided.eps_shift) == (0.5, 1, 2)
    assert family("shampoo", exponent=0.5).lr_shift == 0
    assert family("adamw", exponent=0.5) == ADAMW
    with pytest.raises(ValueError, match="Shampoo's exponents sum to 3/2: there are rules for sum"):
        family("shampoo", exponent=0.75)


def test_decoupled_flag():
    assert family("nadam", decoupled=True).decay == "decoupled"
    assert family(torch.optim.RAdam, decoupled=False).decay == "l2-normalised"
    assert family("adam").decay == "l2-normalised"


@pytest.mark.parametrize("name", ["lion", "signSGD", "AdamW8bit", "PagedAdamW", "adam-w"])
def test_optimizers_of_other_libraries(name):
    assert family(name).column == "adam"
    assert family(name).decay == "decoupled"


def test_an_unknown_optimizer_says_what_is_close_and_how_to_declare_it():
    with pytest.raises(ValueError) as error:
        family("admw")
    assert "the closest name is 'adamw'" in str(error.value)
    assert ", ".join(FAMILIES) in str(error.value)
    assert "pass dataclasses.replace(paramz.families.ADAMW, name='admw')" in str(error.value)
    declared = dataclasses.replace(ADAMW, name="admw")
    assert family(declared) is declared


def first_update(optimizer, groups, gradients):
    """Change of each tensor in one step with given gradients."""
    before = [p.detach().clone() for g in groups for p in g["params"]]
    for group in groups:
        for p in group["params"]:
            p.grad = gradients[tuple(p.shape)].clone()
    optimizer(groups).step()
    after = [p.detach() for g in groups for p in g["params"]]
    return {tuple(b.shape): a - b for b, a in zip(before, after, strict=True)}


def test_adafactor_steps_as_adam_would():
    """Its step is relative to the weight's RMS; paramz must take that out again."""
    base, wide = 16, 128
    updates = {}
    for width in (base, wide):
        model = build64(mlp, width, bias=False)
        plan = paramz.parametrize_(model, "mup", base=lambda w=base: build64(mlp, w, bias=False))
        groups = plan.param_groups(model, "adafactor", lr=1e-2)
        torch.manual_seed(1)
        gradients = {
            tuple(p.shape): torch.randn(p.shape, dtype=p.dtype).sign() for p in model.parameters()
        }
        changed = first_update(torch.optim.Adafactor, groups, gradients)
        updates[width] = [
            changed[tuple(p.shape)].square().mean().sqrt().item() for p in model.parameters()
        ]
    # Adam's lr: 1 for the input matrix, 1/IN for hidden matrices and the readout.
    expected = [1.0, base / wide, base / wide, base / wide]
    ratio = [w / b for w, b in zip(updates[wide], updates[base], strict=True)]
    assert ratio == pytest.approx(expected, rel=0.1)  # the RMS of few weights is known to 10 %


def test_adafactors_lr_does_not_depend_on_how_the_table_is_written():
    lrs = []
    for scheme, fold in (("mup", True), ("mean-field", True), ("mean-field", False)):
        model = build64(mlp, 32)
        plan = paramz.parametrize_(model, scheme, base=lambda w=8: build64(mlp, w), fold=fold)
        groups = plan.param_groups(model, "adafactor", lr=1e-2, weight_decay=0.1)
        by_id = {id(p): (g["lr"], g["lr"] * g["weight_decay"]) for g in groups for p in g["params"]}
        lrs.append([by_id[id(p)] for p in model.parameters()])
    assert lrs[0] == [pytest.approx(pair) for pair in lrs[1]]
    assert lrs[0] == [pytest.approx(pair) for pair in lrs[2]]
    assert [decay for _, decay in lrs[0]] == pytest.approx([1e-3] * len(lrs[0]))


def test_sgd_has_no_eps_to_scale():
    assert SGD.eps is None
    model = mlp(16)
    plan = paramz.parametrize_(model, "mup", base=mlp)
    assert all("eps" not in group for group in plan.param_groups(model, "sgd", lr=1.0))
