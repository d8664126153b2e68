"""reparametrize_ on whole models: with and without a plan, and through everything torch does."""

import copy
import json
import pickle
from dataclasses import replace

import pytest
import torch
from cases import convnet, gpt, mlp, tied_gpt
from torch import nn
from torch.func import functional_call, grad, jvp, vmap

import paramz
from paramz.reparam import AOL, MASA, MPO, FedPara, Orthogonal, Relaxed, SpectralNorm
from paramz.reparam.recipe import Recipe

HIDDEN = "[24][.]weight"  # of net
RECIPES = [
    (paramz.WeightNorm(), None),
    (paramz.Compander(), None),
    (paramz.Compander(per="channel"), None),
    (paramz.Compander(per="global"), None),
    (paramz.Compander(learned=False), None),
    (SpectralNorm(), None),
    (SpectralNorm(gain=1.0), None),
    (Orthogonal(), None),
    (Orthogonal(gain=1.0, method="cayley"), HIDDEN),
    (AOL(), HIDDEN),
    (AOL(bound=None), None),
    (FedPara(3), None),
    (Relaxed(), HIDDEN),
    (Relaxed(3), HIDDEN),
    (Relaxed(3, "svd"), HIDDEN),
    (MASA(1), HIDDEN),
    (MPO(), HIDDEN),
    (MPO(ends=2, bond=3), HIDDEN),
]
each_recipe = pytest.mark.parametrize(("recipe", "where"), RECIPES, ids=str)


def net(width: int = 16) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 3),
    )


def planned(recipe: Recipe, where: object, scheme: str = "mup") -> nn.Module:
    torch.manual_seed(0)
    model = net(64)
    paramz.parametrize_(model, scheme, base=net)
    paramz.reparametrize_(model, recipe, where)
    return model.eval()


def unmeasured(plan: paramz.Plan | None) -> paramz.Plan:
    """The plan without the measured init, which is that of other random numbers."""
    assert plan is not None
    rows, computed = (
        tuple(replace(r, base_init=None, factor=None) for r in part)
        for part in (plan.rows, plan.computed)
    )
    return replace(plan, rows=rows, computed=computed)


X = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


@each_recipe
def test_copies_are_the_same_model(recipe: Recipe, where: object):
    model = planned(recipe, where)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(X), model(X))
        assert paramz.plan_of(copied) == paramz.plan_of(model)
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.zero_()
        missing = copied.load_state_dict(model.state_dict())
        assert not missing.missing_keys and not missing.unexpected_keys
        assert torch.equal(copied(X), model(X))
        assert type(copied[2]) is type(model[2])


@each_recipe
def test_fold_and_remove_give_the_very_weights_that_were_used(recipe: Recipe, where: object):
    for undo in (paramz.fold_, paramz.remove_, paramz.unreparametrize_):
        model = planned(recipe, where)
        used = {n: m.weight.detach().clone() for n, m in model.named_children() if
                isinstance(m, nn.Linear)}  # fmt: skip
        before = model(X)
        undo(model)
        assert list(model.state_dict()) == list(net().state_dict())
        assert all(type(m) in (nn.Linear, nn.ReLU) for m in model)
        for name, weight in used.items():
            assert torch.equal(model.get_submodule(name).weight, weight)
        torch.testing.assert_close(model(X), before, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "where"),
    [*RECIPES[:3], *(pytest.param(*r, marks=pytest.mark.slow) for r in RECIPES[3:])],
    ids=str,
)
def test_compile_and_export(recipe: Recipe, where: object):
    torch._dynamo.reset()
    model = planned(recipe, where)
    exported = torch.export.export(model, (X,)).module()
    torch.testing.assert_close(exported(X), model(X))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), model(X))
    compiled(X).square().sum().backward()
    ours = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    plain = copy.deepcopy(model)
    plain.zero_grad()
    plain(X).square().sum().backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-5)


