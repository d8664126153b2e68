"""Applying a plan: once, in place, and through everything that people do to models afterwards."""

import copy
import pickle

import pytest
import torch
from cases import CASES, attention_classifier, build64, gpt, llama, mlp, tied_gpt
from torch import nn

import paramz
from paramz.theory.families import COLUMNS
from paramz.theory.printed import HALF, IN, OUT

FORM_B = paramz.MUP.shift(COLUMNS, output=1 / IN)


def hooked(width=32):
    """A GPT with a multiplier hook on its readout, and its plan."""
    model = build64(gpt, width)
    return model, paramz.parametrize_(model, FORM_B, base=lambda w=8: build64(gpt, w), fold=False)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_twice_is_once():
    for build in (gpt, tied_gpt):
        for scheme, fold in (("mup", True), (FORM_B, False)):
            model = build(32)
            plan = paramz.parametrize_(model, scheme, base=build, fold=fold)
            before = state(model)
            scales = [m.scale for m in model.modules() if hasattr(m, "scale")]
            hooks = [len(m._forward_pre_hooks) for m in model.modules()]
            assert paramz.parametrize_(model, scheme, base=build, fold=fold) is plan
            assert same(before, state(model))
            assert scales == [m.scale for m in model.modules() if hasattr(m, "scale")]
            assert hooks == [len(m._forward_pre_hooks) for m in model.modules()]


