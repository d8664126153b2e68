"""The tables against one-line formulas, their symmetries and their text form."""

import dataclasses
import json
import pickle
from fractions import Fraction

import pytest

import paramz
from paramz.theory.families import COLUMNS, shampoo
from paramz.theory.power import ONE, Power
from paramz.theory.printed import DEPTH, EXPERTS, HALF, HEAD, IN, LOOPS, OUT, tabulate
from paramz.theory.rules import ROLES, Parametrization
from paramz.theory.tables import PARAMETRIZATIONS

WEIGHTS = {"input": OUT, "hidden": OUT / IN, "output": 1 / IN}


def reduced(power, role):
    """A power with the ratios that are 1 in this role left out."""
    grows = {"input": {"fan_out"}, "hidden": {"fan_in", "fan_out"}, "output": {"fan_in"}}[role]
    return Power(**{scale: e for scale, e in power.exponents if scale in grows})


@pytest.mark.parametrize(
    ("column", "e"), [("sgd", Fraction(0)), ("muon", HALF), ("kfac", Fraction(1))]
)
@pytest.mark.parametrize("role", WEIGHTS)
def test_mup_is_the_spectral_formula(column, e, role):
    # ||dW||_2 ~ sqrt(OUT/IN) for an update of degree 1 - 2e in the gradient.
    rule = paramz.MUP.rule(column, role)
    assert rule.lr == reduced((OUT / IN) ** (1 - e), role)
    assert rule.multiplier == ONE


@pytest.mark.parametrize("role", WEIGHTS)
def test_mup_of_entrywise_optimizers_is_one_over_fan_in(role):
    rule = paramz.MUP.rule("adam", role)
    assert rule.lr == reduced(1 / IN, role)


@pytest.mark.parametrize("role", WEIGHTS)
def test_mup_of_foof_is_fan_out(role):
    # |G A^-1| ~ |g|/|a|, where |g|^2 ~ 1/OUT and |a|^2 ~ IN: OUT times it is sqrt(OUT/IN).
    assert paramz.MUP.rule("foof", role).lr == reduced(OUT, role)


@pytest.mark.parametrize("e", [Fraction(k, 8) for k in range(1, 9)])
@pytest.mark.parametrize("role", WEIGHTS)
def test_shampoo_of_any_exponent_is_the_spectral_formula(e, role):
    rule = paramz.MUP.entry(shampoo(e), role)
    assert rule.lr == reduced((OUT / IN) ** (1 - e), role)
    assert rule.eps == reduced(IN / OUT, role)  # of G G^T
    assert rule.lr * rule.weight_decay == ONE
    for factor, a in ((paramz.DEPTH_MUP, HALF), (paramz.COMPLETEP, Fraction(1))):
        inner = factor.entry(shampoo(e), "hidden")
        blocks = DEPTH / LOOPS  # runs of one block add up in its gradient
        assert inner.lr == blocks ** (2 * a * (1 - e) - 1)
        assert inner.eps == blocks ** (-2 * a)
        both = (paramz.MUP * factor).entry(shampoo(e), role)
        assert both.lr == rule.lr * inner.lr
        assert both.eps == rule.eps * inner.eps
    expert = paramz.MOE_MUP.entry(shampoo(e), "expert")
    assert (expert.lr, expert.eps) == (EXPERTS ** (1 - 2 * e), EXPERTS**-2)


def test_dampings_follow_the_factors():
    # |a|^2 ~ IN of a layer's inputs, |g|^2 ~ 1/OUT of its output's gradient, less inside branches.
    for role in WEIGHTS:
        rule = paramz.MUP.rule("kfac", role)
        assert rule.damping_a == reduced(IN, role)
        assert rule.damping_b == reduced(1 / OUT, role)
        assert paramz.MUP.rule("foof", role).damping_a == rule.damping_a
    assert paramz.MUP.rule("kfac", "vector").damping_b == 1 / OUT
    for factor in (paramz.DEPTH_MUP, paramz.COMPLETEP):
        # The factor is a sum over the runs of a block, whose gradients have the branch's factor.
        assert factor.rule("kfac", "hidden").damping_b == LOOPS * factor.branch**2
        assert factor.rule("kfac", "hidden").lr == 1 / DEPTH