@each_recipe
def test_transforms_of_torch_func(recipe: Recipe, where: object):
    """Gradients, those of each example, directional ones and an ensemble's are autograd's."""
    model = planned(recipe, where)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return functional_call(model, (parameters, buffers), (x,)).square().mean()

    loss_now = model(X).square().mean()
    found = torch.autograd.grad(loss_now, list(model.parameters()), allow_unused=True)
    ours = dict(zip(parameters, found, strict=True))
    theirs = grad(loss)(parameters, X)
    each = vmap(grad(loss), in_dims=(None, 0))(parameters, X)
    for name, expected in ours.items():
        expected = torch.zeros_like(parameters[name]) if expected is None else expected
        torch.testing.assert_close(theirs[name], expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(each[name].mean(0), expected, rtol=1e-4, atol=1e-6)
    along = {name: torch.ones_like(p) for name, p in parameters.items()}
    rate = jvp(lambda p: loss(p, X), (parameters,), (along,))[1]
    wanted = sum(g.sum() for g in ours.values() if g is not None)
    torch.testing.assert_close(rate, wanted, rtol=1e-3, atol=1e-5)
    two = {name: torch.stack([p, p]) for name, p in parameters.items()}
    torch.testing.assert_close(vmap(loss, in_dims=(0, None))(two, X), loss_now.expand(2))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [paramz.WeightNorm(), paramz.Compander()], ids=str)
def test_compile_with_inductor(recipe: Recipe):
    model = planned(recipe, None)
    torch.testing.assert_close(torch.compile(model)(X), model(X))


@each_recipe
def test_plan_before_or_after_is_the_same_plan(recipe: Recipe, where: object):
    after = paramz.plan_of(planned(recipe, where))
    torch.manual_seed(0)
    model = net(64)
    paramz.reparametrize_(model, recipe, where)
    before = paramz.parametrize_(model, "mup", base=net)
    assert unmeasured(before) == unmeasured(after)
    assert paramz.plan_of(model) == before
    assert paramz.parametrize_(model, "mup", base=net) == before  # again changes nothing
    assert paramz.Plan.from_json(json.loads(json.dumps(before.to_json()))) == before
    assert {r.name for r in before.rows} == {n for n, _ in model.named_parameters()}
    assert [r.name for r in before.rows] == [n for n, _ in model.named_parameters()]
    rows = {row.name: tuple(row.shape) for row in before.rows}
    assert rows == {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert before.summary("adamw")


@each_recipe
def test_a_base_that_is_reparametrized_itself(recipe: Recipe, where: object):
    def both(width: int = 16) -> nn.Module:
        model = net(width)
        paramz.reparametrize_(model, recipe, where)
        return model

    model = both(64)
    made = paramz.parametrize_(model, "mup", base=both)
    assert unmeasured(made) == unmeasured(paramz.plan_of(planned(recipe, where)))
    assert paramz.make_plan(both(64), "mup", base=both).rows


@each_recipe
def test_every_tensor_is_trained(recipe: Recipe, where: object):
    model = planned(recipe, where).train()
    plan = paramz.plan_of(model)
    for name in ("adamw", "sgd"):
        groups = plan.param_groups(model, name, lr=0.01)
        assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    (optimizer,) = paramz.make_optimizers(plan, model, "adamw", lr=0.01)
    losses = []
    for _ in range(4):
        loss = nn.functional.cross_entropy(model(X), torch.arange(5) % 3)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(not torch.equal(p, before[n]) for n, p in model.named_parameters())


def ratios(model: nn.Module, optimizer: str) -> dict[str, tuple[float, float]]:
    """Learning rate and decay of every tensor at base lr and decay 1."""
    groups = paramz.plan_of(model).param_groups(model, optimizer, lr=1.0, weight_decay=1.0)
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}


def test_rules_of_weight_norm_under_mup():
    """theory: v as W; g 1 (Adam) or m (SGD); in the readout m^-1/2 and 1/m. Here m = 4."""
    adam = ratios(planned(paramz.WeightNorm(), None), "adamw")
    assert adam["0.weight_v"] == (1, 0) and adam["0.weight_g"] == (1, 1)
    assert adam["2.weight_v"] == (1 / 4, 0) and adam["2.weight_g"] == (1, 1)
    assert adam["6.weight_v"] == (1 / 4, 0) and adam["6.weight_g"] == (1 / 2, 2)
    sgd = ratios(planned(paramz.WeightNorm(), None), "sgd")
    assert [sgd[f"{i}.weight_v"][0] for i in (0, 2, 6)] == [4, 1, 1 / 4]
    assert [sgd[f"{i}.weight_g"][0] for i in (0, 2, 6)] == [4, 4, 1 / 4]


