"""paramz.compat.mup gives what mup gives: shapes, files, initial values, groups, names."""

import copy
import importlib
import inspect
import itertools

import pytest
import torch
from cases import Attention, build64, convnet, gpt, mlp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import paramz
from paramz.compat import mup as ours

mup = pytest.importorskip("mup", reason="pip install --no-deps mup==1.0.0")

BUILDS = {"mlp": mlp, "convnet": convnet, "gpt": gpt}
LAWS = {
    "uniform_": {"a": -0.1, "b": 0.1},
    "normal_": {"std": 0.1},
    "trunc_normal_": {"std": 0.1, "a": -0.2, "b": 0.2},
    "xavier_uniform_": {"gain": 0.7},
    "xavier_normal_": {},
    "kaiming_uniform_": {"a": 1, "mode": "fan_in"},
    "kaiming_normal_": {"mode": "fan_out", "nonlinearity": "relu"},
}


def made(package, build, width, base, delta=None, seed=0):
    """A model of one of the packages, with its base shapes set."""
    model = build64(build, width, seed, readout=package.MuReadout)
    small = build64(build, base, readout=package.MuReadout)
    more = build64(build, delta or base + 2, readout=package.MuReadout)
    return package.set_base_shapes(model, small, delta=more)


def net(width, package=ours):
    return nn.Sequential(
        nn.Linear(6, width), nn.Tanh(), nn.Linear(width, width), package.MuReadout(width, 3)
    )


def sizes(infshapes):
    return {name: shape.serialize() for name, shape in infshapes.items()}


def per_tensor(optimizer, params):
    """Learning rate and decay of each tensor."""
    found = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    return [found[id(p)][option] for p in params for option in ("lr", "weight_decay")]


def groups(optimizer):
    names = ("lr", "weight_decay", "eps")
    return [(*(g.get(n) for n in names), len(g["params"])) for g in optimizer.param_groups]


# --- shapes and files


@pytest.mark.parametrize("name", BUILDS)
def test_shapes_and_fresh_values_are_mups(name):
    for width, base in ((8, 8), (24, 8), (8, 24)):
        theirs = made(mup, BUILDS[name], width, base)
        mine = made(ours, BUILDS[name], width, base)
        assert sizes(ours.get_infshapes(mine)) == sizes(mup.get_infshapes(theirs))
        for (key, p), q in zip(theirs.named_parameters(), mine.parameters(), strict=True):
            assert torch.equal(p, q), key


def test_files_go_both_ways(tmp_path):
    for package, other in ((mup, ours), (ours, mup)):
        file = str(tmp_path / f"{package.__name__}.bsh")
        shapes = package.make_base_shapes(net(8, package), net(16, package), savefile=file)
        assert sizes(other.shape.load_base_shapes(file)) == sizes(shapes)
        model = other.set_base_shapes(net(32, other), file)
        assert [d.base_dim for d in other.get_infshapes(model)["2.weight"]] == [8, 8]
        again = str(tmp_path / "again.bsh")
        other.shape.save_base_shapes(model, again)
        assert sizes(package.shape.load_base_shapes(again)) == sizes(shapes)


def test_savefile_writes_what_make_base_shapes_does(tmp_path):
    one, two = tmp_path / "one.bsh", tmp_path / "two.bsh"
    ours.set_base_shapes(net(32), net(8), delta=net(9), savefile=one)
    ours.make_base_shapes(net(8), net(9), savefile=two)
    assert one.read_text() == two.read_text()


def test_base_shapes_of_a_wrapped_model_keep_names_that_mup_cuts():
    """mup strips the letters of 'module.' from both ends: 'module.model.weight' -> 'el.weight'."""
    wrapped = {"module.model.weight": (8, 4), "module.old.bias": (8,)}
    plain = {"model.weight": (32, 4), "old.bias": (32,)}
    assert list(ours.shape.zip_infshapes(wrapped, plain)) == ["model.weight", "old.bias"]
    with pytest.raises(AssertionError):
        mup.shape.zip_infshapes(wrapped, plain)


def test_a_model_may_name_its_own_shapes():
    """`get_shapes` of the model, as on mup's main branch."""
    model = net(8)
    model.get_shapes = lambda: {"weight": (1, 2)}
    assert ours.get_shapes(model) == {"weight": (1, 2)}


