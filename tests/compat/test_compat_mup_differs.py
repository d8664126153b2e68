"""Where mup is wrong, paramz.compat.mup is right; and what its errors say."""

import copy
import io
import math
import pickle
import subprocess
import sys
from functools import partial

import pytest
import torch
from cases import VOCABULARY, mlp
from gloo import join
from test_compat_mup import groups, made, net
from torch import nn

import paramz
from paramz.compat import mup as ours

mup = pytest.importorskip("mup", reason="pip install --no-deps mup==1.0.0")


# paramz's own epsilon and L2 decay.
FOLLOWS = {"as_mup": False}


def test_decay_of_plain_adam_follows_the_gradient_if_asked():
    """mup scales it like AdamW's, which makes it lr * wd constant before the normalisation."""
    for package, options, expected in ((mup, {}, 0.04), (ours, {}, 0.04), (ours, FOLLOWS, 0.01)):
        model = made(package, mlp, 32, 8)
        found = package.MuAdam(model.parameters(), lr=0.1, weight_decay=0.01, **options)
        assert math.isclose(found.param_groups[0]["weight_decay"], expected)
    decoupled = ours.MuAdam(
        model.parameters(), lr=0.1, weight_decay=0.01, decoupled_weight_decay=True
    )
    assert math.isclose(decoupled.param_groups[0]["weight_decay"], 0.04)


def test_epsilon_follows_the_gradient_if_asked():
    """mup has one for all (TP-V, appendix B.3 asks for it to scale)."""
    scaled = {1e-8 / 4, 1e-8}
    for package, options, expected in (
        (mup, {}, {1e-8}),
        (ours, {}, {1e-8}),
        (ours, FOLLOWS, scaled),
    ):
        model = made(package, mlp, 32, 8)
        optimizer = package.MuAdam(model.parameters(), lr=0.1, eps=1e-8, **options)
        assert {group["eps"] for group in optimizer.param_groups} == expected


class Tied(nn.Module):
    def __init__(self, width, package, **options):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.head = package.MuSharedReadout(self.tokens.weight, **options)

    def forward(self, ids):
        return self.head(self.tokens(ids))


def test_a_tied_readout_does_not_make_the_embedding_grow():
    stds = {}
    for package in (mup, ours):
        for width in (16, 64, 256):
            torch.manual_seed(0)
            model = Tied(width, package, bias=False)
            package.set_base_shapes(model, Tied(8, package, bias=False))
            stds[package.__name__, width] = model.tokens.weight.std().item()
            assert math.isclose(model.head.width_mult(), width / 8)
    assert all(abs(stds["paramz.compat.mup", w] - 1) < 0.1 for w in (16, 64, 256))
    assert stds["mup", 256] > 5