@pytest.mark.parametrize(
    "other",
    [
        {"parametrization": "sp"},
        {"base_width": 16},
        {"roles": {"head": "hidden"}},
        {"fold": False},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_plan_is_refused(other):
    model = gpt(32)
    first = {"parametrization": "mup", "base": gpt, "base_width": 8}
    paramz.parametrize_(model, **first)
    before = state(model)
    with pytest.raises(
        ValueError, match="already under mup with another base or other roles. Build"
    ):
        paramz.parametrize_(model, **(first | other))
    assert same(before, state(model))


def test_the_plan_sits_on_the_model_and_on_nothing_else():
    model, plan = hooked()
    assert paramz.plan_of(model) is plan
    assert list(model.state_dict()) == list(gpt(32).state_dict())
    for parameter in model.parameters():
        assert vars(parameter) == {}
    assert paramz.plan_of(model.blocks[0]) is None


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
def test_copies_are_under_the_same_plan(copied):
    model, plan = hooked()
    twin = copied(model)
    ids, _ = CASES["gpt"].batch()
    assert torch.equal(twin(ids), model(ids))
    assert paramz.plan_of(twin) == plan
    assert (
        paramz.parametrize_(twin, FORM_B, base=lambda w=8: build64(gpt, w), fold=False) == plan
    )  # and cannot be applied twice by mistake
    values = [(g["lr"], len(g["params"])) for g in plan.param_groups(twin, "sgd", lr=1.0)]
    assert values == [(g["lr"], len(g["params"])) for g in plan.param_groups(model, "sgd", lr=1.0)]
    paramz.remove_(twin)
    assert paramz.plan_of(model) is plan
    assert not torch.equal(twin(ids), model(ids))


def test_state_dict_round_trip_with_the_plain_keys(tmp_path):
    model, plan = hooked()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    plan.save(tmp_path / "paramz.json")
    loaded = build64(gpt, 32, seed=1)
    loaded.load_state_dict(torch.load(tmp_path / "model.pt"))
    ids, _ = CASES["gpt"].batch()
    assert not torch.allclose(loaded(ids), model(ids))  # the plain model is another function
    paramz.parametrize_(loaded, FORM_B, base=lambda w=8: build64(gpt, w), fold=False, init=False)
    assert torch.equal(loaded(ids), model(ids))
    assert paramz.Plan.load(tmp_path / "paramz.json") == plan


@pytest.mark.parametrize("case", ["hooked gpt", "tied gpt", "torch attention"])
def test_compile_in_one_graph(case):
    compile_and_compare(case, "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("case", ["hooked gpt", "tied gpt", "torch attention"])
def test_compile_with_inductor(case):
    compile_and_compare(case, "inductor")


def under_plan(case):
    """A model with every kind of hook there is, and an input."""
    if case == "hooked gpt":
        return hooked()[0], CASES["gpt"].batch()[0]
    build = tied_gpt if case == "tied gpt" else attention_classifier
    model = build64(build, 32)
    paramz.parametrize_(model, "mup", base=lambda w=8: build64(build, w))
    x = torch.randn(2, 5, 32, dtype=torch.float64)
    return model, CASES["gpt"].batch()[0] if case == "tied gpt" else x


def compile_and_compare(case, backend):
    torch._dynamo.reset()
    model, x = under_plan(case)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    expected, got = model(x), compiled(x)
    assert torch.allclose(got, expected, atol=1e-12)
    got.square().mean().backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    model(x).square().mean().backward()
    for mine, eager in zip(grads, (p.grad for p in model.parameters()), strict=True):
        assert torch.allclose(mine, eager, atol=1e-12)


@pytest.mark.parametrize("case", ["hooked gpt", "tied gpt", "torch attention"])
def test_export(case):
    model, x = under_plan(case)
    program = torch.export.export(model.eval(), (x,))
    assert torch.allclose(program.module()(x), model(x), atol=1e-12)
    assert set(program.state_dict) <= set(model.state_dict())


def test_a_hooked_module_called_by_keyword_is_scaled():
    model = mlp(32)
    plan = paramz.parametrize_(model, FORM_B, base=mlp, fold=False)
    readout, x = model[-1], torch.ones(1, 32)
    factor = plan.multipliers[str(len(model) - 1)]
    assert factor != 1
    expected = torch.nn.functional.linear(factor * x, readout.weight, readout.bias)
    assert torch.allclose(readout(input=x), expected)
    assert torch.equal(readout(input=x), readout(x))


def test_multipliers_that_no_hook_can_hold_are_refused():
    table = paramz.MUP.shift(COLUMNS, vector=OUT**HALF)
    with pytest.raises(ValueError) as error:
        paramz.parametrize_(mlp(32), table, base=mlp, fold=False)
    assert str(error.value) == (
        "0.bias: mup puts a multiplier fan_out^1/2 in front of it, and only the weight of a linear,"
        " conv or embedding layer can take one as a hook, not the bias of Linear. Use fold=True."
    )
    build = attention_classifier
    with pytest.raises(ValueError, match="self_attn.in_proj_weight: mean-field puts a multiplier"):
        paramz.parametrize_(build(32), "mean-field", base=build, fold=False)


def test_a_multiplier_on_a_tensor_of_two_layers_is_refused():
    def build(width=8):
        model = nn.ModuleDict({n: nn.Linear(width, width, bias=False) for n in ("a", "b")})
        model["b"].weight = model["a"].weight
        return model

    with pytest.raises(ValueError) as error:
        paramz.parametrize_(build(32), "mean-field", base=build, fold=False)
    assert str(error.value) == (
        "a.weight: mean-field puts a multiplier fan_in^-1/2 in front of it, and b shares the "
        "tensor, which fold=False does not do. Use fold=True."
    )
    paramz.parametrize_(build(32), "mean-field", base=build)


def test_a_layer_used_twice_has_one_hook():
    def build(width=8):
        model = nn.Sequential(nn.Linear(2, width), nn.Linear(width, width), nn.Linear(width, 2))
        return model.insert(2, model[1])

    model = build(32)
    plan = paramz.parametrize_(model, "mean-field", base=build, fold=False)
    assert plan.multipliers == {"1": 0.5, "3": 0.25}
    assert len(model[1]._forward_pre_hooks) == 1


def test_huggingface_models_keep_their_own_save_and_load(tmp_path):
    model = llama(64)
    paramz.parametrize_(model, "mup", base=llama)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    ids = torch.arange(8)[None]
    assert torch.equal(loaded(ids).logits, model(ids).logits)  # form A: a plain model


def test_a_multiplier_of_an_embedding_goes_on_its_output():
    def build(width=8):
        return nn.Sequential(nn.Embedding(5, width), nn.Linear(width, 2, bias=False)).double()

    torch.manual_seed(0)
    plain = build(32)
    ids = torch.arange(5)
    models = []
    for table, fold in ((paramz.MUP, True), (paramz.MUP.shift(COLUMNS, input=OUT), False)):
        torch.manual_seed(0)
        model = build(32)
        plan = paramz.parametrize_(model, table, base=build, fold=fold)
        models.append(model)
    assert plan.multipliers == {"0": 4.0}
    assert torch.allclose(models[0](ids), models[1](ids), atol=1e-12)
    assert torch.equal(models[0][0].weight, plain[0].weight)
    assert torch.equal(models[1][0].weight * 4, plain[0].weight)


def test_init_after_meta_keeps_the_padding_row_zero() -> None:
    def build(width: int) -> nn.Module:
        return nn.Sequential(nn.Embedding(9, width, padding_idx=2), nn.Linear(width, 3))

    with torch.device("meta"):
        model = build(32)
    paramz.parametrize_(model, "mup", base=build, base_width=8)
    model.to_empty(device="cpu")
    paramz.init_(model)
    zero_rows = [i for i, row in enumerate(model[0].weight) if not row.any()]
    assert zero_rows == [2]