def test_infshape_reads_like_mups():
    for module in (mup.infshape, ours.infshape):
        shape = module.zip_infshape([64, 10, 3], [256, 10, 4])
        assert (shape.ninf(), shape.width_mult(), shape.main_idx) == (2, 4 / 3, 2)
        assert shape.base_shape() == [64, None, 3] and shape.shape() == [256, 10, 4]
        assert module.InfShape.deserialize(shape.serialize()) == shape
        assert str(shape[1]) == "FinDim(10)" and repr(shape[0]) == "InfDim(64, 256)"
        assert shape.fanin_fanout_mult_ratio() == 1 / 4
        kept = module.zip_infshape([64], [64], fin_if_same=False)
        assert kept.ninf() == 1
        assert copy.deepcopy(shape) == shape


# --- initial values


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", BUILDS)
def test_laws_draw_what_mups_draw(name, law):
    for width, base in ((8, 8), (32, 8), (24, 16)):
        models = [made(package, BUILDS[name], width, base) for package in (mup, ours)]
        for package, model in zip((mup, ours), models, strict=True):
            torch.manual_seed(1)
            for p in model.parameters():
                if p.dim() >= 2:
                    getattr(package.init, law)(p, **LAWS[law])
        for p, q in zip(*(m.parameters() for m in models), strict=True):
            assert torch.allclose(p, q, rtol=1e-12, atol=0)
            assert width != base or torch.equal(p, q)


def test_laws_with_a_mean():
    model = made(ours, mlp, 32, 8)
    ours.init.ones_(model[0].bias)
    ours.init.uniform_(model[0].weight)
    assert model[0].weight.min() >= 0 and torch.equal(model[0].bias, torch.ones(32).double())
    ours.init.eye_(model[0].weight)
    for law in (ours.init.ones_, ours.init.eye_, ours.init.uniform_):
        with pytest.raises(ValueError, match="2.weight .64, 32.: its fan_in and fan_out grow"):
            law(model[2].weight)


def test_an_empty_tensor_is_left_alone():
    with pytest.warns(UserWarning, match="zero-element") as warned:
        model = ours.set_base_shapes(nn.Linear(0, 8), nn.Linear(0, 4))
        before = len(warned)
        ours.init.kaiming_normal_(model.weight)
    assert len(warned) == before + 1


SIZE = st.integers(1, 40)


@settings(max_examples=30, deadline=None)
@given(base_in=SIZE, base_out=SIZE, fan_in=SIZE, fan_out=SIZE)
def test_any_widths_give_mups_numbers(base_in, base_out, fan_in, fan_out):
    """Initial values and groups of a hidden matrix with any two ratios."""
    found = []
    for package in (mup, ours):
        torch.manual_seed(0)
        model = nn.Linear(fan_in, fan_out).double()
        base = {"weight": (base_out, base_in), "bias": (base_out,)}
        package.set_base_shapes(model, base, delta={"weight": (98, 99), "bias": (98,)})
        package.init.kaiming_normal_(model.weight, a=1)
        tensors = list(model.parameters())
        sgd = package.MuSGD(tensors, lr=0.1, weight_decay=0.01)
        adam = package.MuAdamW(tensors, lr=0.1, weight_decay=0.01)
        values = [*per_tensor(sgd, tensors), *per_tensor(adam, tensors)]
        drawn = [p.detach().flatten() for p in tensors]
        found.append(torch.cat([*drawn, torch.tensor(values, dtype=torch.float64)]))
    assert torch.allclose(*found, rtol=1e-12, atol=0)


# --- groups


@pytest.mark.parametrize("maker", ["MuSGD", "MuAdam", "MuAdamW"])
def test_groups_are_mups_in_mups_order(maker):
    """So the state of an optimizer that mup made loads."""
    kept = {} if maker == "MuSGD" else {"as_mup": True}
    states = []
    for package, options in ((mup, {}), (ours, kept)):
        model = made(package, gpt, 32, 8)
        params = list(model.parameters())
        own = [{"params": params[:3], "lr": 0.5}, {"params": params[3:], "weight_decay": 0.1}]
        optimizer = getattr(package, maker)(own, lr=0.01, weight_decay=0.02, **options)
        model(torch.arange(6)[None]).sum().backward()
        optimizer.step()
        states.append((optimizer, optimizer.state_dict()))
    (_, theirs), (optimizer, mine) = states
    for one, two in zip(theirs["param_groups"], mine["param_groups"], strict=True):
        assert one == two
    optimizer.load_state_dict(theirs)


