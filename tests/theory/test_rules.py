"""The algebra of powers, and the abc symmetry: a shifted table is the same training run."""

import json
import pickle
from fractions import Fraction

import pytest
import torch
from cases import build64, mlp, train
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import paramz
from paramz.theory.families import COLUMNS, FAMILIES
from paramz.theory.power import ONE, SCALES, Power
from paramz.theory.rules import ROLES, SPECIAL_CASE_OF, Parametrization, Rule

exponents = st.builds(Fraction, st.integers(-6, 6), st.sampled_from([1, 2, 3]))
powers = st.builds(Power, fan_in=exponents, fan_out=exponents, depth=exponents)
ratios = st.dictionaries(st.sampled_from(SCALES), st.sampled_from([0.25, 1.0, 3.0]))
rules = st.builds(
    Rule, init_std=powers, multiplier=powers, lr=powers, eps=powers, weight_decay=powers
)


@given(powers, powers, powers)
def test_powers_are_a_commutative_group(p, q, r):
    assert p * q == q * p
    assert (p * q) * r == p * (q * r)
    assert p * ONE == p
    assert p / p == ONE
    assert 1 / p == p**-1 == ONE / p


@given(powers, powers, exponents, ratios)
def test_evaluation_is_a_homomorphism(p, q, k, at):
    assert (p * q)(at) == pytest.approx(p(at) * q(at), rel=1e-13)
    assert (p**k)(at) == pytest.approx(p(at) ** float(k), rel=1e-13)


@given(powers)
def test_a_power_is_exactly_one_at_the_base(p):
    assert p({}) == 1.0
    assert p(dict.fromkeys(SCALES, 1.0)) == 1.0


@given(powers)
def test_power_round_trip_is_exact(p):
    assert Power.from_json(json.loads(json.dumps(p.to_json()))) == p
    assert pickle.loads(pickle.dumps(p)) == p


def test_power_prints_as_people_write_it():
    assert str(Power(fan_in=-1, fan_out=Fraction(1, 2))) == "fan_in^-1 fan_out^1/2"
    assert str(Power(depth=1)) == "depth"
    assert str(ONE) == str(Power(fan_in=0)) == "1"


def test_unknown_scales_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown scale 'widht'; the scales are fan_in, fan_out"):
        Power(widht=1)
    with pytest.raises(ValueError, match=r"only 1 / power is defined, not 2 /"):
        2 / Power(fan_in=1)


@given(rules, powers, powers, st.sampled_from(sorted(FAMILIES)))
def test_shifts_compose_and_undo(rule, a, b, name):
    family = FAMILIES[name]
    assert rule.shift(a, family).shift(b, family) == rule.shift(a * b, family)
    assert rule.shift(a, family).shift(a**-1, family) == rule
    shifted = rule.shift(a, family)
    assert shifted.init_std * shifted.multiplier == rule.init_std * rule.multiplier
    if family.decay != "none":
        assert shifted.lr * shifted.weight_decay == rule.lr * rule.weight_decay


@given(rules, powers, st.sampled_from(sorted(FAMILIES)))
def test_folding_leaves_no_multiplier_and_forgets_shifts(rule, a, name):
    family = FAMILIES[name]
    assert rule.folded(family).multiplier == ONE
    assert rule.shift(a, family).folded(family) == rule.folded(family)


@given(rules)
def test_rule_round_trip(rule):
    assert Rule.from_json(json.loads(json.dumps(rule.to_json()))) == rule
    assert rule * Rule() == rule


def test_shifting_sgd_by_hand():
    # W = a w with a = 1/n: w is n times larger, dL/dw n times smaller, so lr must grow by n^2.
    readout = Rule(init_std=Power(fan_in=-1), lr=Power(fan_in=-1)).shift(
        Power(fan_in=-1), COLUMNS["sgd"]
    )
    assert readout == Rule(
        multiplier=Power(fan_in=-1), lr=Power(fan_in=1), weight_decay=Power(fan_in=-2)
    )