def test_a_tied_readout_is_mups_but_for_the_growth():
    """Same draws, same logits, same steps, once the growth is taken out of mup's weight."""
    outputs = []
    ids = torch.arange(6)
    for package in (mup, ours):
        torch.manual_seed(0)
        model = Tied(32, package, bias=False).double()
        package.set_base_shapes(model, Tied(8, package, bias=False))
        if package is mup:
            model.tokens.weight.data /= 2
        optimizer = package.MuSGD(model.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            out = model(ids)
            nn.functional.cross_entropy(out, ids).backward()
            optimizer.step()
        outputs.append(out)
    assert torch.allclose(*outputs, rtol=0, atol=1e-12)


def test_a_tied_readout_may_have_a_bias():
    """mup gives it width entries, so that it only runs where width is the vocabulary."""
    ids = torch.arange(4)
    mine = ours.set_base_shapes(Tied(32, ours), Tied(8, ours))
    assert mine(ids).shape == (4, VOCABULARY)
    theirs = mup.set_base_shapes(Tied(32, mup), Tied(8, mup))
    with pytest.raises(RuntimeError):
        theirs(ids)


class Experts(nn.Module):
    """Stacked matrices, as (expert, fan_out, fan_in)."""

    def __init__(self, width):
        super().__init__()
        self.stack = nn.Parameter(torch.randn(5, width, width))


def test_stacked_experts_have_the_rules_of_their_matrices():
    """mup reads fan_out from axis 0, the number of experts: SGD's rate falls with width."""
    for package, expected in ((mup, 0.025), (ours, 0.1)):
        model = package.set_base_shapes(Experts(32), Experts(8))
        assert package.MuSGD(model.parameters(), lr=0.1).param_groups[0]["lr"] == expected
    mine = ours.set_base_shapes(Experts(32), Experts(8))
    assert ours.MuAdam(mine.parameters(), lr=0.1).param_groups[0]["lr"] == 0.025


class Mixture(nn.Module):
    """A sum of experts between an input layer and a readout."""

    def __init__(self, width, package):
        super().__init__()
        self.inner = nn.Linear(6, width, bias=False)
        self.stack = nn.Parameter(torch.randn(5, width, width) / width**0.5)
        self.head = package.MuReadout(width, 3, bias=False)

    def forward(self, x):
        self.seen = torch.relu(self.inner(x))
        return self.head(torch.einsum("bi,eoi->bo", self.seen, self.stack))


def test_the_steps_of_stacked_experts_keep_their_size():
    """What one step changes in their output, over widths: constant, and with mup 1/width."""
    slopes, x = {}, torch.randn(16, 6)
    for package in (mup, ours):
        changes = []
        for width in (32, 64, 128, 256):
            torch.manual_seed(0)
            model = package.set_base_shapes(Mixture(width, package), Mixture(16, package))
            before = model.stack.detach().clone()
            optimizer = package.MuSGD(model.parameters(), lr=0.1)
            nn.functional.cross_entropy(model(x), torch.arange(16) % 3).backward()
            optimizer.step()
            step = (model.stack - before).detach()
            change = torch.einsum("bi,eoi->bo", model.seen.detach(), step)
            changes.append(change.square().mean().sqrt().log2().item())
        slopes[package] = (changes[-1] - changes[0]) / 3
    assert abs(slopes[ours]) < 0.2
    assert slopes[mup] < -0.8


def test_roles_say_what_no_module_does():
    class Transposed(nn.Module):
        def __init__(self, fan_in, fan_out):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(fan_in, fan_out))

    rates = {}
    for roles in (None, {"^w$": paramz.Axes(fan_in=(0,), fan_out=(1,))}):
        model = ours.set_base_shapes(Transposed(32, 16), Transposed(8, 8), roles=roles)
        rates[roles is None] = ours.MuAdam(model.parameters(), lr=0.1).param_groups[0]["lr"]
    assert rates == {True: 0.05, False: 0.025}


def test_conv1d_of_transformers_is_stored_the_other_way():
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils")
    made_ = {}
    for package in (mup, ours):
        model = package.set_base_shapes(
            pytorch_utils.Conv1D(16, 32), pytorch_utils.Conv1D(8, 8)
        )  # fan_out 16, fan_in 32
        made_[package.__name__] = package.MuAdam(model.parameters(), lr=0.1).param_groups[0]["lr"]
    assert made_ == {"mup": 0.05, "paramz.compat.mup": 0.025}