def test_decoupled_wd_leaves_decay_alone():
    model = made(ours, mlp, 32, 8)
    for maker in (ours.MuAdam, ours.MuAdamW, ours.MuSGD):
        made_ = maker(model.parameters(), lr=0.1, weight_decay=0.01, decoupled_wd=True)
        assert {group["weight_decay"] for group in made_.param_groups} == {0.01}


@pytest.mark.parametrize(
    "impl", ["Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "RMSprop"]
)
def test_any_adam_goes_through_impl(impl):
    model = made(ours, mlp, 32, 8)
    kind = getattr(torch.optim, impl)
    optimizer = ours.MuAdam(model.parameters(), impl=kind, lr=0.1, as_mup=False)
    default = inspect.signature(getattr(torch.optim, impl)).parameters["eps"].default
    assert [(g["lr"], g["eps"]) for g in optimizer.param_groups] == [
        (0.025, default / 4), (0.1, default / 4), (0.1, default)
    ]  # fmt: skip


def test_own_optimizers_go_through_impl():
    class Mine(torch.optim.SGD):
        pass

    model = made(ours, mlp, 32, 8)
    adam_like = ours.MuAdam(model.parameters(), impl=Mine, lr=0.1, weight_decay=0.01)
    assert adam_like.param_groups[0]["lr"] == 0.025
    assert "eps" not in adam_like.param_groups[0]
    assert ours.MuSGD(model.parameters(), impl=Mine, lr=0.1).param_groups[1]["lr"] == 0.4


def test_named_parameters_and_tensor_rates():
    """Both of torch's; mup takes neither."""
    model = made(ours, mlp, 32, 8)
    rate = torch.tensor(0.1)
    optimizer = ours.MuAdam(model.named_parameters(), lr=rate)
    assert torch.equal(optimizer.param_groups[0]["lr"], rate / 4) and rate == 0.1
    assert "0.weight" in optimizer.param_groups[1]["param_names"]
    theirs = made(mup, mlp, 32, 8)
    with pytest.raises(AttributeError):
        mup.MuAdam(theirs.named_parameters(), lr=0.1)
    mup.MuAdam(theirs.parameters(), lr=rate)
    assert rate != 0.1  # divided in place


def test_users_groups_are_not_written_to():
    model = made(ours, mlp, 32, 8)
    own = {"params": list(model.parameters())}
    ours.MuSGD([own], lr=0.1)
    assert list(own) == ["params"]
    theirs = {"params": list(made(mup, mlp, 32, 8).parameters())}
    mup.MuSGD([theirs], lr=0.1)
    assert "lr" in theirs


# --- the plan


def test_the_plan_is_on_the_model():
    model = ours.set_base_shapes(net(32), net(8))
    plan = paramz.plan_of(model)
    assert [row.role for row in plan.rows] == [
        "input", "vector", "hidden", "vector", "output", "scalar"
    ]  # fmt: skip
    assert "MuReadout" in str(plan.summary())
    same = plan.param_groups(model, "adam", lr=0.1)
    wanted = ours.MuAdam(model.parameters(), lr=0.1, as_mup=False).param_groups
    assert sorted((g["lr"], g["eps"]) for g in same) == sorted((g["lr"], g["eps"]) for g in wanted)
    lion = plan.param_groups(model, "lion", lr=0.1)  # any optimizer that paramz knows
    assert {g["lr"] for g in lion} == {0.1, 0.025}


def test_no_base_is_sp_and_says_so():
    model = ours.set_base_shapes(net(32), None)
    assert paramz.plan_of(model).notes[0].startswith("no axis differs from the base")
    assert {g["lr"] for g in ours.MuSGD(model.parameters(), lr=0.1).param_groups} == {0.1}


def test_setting_again():
    model = ours.set_base_shapes(net(32), net(8))
    with pytest.raises(RuntimeError, match="rescale_params=False"):
        ours.set_base_shapes(model, net(8))
    ours.set_base_shapes(model, net(16), rescale_params=False)
    assert model[3].width_mult() == 2
    assert ours.MuAdam(model.parameters(), lr=0.1).param_groups[0]["lr"] == 0.05


def test_torchs_attention_and_readout_options():
    class Net(nn.Module):
        def __init__(self, width, package):
            super().__init__()
            self.attn = Attention(width, 2)
            self.mha = nn.MultiheadAttention(width, 2, batch_first=True)
            self.head = package.MuReadout(width, 3, readout_zero_init=True, output_mult=2.0)

        def forward(self, x):
            return self.head(self.mha(x, x, x)[0] + self.attn(x))

    outs = []
    for package in (mup, ours):
        torch.manual_seed(0)
        model = Net(24, package).double()
        package.set_base_shapes(model, Net(8, package))
        assert not model.head.weight.any() and not model.head.bias.any()
        package.init.normal_(model.head.weight)
        outs.append(model(torch.ones(2, 3, 24).double()))
    assert torch.allclose(*outs, rtol=0, atol=1e-12)


# --- names


ABSENT = {
    "mup.coord_check.example_plot_coord_check": "needs mup.test, which the package does not ship",
}


def public(module):
    """What a module of mup defines itself: classes, functions and constants."""
    for name, value in vars(module).items():
        own = getattr(value, "__module__", module.__name__) == module.__name__
        if not name.startswith("_") and own and not inspect.ismodule(value):
            yield name


@pytest.mark.parametrize("part", ["shape", "infshape", "layer", "init", "optim", "coord_check"])
def test_every_public_name_exists_with_the_same_arguments(part):
    theirs = importlib.import_module(f"mup.{part}")
    mine = importlib.import_module(f"paramz.compat.mup.{part}")
    names = list(public(theirs))
    assert names
    for name in names:
        if f"mup.{part}.{name}" in ABSENT:
            assert not hasattr(mine, name)
            continue
        assert hasattr(mine, name), name
        if part != "coord_check":  # whose names `from mup import` does not give
            assert getattr(ours, name) is getattr(mine, name)
        if inspect.isfunction(getattr(theirs, name)):
            wanted = inspect.signature(getattr(theirs, name)).parameters
            have = inspect.signature(getattr(mine, name)).parameters
            for key, one in wanted.items():
                if one.kind is not one.VAR_KEYWORD:
                    assert have[key].default == one.default or not isinstance(
                        one.default, bool | int | float | str | None
                    ), (name, key)
            positional = [k for k, p in wanted.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
            assert list(have)[: len(positional)] == positional, name
        if inspect.isclass(getattr(theirs, name)):
            for method in vars(getattr(theirs, name)):
                assert hasattr(getattr(mine, name), method), (name, method)


# --- any chain of layers

AXIS = st.tuples(st.integers(1, 9), st.integers(1, 9), st.booleans())  # base, target, grows


def chain(package, sizes):
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes[:-1])]
    return nn.Sequential(*layers, package.MuReadout(*sizes[-2:], output_mult=0.7)).double()