def test_rules_of_compander_under_mup():
    adam = ratios(planned(paramz.Compander(), None), "adamw")
    for i, lr in ((0, 1), (2, 1 / 4), (6, 1 / 4)):
        assert adam[f"{i}.weight_v"] == (lr, 1 / lr)
        assert adam[f"{i}.weight_log_a"] == adam[f"{i}.weight_log_b"] == (1, 0)
    sgd = ratios(planned(paramz.Compander(per="channel"), None), "sgd")
    assert [sgd[f"{i}.weight_log_a"][0] for i in (0, 2, 6)] == [4, 4, 1]


@pytest.mark.parametrize("scheme", ["sp", "ntp", "mean-field", "mup+completep", "mup+depth-mup"])
@pytest.mark.parametrize("recipe", [paramz.WeightNorm(), paramz.Compander()], ids=str)
def test_other_schemes(scheme: str, recipe: Recipe):
    torch.manual_seed(0)
    model = gpt(32)
    paramz.parametrize_(model, scheme, base=gpt)
    ids = torch.arange(6)[None]
    before = model(ids)
    paramz.reparametrize_(model, recipe)
    torch.testing.assert_close(model(ids), before)
    groups = paramz.plan_of(model).param_groups(model, "adamw", lr=1.0)
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    if scheme in ("sp", "ntp"):
        expected = {"sp": 1.0, "ntp": 0.5}[scheme]  # folded: lr of W is fan_in^-1/2
        names = {id(p): n for n, p in model.named_parameters()}
        lrs = {names[id(p)]: g["lr"] for g in groups for p in g["params"]}
        if isinstance(recipe, paramz.WeightNorm):
            assert lrs["blocks.0.mlp.0.weight_v"] == expected
            assert lrs["blocks.0.mlp.0.weight_g"] == lrs["head.weight_g"] == 1.0


def test_mean_field_trains_like_mup():
    """The same run, written with other multipliers: so are the rules of g."""
    runs = []
    for scheme in ("mup", "mean-field"):
        model = planned(paramz.WeightNorm(), None, scheme).double()
        (optimizer,) = paramz.make_optimizers(paramz.plan_of(model), model, "sgd", lr=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X.double()), torch.arange(5) % 3).backward()
            optimizer.step()
        runs.append(model(X.double()))
    torch.testing.assert_close(*runs)


def test_unit_scaled_models_keep_their_function():
    torch.manual_seed(0)
    model = net(64)
    batch = X, torch.arange(5) % 3
    paramz.parametrize_(model, "u-mup", example=batch)
    before = model(X)
    paramz.reparametrize_(model, paramz.WeightNorm())
    torch.testing.assert_close(model(X), before)
    assert ratios(model, "adamw")["2.weight_v"][0] == 64**-0.5
    assert ratios(model, "adamw")["2.weight_g"][0] == 8.0  # |w| is sqrt(fan_in) of it


def test_where():
    model = net()
    paramz.reparametrize_(model, paramz.WeightNorm(), [r"^0\.", r"^6\."])
    assert [n for n, _ in model.named_parameters()][:3] == ["0.weight_v", "0.weight_g", "0.bias"]
    assert type(model[2]) is nn.Linear
    conv = convnet()
    paramz.reparametrize_(conv, paramz.WeightNorm(), nn.Conv2d)
    assert type(conv[6]) is nn.Linear and hasattr(conv[0], "weight_v")
    tokens = gpt()
    paramz.reparametrize_(tokens, paramz.WeightNorm())
    assert type(tokens.tokens) is nn.Embedding and type(tokens.norm) is nn.LayerNorm
    wide = gpt(32)
    paramz.parametrize_(wide, "mup", base=gpt)
    paramz.reparametrize_(wide, paramz.WeightNorm(), "hidden")
    found = [r.weight for r in (row.part for row in paramz.plan_of(wide).rows) if r is not None]
    assert len(set(found)) == 8 and not any("head" in name for name in found)