@pytest.mark.parametrize("role", WEIGHTS)
def test_eps_follows_the_gradient(role):
    # ||G||_2 ~ sqrt(IN/OUT); an entry of it is smaller by the root of the number of entries.
    spectral = reduced((IN / OUT) ** HALF, role)
    entry = reduced((IN / OUT) ** HALF * (IN * OUT) ** -HALF, role)
    assert paramz.MUP.rule("muon", role).eps == spectral
    assert paramz.MUP.rule("adam", role).eps == entry


def test_the_gradient_of_a_router_is_as_large_as_its_rows_together():
    # A row per expert, each of the size of 1/experts.
    moe = PARAMETRIZATIONS["moe"]
    assert moe.rule("adam", "router").eps == 1 / EXPERTS
    assert moe.rule("muon", "router").eps == EXPERTS**-HALF
    assert moe.entry(shampoo(HALF), "router").eps == 1 / EXPERTS
    assert moe.rule("kfac", "router").damping_b == 1 / EXPERTS


def test_init_is_fan_in_but_for_the_readout():
    for column in paramz.MUP.columns:
        assert paramz.MUP.rule(column, "input").init_std == ONE
        assert paramz.MUP.rule(column, "hidden").init_std == IN**-HALF
        assert paramz.MUP.rule(column, "output").init_std == 1 / IN


def test_mean_field_is_mup_shifted():
    shifted = paramz.MUP.shift(COLUMNS, hidden=IN**-HALF, output=1 / IN, inward=1 / IN)
    assert shifted.rules == paramz.MEAN_FIELD.rules
    assert shifted.attention == paramz.MEAN_FIELD.attention


def test_ntp_trains_as_the_theory_says():
    # NTP's effective lr is that of SGD on W = w / sqrt(n): 1/n of the raw one.
    folded = paramz.NTP.rule("sgd", "hidden").folded(COLUMNS["sgd"])
    assert folded.init_std == IN**-HALF
    assert folded.lr == 1 / IN


@pytest.mark.parametrize("table", PARAMETRIZATIONS.values(), ids=lambda table: table.name)
def test_every_rule_is_the_identity_at_the_base(table):
    at_base = {"fan_in": 1.0, "fan_out": 1.0, "head": 1.0}
    for rule in table.rules.values():
        for field in dataclasses.fields(rule):
            power = getattr(rule, field.name)
            assert power(at_base) == 1.0
    assert table.attention(at_base) == 1.0


PARTIAL = ("embed", "full-align", "no-align", "large-vocab", "s-mup")
WHOLE = [table for table in PARAMETRIZATIONS.values() if table.name not in PARTIAL]


@pytest.mark.parametrize("table", WHOLE, ids=lambda table: table.name)
def test_every_table_is_complete_and_round_trips(table):
    if {role for _, role in table.rules} <= {"inward", "latent"}:
        table = paramz.MUP * table  # a policy for one role is a factor of a scheme
    # u-muP rescales gradients, so it has no rules for optimizers that need their true size.
    # An adapter's factor that starts at zero lets none of them through to the other.
    true_gradients = () if table.name in ("u-mup", "lora", "rslora") else ("kfac", "foof")
    assert table.columns == ("sgd", "adam", "muon", *true_gradients)
    for column in ("sgd", "adam", *true_gradients):
        for role in ROLES:
            assert table.rule(column, role).lr * table.rule(column, role).weight_decay == ONE
    assert {role for c, role in table.rules if c == "muon"} >= {"input", "hidden", "output"}
    assert not {"vector", "scalar"} & {role for c, role in table.rules if c == "muon"}
    assert Parametrization.from_json(json.loads(json.dumps(table.to_json()))) == table
    assert pickle.loads(pickle.dumps(table)) == table
    assert table.source


