"""Roles and drafts are functions of facts: what a scheme makes of them needs no model."""

import pytest

import paramz
from paramz.anatomy.attention import KEY_INPUT, GrowingHeads
from paramz.anatomy.axes import IN_OUT, OUT_IN, Axes
from paramz.anatomy.branches import Residual
from paramz.anatomy.embeddings import EmbeddingScale
from paramz.anatomy.facts import Facts, TensorFacts
from paramz.anatomy.moe import MoePart
from paramz.anatomy.tensors import ModelTensor, Use
from paramz.plan.draft import draft_plan
from paramz.plan.roles import find_roles
from paramz.plan.rulebook import Rulebook


def tensor(name, shape, base, wider, *axes, **more):
    """One tensor, used by as many modules as there are axes."""
    uses = tuple(
        Use(f"{name}{n or ''}", "weight", "Linear", each, owner=n, takes_factor=True)
        for n, each in enumerate(axes)
    )
    names = tuple(f"{use.module}.weight" for use in uses)
    return TensorFacts(
        tensor=ModelTensor(shape, names, uses), base_shape=base, wider_shape=wider, **more
    )


FIRST = tensor("first", (64, 4), (8, 4), (16, 4), OUT_IN)
HIDDEN = tensor("hidden", (64, 64), (8, 8), (16, 16), OUT_IN)
LAST = tensor("last", (2, 64), (2, 8), (2, 16), OUT_IN)
TIED = tensor("emb", (11, 64), (11, 8), (11, 16), IN_OUT, OUT_IN)


def test_roles_and_ratios_follow_from_shapes_and_axes():
    rows = find_roles([FIRST, HIDDEN, LAST])
    assert [row.role for row in rows] == ["input", "hidden", "output"]
    assert [dict(row.ratios) for row in rows] == [
        {"fan_out": 8.0},
        {"fan_in": 8.0, "fan_out": 8.0},
        {"fan_in": 8.0},
    ]


def test_a_tied_readout_gets_a_multiplier():
    plan = draft_plan(Facts(tensors=(TIED,)), Rulebook(paramz.MUP))
    assert plan.rows[0].role == "input" and plan.rows[0].readouts == ("emb1",)
    assert plan.multipliers == {"emb1": 1 / 8}
    scaled = draft_plan(Facts(tensors=(TIED,), scaled_readout=True), Rulebook(paramz.MUP))
    assert scaled.multipliers["emb1"] == pytest.approx(8**-0.5)


def test_an_expert_is_a_hidden_matrix_with_its_layers_ratios():
    expert = tensor(
        "experts.0", (64, 64), (8, 8), (16, 16), OUT_IN,
        moe=MoePart("expert", "moe", None), expert_ratios={"experts": 4.0, "top_k": 2.0},
    )  # fmt: skip
    (row,) = find_roles([expert])
    assert (row.role, row.why) == ("expert", "expert: Linear: fan_in and fan_out grow")
    assert row.ratios["experts"] == 4.0


def test_what_changes_in_modules_depends_on_the_scheme():
    heads = (
        GrowingHeads("a", "scale", plain=0.25, base=0.5, head=4.0),
        GrowingHeads("b", KEY_INPUT, head=4.0),
        GrowingHeads("c", "scaling", plain=1.0, base=1.0, head=4.0, constant=True),
    )
    facts = Facts(tensors=(HIDDEN,), heads=heads, embeddings=(EmbeddingScale("e", 8.0, 2.0, "e"),))
    mup = draft_plan(facts, Rulebook(paramz.MUP)).attention
    assert [(s.module, s.value) for s in mup] == [
        ("a", 0.125),  # 0.5 / 4: 1/d_head from the base's value
        ("b", 0.5),  # torch computes 1/sqrt(d_head) itself
        ("c", 0.25),
        ("e", 2.0),
    ]
    sp = draft_plan(facts, Rulebook(paramz.SP)).attention
    assert [(s.module, s.value) for s in sp] == [("a", 0.25), ("b", 1.0)]


def test_heads_without_a_scale_to_set_are_warned_about_under_mup_only():
    facts = Facts(tensors=(HIDDEN,), heads=(GrowingHeads("block.attn", None),))
    with pytest.warns(UserWarning, match="block.attn: the size of a head grows with width"):
        draft_plan(facts, Rulebook(paramz.MUP))
    draft_plan(facts, Rulebook(paramz.SP))


def test_tensors_inside_branches_have_a_depth():
    residual = Residual(
        blocks={"hidden.weight": "layers.0"}, ends=frozenset({"hidden.weight"}),
        hooked=("layers.0.conv",), ratios={"layers.0": {"depth": 3.0}},
        modules={"hidden": "layers.0", "layers.0.conv": "layers.0"},
        called={"hidden": "hidden", "layers.0.conv": "layers.0"},
    )  # fmt: skip
    facts = Facts(tensors=(FIRST, HIDDEN), residual=residual)
    scheme = paramz.parametrization("mup+completep")
    plan = draft_plan(facts, Rulebook(scheme))
    assert [(row.block, row.ends) for row in plan.rows] == [(None, False), ("layers.0", True)]
    assert plan.branches == pytest.approx({"layers.0": 1 / 3})
    assert plan.notes == ("depth times 3: residual branches times 0.3333",)
    unfolded = draft_plan(facts, Rulebook(scheme, folded=False))
    assert unfolded.branches == pytest.approx({"hidden": 1 / 3, "layers.0": 1 / 3})


def test_overrides_are_read_without_a_model():
    bare = tensor("table", (5, 64), (5, 8), (5, 16), None)
    with pytest.raises(ValueError, match="table.weight .5, 64.: axis 1 grows with width"):
        find_roles([bare])
    (row,) = find_roles([bare], {"table": Axes(fan_in=(0,), fan_out=(1,))})
    assert (row.role, row.why) == ("input", "roles['table']: fan_out grows")