def test_where_says_what_is_wrong():
    with pytest.raises(ValueError, match="'hidden' is a role, .* call paramz.parametrize_ first"):
        paramz.reparametrize_(net(), paramz.WeightNorm(), "hidden")
    with pytest.raises(ValueError, match="pattern 'nothing'; the weights are 0.weight"):
        paramz.reparametrize_(net(), paramz.WeightNorm(), "nothing")
    with pytest.raises(ValueError, match="does match 0.bias, .* no weights"):
        paramz.reparametrize_(net(), paramz.WeightNorm(), "0[.]bias")
    with pytest.raises(ValueError, match="type Conv2d"):
        paramz.reparametrize_(net(), paramz.WeightNorm(), nn.Conv2d)
    model = net()
    paramz.reparametrize_(model, paramz.WeightNorm())
    with pytest.raises(ValueError, match="parts of a weight that is reparametrized already"):
        paramz.reparametrize_(model, paramz.Compander(), "2[.]weight")
    with pytest.raises(ValueError, match="nothing in this Sequential is reparametrized"):
        paramz.unreparametrize_(net())


def test_compander_says_what_is_wrong():
    with pytest.raises(ValueError, match="both must be positive"):
        paramz.Compander(a=-1.0)
    layer = nn.Linear(100, 100)
    with torch.no_grad():
        layer.weight.normal_()
        layer.weight[0, 0] = 30.0
    with pytest.raises(ValueError, match=r"weight: .*\(100, 100\) is .* give an a above"):
        paramz.reparametrize_(layer, paramz.Compander())
    nn.init.zeros_(layer.weight)
    with pytest.raises(ValueError, match="of zeros has no scale"):
        paramz.reparametrize_(layer, paramz.Compander())
    assert list(layer.state_dict()) == ["weight", "bias"]  # untouched


def test_tied_weights_share_their_parts():
    model = tied_gpt(16)
    with pytest.raises(ValueError, match="tied to head.weight|tied to tokens.weight"):
        paramz.reparametrize_(model, paramz.WeightNorm(), "head")
    paramz.parametrize_(model, "mup", base=tied_gpt)
    paramz.reparametrize_(model, paramz.WeightNorm(), ["head", "tokens"])
    assert model.head.weight_v is model.tokens.weight_v
    row = next(r for r in paramz.plan_of(model).rows if r.name == "tokens.weight_v")
    assert row.aliases == ("head.weight_v",)
    assert paramz.plan_of(model).param_groups(model, "adamw", lr=1.0)
    paramz.unreparametrize_(model)
    assert model.head.weight is model.tokens.weight


def test_attention_s_own_weights():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    x = torch.randn(2, 5, 8)
    before = layer(x)
    paramz.reparametrize_(layer, paramz.WeightNorm())
    assert hasattr(layer.self_attn, "in_proj_weight_v") and hasattr(
        layer.self_attn.out_proj, "weight_v"
    )
    torch.testing.assert_close(layer(x), before)
    layer(x).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    torch.testing.assert_close(layer.eval()(x), before)


@pytest.mark.parametrize("recipe", [paramz.WeightNorm(), paramz.Compander(), Orthogonal()], ids=str)
def test_a_model_planned_on_meta(recipe: Recipe):
    with torch.device("meta"):
        model = mlp(32)
    plan = paramz.parametrize_(model, "mup", base=mlp)
    paramz.reparametrize_(model, recipe)
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    paramz.init_(model)
    assert bool(torch.isfinite(model(X)).all())
    wanted = plan.init_std(plan.rows[2])
    assert abs(float(model[2].weight.std()) / wanted - 1) < 0.1
    paramz.unreparametrize_(model)
    assert list(model.state_dict()) == list(mlp().state_dict())