@pytest.mark.parametrize("table", PARAMETRIZATIONS.values(), ids=lambda table: table.name)
def test_init_and_multiplier_do_not_depend_on_the_optimizer(table):
    # The plan initialises a model before it knows the optimizer.
    for role in {role for _, role in table.rules}:
        rules = [rule for (_, r), rule in table.rules.items() if r == role]
        assert len({(rule.init_std, rule.multiplier) for rule in rules}) == 1


def test_only_mup_and_its_equals_change_the_attention_scale():
    assert {t.name for t in PARAMETRIZATIONS.values() if t.attention == 1 / HEAD} == {
        "mup",
        "mean-field",
        "u-mup",
    }
    assert {t.attention for t in PARAMETRIZATIONS.values()} == {1 / HEAD, HEAD**-HALF}


def test_variants_refuse_optimizers_that_nobody_has_spoken_of():
    adam, muon = ("adam", "input"), ("muon", "input")
    assert paramz.parametrization("sp+embed").rule(*adam).lr == OUT
    assert paramz.parametrization("sp+embed").rule("adam", "hidden") == paramz.SP.rule(
        "adam", "hidden"
    )
    large = paramz.parametrization("mup+large-vocab")
    assert (large.rule(*adam).lr, large.rule(*muon).lr) == (OUT**-HALF, OUT**HALF)
    with pytest.raises(KeyError, match="has no rule for sgd x input: its columns are adam, muon"):
        large.rule("sgd", "input")
    with pytest.raises(KeyError, match="no rule for sgd x hidden: its columns are adam"):
        paramz.parametrization("sp+no-align").rule("sgd", "hidden")


def test_per_layer_rates_undo_what_sp_grows():
    # SP's readout of std IN^-1/2 sends back gradients IN^1/2 larger than muP's, in every entry.
    full, mup = paramz.parametrization("sp+full-align"), paramz.MUP
    for role in ("input", "hidden", "output"):
        assert reduced(full.rule("adam", role).lr, role) == reduced(mup.rule("adam", role).lr, role)
    for role in ("input", "hidden"):
        ratio = full.rule("sgd", role).lr / mup.rule("sgd", role).lr
        assert reduced(ratio, role) == OUT**-HALF
    bare = paramz.parametrization("sp+no-align")
    assert bare.rule("adam", "hidden").lr == IN**-HALF


def test_lookup_by_name():
    assert paramz.parametrization("μP") is paramz.MUP
    assert paramz.parametrization(paramz.SP) is paramz.SP
    product = paramz.parametrization("mup+completep")
    assert product.name == "mup+completep"
    assert product.rule("adam", "hidden").lr == 1 / IN
    for wrong, right in (("mup+mupp", "mup"), ("rs-lora", "rslora"), ("deepmup", "depth-mup")):
        with pytest.raises(
            ValueError, match=rf"did you mean '{right}'\?\); known: sp, ntp, mup, m"
        ):
            paramz.parametrization(wrong)
    with pytest.raises(
        ValueError, match=r"unknown parametrization 'xyzzy'; known: sp, ntp, mup, m"
    ):
        paramz.parametrization("xyzzy")


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="x, row hidden: 2 entries for 3 columns"):
        tabulate("x", "", attention=HEAD, columns=("init", "mult", "sgd.lr"), hidden=(IN, ONE))


def test_a_product_keeps_the_decay_that_one_side_chooses():
    chosen = dataclasses.replace(paramz.MUP, decay="independent")
    assert (chosen * paramz.COMPLETEP).decay == "independent"
    assert (paramz.COMPLETEP * chosen).decay == "independent"
    with pytest.raises(ValueError, match="decay='independant' is no policy"):
        dataclasses.replace(paramz.MUP, decay="independant")


def test_a_unit_scaled_table_is_read_by_the_key_of_before():
    data = paramz.U_MUP.to_json()
    assert data["absolute"] is data["unit_scaled"] is True
    for key in ("unit_scaled", "decay"):
        del data[key]
    assert paramz.Parametrization.from_json(data) == paramz.U_MUP