def copies(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    yield "deepcopy", copy.deepcopy(model)
    yield "pickle", pickle.loads(pickle.dumps(model))
    yield "torch.save", torch.load(file, weights_only=False)
    yield "deepcopy of a copy", copy.deepcopy(copy.deepcopy(model))


def test_shapes_survive_what_drops_mups():
    model = ours.set_base_shapes(net(32), net(8))
    expected, x = groups(ours.MuAdam(model.parameters(), lr=0.1)), torch.randn(4, 6)
    for how, copied in copies(model):
        assert torch.equal(copied(x), model(x)), how
        assert groups(ours.MuAdam(copied.parameters(), lr=0.1)) == expected, how
        assert ours.get_infshapes(copied) == ours.get_infshapes(model), how
        ours.init.normal_(copied[2].weight)
    dropped = copy.deepcopy(mup.set_base_shapes(net(32, mup), net(8, mup)))
    with pytest.raises(AssertionError, match="infshape"):
        mup.MuAdam(dropped.parameters(), lr=0.1)


def test_a_copy_outlives_its_model_and_its_process(tmp_path):
    model = ours.set_base_shapes(net(32), net(8))
    copied = copy.deepcopy(model)
    torch.save(model, tmp_path / "model.pt")
    del model
    assert groups(ours.MuAdam(copied.parameters(), lr=0.1))[0][0] == 0.025
    code = (
        "import sys, torch, paramz.compat.mup as m\n"
        "model = torch.load(sys.argv[1], weights_only=False)\n"
        "print(m.MuAdam(model.parameters(), lr=0.1).param_groups[0]['lr'])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.pt")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "0.025"


def test_new_tensors_under_the_old_names_are_found():
    with torch.device("meta"):
        model = net(32)
    ours.set_base_shapes(model, net(8))
    model.to_empty(device="cpu")
    ours.init.normal_(model[2].weight)
    assert 0.4 < model[2].weight.std() < 0.6
    model.load_state_dict(net(32).state_dict(), assign=True)
    assert groups(ours.MuAdam(model.parameters(), lr=0.1))[0][0] == 0.025


@pytest.fixture
def group(tmp_path):
    """A process group of one."""
    dist = pytest.importorskip("torch.distributed")
    if not dist.is_available():
        pytest.skip("torch without torch.distributed")
    join(0, 1, str(tmp_path))
    yield
    dist.destroy_process_group()


def test_sharded_and_wrapped_models(group):
    """mup's shapes are lost under FSDP (its issue 59), and its DataParallel replicas assert."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    x, expected = torch.randn(4, 6), None
    wrap = {
        "plain": lambda m: m,
        "DDP": nn.parallel.DistributedDataParallel,
        "DataParallel": nn.DataParallel,
        "compile": lambda m: torch.compile(m, backend="eager"),
        "FSDP2": lambda m: fully_shard(m, mesh=init_device_mesh("cpu", (1,))),
    }
    for how, wrapped in wrap.items():
        torch.manual_seed(0)
        model = wrapped(ours.set_base_shapes(net(32), net(8)))
        found = groups(ours.MuAdam(model.parameters(), lr=0.1)), model(x).detach()
        expected = expected or found
        assert found[0] == expected[0], how
        assert torch.allclose(found[1], expected[1]), how
    theirs = mup.set_base_shapes(net(32, mup), net(8, mup))
    wrap["FSDP2"](theirs)
    with pytest.raises(AssertionError, match="infshape"):
        mup.MuAdam(theirs.parameters(), lr=0.1)
    wrapped = nn.DataParallel(net(32))  # wrapped first: base shapes without its prefix
    ours.set_base_shapes(wrapped, net(8))
    assert groups(ours.MuAdam(wrapped.parameters(), lr=0.1)) == expected[0]


def test_tensors_made_afterwards_are_named_in_the_error():
    model = ours.set_base_shapes(net(32), net(8))
    nn.utils.parametrizations.weight_norm(model[2])
    with pytest.raises(ValueError, match=r"shape \(32, 1\) .*weight_norm.*on the final model"):
        ours.MuAdam(model.parameters(), lr=0.1)


def test_compile_and_export():
    model = ours.set_base_shapes(net(32), net(8))
    x = torch.randn(4, 6)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), model(x))
    assert torch.equal(torch.export.export(model, (x,)).module()(x), model(x))


def test_nothing_hangs_on_parameters_and_nothing_keeps_models_alive():
    from paramz.compat.mup import tensors

    model = ours.set_base_shapes(net(32), net(8))
    assert all(not vars(p) for p in model.parameters())
    alive = len(tensors._MODELS)
    del model
    assert len(tensors._MODELS) == alive - 1


def test_a_shape_that_the_user_hangs_on_a_tensor_counts():
    """mup's users do, to say that a tensor does not scale, or which axis is fan_in."""
    model = ours.set_base_shapes(net(32), net(8))
    plain = ours.infshape_of(model[0].weight)
    model[2].weight.infshape = ours.InfShape([ours.InfDim(None, d) for d in (32, 32)])
    assert {g["lr"] for g in ours.MuAdam(model.parameters(), lr=0.1).param_groups} == {0.1}
    assert plain.ninf() == 1
    theirs = mup.set_base_shapes(net(32, mup), net(8, mup))
    assert ours.MuAdam(theirs.parameters(), lr=0.1).param_groups[0]["lr"] == 0.025


# --- errors


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="shape .5, 4.*Call set_base_shapes"):
        ours.MuAdam(nn.Linear(4, 5).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="Call set_base_shapes"):
        ours.MuReadout(4, 5)(torch.zeros(4))
    with pytest.raises(ValueError, match="lr is missing"):
        ours.MuSGD(ours.set_base_shapes(net(8), None).parameters())
    with pytest.raises(ValueError, match="got no parameters"):
        ours.MuSGD([], lr=0.1)
    model = ours.set_base_shapes(net(32), net(8))

    class Lamb(torch.optim.SGD):
        pass

    # An optimizer of whose rules it is known that they are neither, and one behind a partial.
    with pytest.raises(ValueError, match="MuAdam.impl=Adadelta.: there is no rule for Adadelta: "):
        ours.MuAdam(model.parameters(), impl=torch.optim.Adadelta, lr=0.1)
    with pytest.raises(ValueError, match="MuSGD.impl=Lamb.: there is no rule.*param_groups"):
        ours.MuSGD(model.parameters(), impl=Lamb, lr=0.1)
    with pytest.raises(ValueError, match="SGD has other rules; use MuSGD"):
        ours.MuAdam(model.parameters(), impl=partial(torch.optim.SGD, momentum=0.9), lr=0.1)
    with pytest.raises(ValueError, match="MuAdam.impl=SGD.: SGD has other rules; use MuSGD"):
        ours.MuAdam(model.parameters(), impl=torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="MuSGD.impl=RMSprop.*use MuAdam"):
        ours.MuSGD(model.parameters(), impl=torch.optim.RMSprop, lr=0.1)
    with pytest.raises(ValueError, match="Muon has other rules; .*split_groups"):
        ours.MuAdam(model.parameters(), impl=torch.optim.Muon, lr=0.1)
    with pytest.raises(ValueError, match="(?s)only in the target: 1.weight, 1.bias.*completep"):
        deep = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8))
        ours.set_base_shapes(deep, nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(ValueError, match="weight: the base shape .* has 1 axes and .4, 2. has 2"):
        ours.set_base_shapes(nn.Linear(2, 4, bias=False), {"weight": (4,)})
    with pytest.raises(ValueError, match="shapes are a model, a dict or the name of a .* not int"):
        ours.set_base_shapes(net(8), 3)
    broken = tmp_path / "broken.bsh"
    broken.write_text("- 1\n- 2\n")
    with pytest.raises(ValueError, match="broken.bsh holds no base shapes"):
        ours.set_base_shapes(net(8), str(broken))
    broken.write_text("weight: [4\n")
    with pytest.raises(ValueError, match="broken.bsh holds no base shapes: .*not valid YAML"):
        ours.set_base_shapes(net(8), str(broken))
    with pytest.raises(ValueError, match="holds no base shapes: .*a folder, not a file"):
        ours.set_base_shapes(net(8), str(tmp_path))
    with pytest.raises(FileNotFoundError, match="none.bsh: no such file; make_base_shapes"):
        ours.set_base_shapes(net(8), str(tmp_path / "none.bsh"))
    with pytest.raises(ValueError, match="a dict of InfShape, not list"):
        ours.shape.save_base_shapes([], broken)
    with pytest.raises(ValueError, match="has no size: call set_base_shapes"):
        ours.InfDim(8, None).width_mult()
    with pytest.raises(ValueError, match="matches no parameter; there are 0.weight"):
        ours.set_base_shapes(net(8), net(4), roles={"zzz": paramz.Axes()})


def test_a_plain_readout_is_refused():
    plain = lambda w: nn.Sequential(nn.Linear(4, w), nn.Linear(w, 2))  # noqa: E731
    with pytest.raises(ValueError, match="1 .2, 32. reads out .* do_assert=False"):
        ours.set_base_shapes(plain(32), plain(8))
    with pytest.raises(AssertionError):
        mup.set_base_shapes(plain(32), plain(8))
    with pytest.raises(ValueError, match="this MuReadout is none of paramz.compat.mup"):
        ours.set_base_shapes(net(32, mup), net(8, mup))
    rates = []
    for package in (mup, ours):
        model = package.set_base_shapes(plain(32), plain(8), do_assert=False)
        rates.append([g[0] for g in groups(package.MuSGD(model.parameters(), lr=0.1))])
    assert rates[0] == rates[1]


def test_three_growing_axes_need_a_word():
    class Heads(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(width, width, width))

    with pytest.raises(ValueError, match="w .8, 8, 8.: axes .0, 1, 2. grow.*roles="):
        ours.set_base_shapes(Heads(8), Heads(4))
    axes = paramz.Axes(fan_in=(2,), fan_out=(0, 1))
    model = ours.set_base_shapes(Heads(8), Heads(4), roles={"w": axes})
    assert ours.MuAdam(model.parameters(), lr=0.1).param_groups[0]["lr"] == 0.05