@settings(max_examples=40, deadline=None)
@given(axes=st.lists(AXIS, min_size=3, max_size=5), maker=st.sampled_from(["MuSGD", "MuAdamW"]))
def test_any_chain_trains_like_mups(axes, maker):
    """Axes that grow, shrink or stay, in any order: readouts in the middle, square or not."""
    base = [b for b, _, _ in axes]
    target = [t if grows else b for b, t, grows in axes]
    more = [b + 10 if grows else b for b, _, grows in axes]
    options = {"lr": 0.05, "weight_decay": 0.1}
    outputs, values = [], []
    for package in (mup, ours):
        torch.manual_seed(0)
        model = chain(package, target)
        delta = chain(package, more)
        package.set_base_shapes(model, chain(package, base), delta=delta, do_assert=False)
        as_mup = {"as_mup": True} if package is ours and maker == "MuAdamW" else {}
        optimizer = getattr(package, maker)(model.parameters(), **options, **as_mup)
        values.append(per_tensor(optimizer, list(model.parameters())))
        x = torch.linspace(-1, 1, 3 * target[0], dtype=torch.float64).reshape(3, -1)
        for _ in range(3):
            optimizer.zero_grad()
            out = model(x)
            out.square().mean().backward()
            optimizer.step()
        outputs.append(out)
    assert values[1] == pytest.approx(values[0], rel=1e-12)
    assert torch.allclose(*outputs, rtol=1e-9, atol=1e-12)