def test_a_missing_rule_names_what_there_is():
    with pytest.raises(KeyError, match="mup has no rule for muon x vector: muon has rules for hid"):
        paramz.MUP.rule("muon", "vector")
    with pytest.raises(
        KeyError,
        match="u-mup has no rule for kfac x hidden: its columns are sgd.* an optimizer that reads",
    ):
        paramz.U_MUP.rule("kfac", "hidden")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mup+mup", "'mup.mup' has mup twice"),
        ("mup+moe+moe", "has moe twice"),
        ("mup+ntp", "mup and ntp are different rules for width"),
        ("mup+completep+depth-mup", "completep and depth-mup are .* depth, .* Keep one of"),
        ("mup+moe+moe-bottleneck", "Keep one of moe, moe-readout-router, moe-bottleneck"),
        ("mup+bottleneck-hidden+bottleneck-readout", "different rules for bottlenecks"),
        ("sp+full-align+no-align", "different rules for alignment"),
        ("sp+mup", "sp and mup are different rules for width"),
        ("mup+full-align", "full-align is a factor on the rules of sp .* Write 'sp.full-align'"),
        ("large-vocab+completep+sp", "large-vocab is a factor on the rules of mup"),
        ("ntp+bottleneck-hidden", "Write 'mup.bottleneck-hidden'"),
    ],
)
def test_a_product_of_alternatives_is_refused(name, said):
    """It would square the learning rates' ratios: width^-2 under mup+mup."""
    with pytest.raises(ValueError, match=said):
        paramz.parametrization(name)
    first, *rest = name.split("+")
    product = paramz.parametrization(first)
    with pytest.raises(ValueError, match=said):
        for each in rest:
            product = product * paramz.parametrization(each)


def test_product_with_a_table_that_says_nothing_changes_no_rule():
    nothing = Parametrization(name="nothing", source="", rules={})
    product = paramz.MUP * nothing
    assert product.rules == paramz.MUP.rules
    assert product.attention == paramz.MUP.attention


# Muon orthogonalises in bfloat16, so its factors are powers of two: ratio 4, exponents k/2.
BASE, TARGET = 4, 16
TRAINED = {
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "nadam": torch.optim.NAdam,
    "adamax": torch.optim.Adamax,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adafactor": lambda groups: torch.optim.Adafactor(groups, eps=(None, 1e-12)),
    "muon": torch.optim.Muon,
}  # not RAdam: its first five steps are plain momentum, which no rescaling of lr and eps undoes
EPS = {"adafactor": None, "sgd": None}
half_steps = st.integers(-4, 4).map(lambda k: Fraction(k, 2))
factors = st.builds(lambda i, o: Power(fan_in=i, fan_out=o), half_steps, half_steps)


def trajectory(table, optimizer):
    model = build64(mlp, TARGET, bias=optimizer != "muon")
    plan = paramz.parametrize_(
        model, table, base=lambda w=BASE: build64(mlp, w, bias=optimizer != "muon"), fold=False
    )
    # A large eps and decay, so that a wrong power of either shows.
    groups = plan.param_groups(
        model, optimizer, lr=0.05, weight_decay=0.1, eps=EPS.get(optimizer, 1e-2)
    )
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(16, 6, generator=draw, dtype=torch.float64)
    y = torch.randint(3, (16,), generator=draw)
    return train(model, TRAINED[optimizer](groups), (x, y), steps=6)


@pytest.mark.parametrize("optimizer", TRAINED)
@settings(max_examples=8, phases=[Phase.generate])  # shrinking would train hundreds of times
@given(
    scheme=st.sampled_from(["sp", "ntp", "mup", "mean-field"]),
    shifts=st.fixed_dictionaries({role: factors for role in ("input", "hidden", "output")}),
)
def test_abc_symmetry(optimizer, scheme, shifts):
    table = paramz.parametrization(scheme)
    expected = trajectory(table, optimizer)
    family = FAMILIES[optimizer]
    shifted = trajectory(table.shift({**COLUMNS, family.column: family}, **shifts), optimizer)
    assert (expected - expected[0]).abs().max() > 1e-3  # it does train
    assert torch.allclose(shifted, expected, rtol=0, atol=1e-12)


def test_roles_of_the_tables_are_the_roles():
    # A policy for one role is no scheme by itself, but a factor of one.
    policies = {
        "bottleneck-hidden": {"inward"}, "bottleneck-readout": {"latent"},
        "embed": {"input"}, "large-vocab": {"input"}, "s-mup": {"input", "hidden"},
    }  # fmt: skip
    for table in paramz.tables.PARAMETRIZATIONS.values():
        roles = {role for _, role in table.rules}
        if table.name in policies:
            assert roles == policies[table.name]
            whole = paramz.SP if table.name == "embed" else paramz.MUP
            roles = {role for _, role in (whole * table).rules}
        assert roles | set(SPECIAL_CASE_OF) == set(ROLES)
        assert set(SPECIAL_CASE_OF.values()) <= roles
