"""unit_scaling's programs with the import exchanged: equal trajectories, tables and refusals."""

import copy
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd.gradcheck import GradcheckError
from torch.nn import functional as F

import paramz.compat.unit_scaling as uu
from paramz.nn import fold_scales_, fp8_, unit_plan

peer = pytest.importorskip("unit_scaling")

WIDTH, VOCABULARY, LAYERS, HEADS = 32, 29, 3, 4

# What a user of unit_scaling writes.
DECODER = """
import unit_scaling as uu

model = uu.TransformerDecoder(hidden_size=32, vocab_size=29, layers=3, heads=4)


def loss(ids):
    logits = model(ids)[:, :-1]
    return uu.functional.cross_entropy(logits.flatten(end_dim=1), ids[:, 1:].flatten())
"""
CUSTOM = """
import torch
from torch import nn

import unit_scaling as uu
import unit_scaling.functional as U
from unit_scaling.core.functional import transformer_residual_scaling_rule


class Block(nn.Module):
    def __init__(self, width, tau):
        super().__init__()
        self.tau = tau
        self.norm = uu.LayerNorm(width, elementwise_affine=True)
        self.up = uu.Linear(width, 2 * width, bias=True)
        self.act = uu.GELU(mult=0.5)
        self.down = uu.Linear(2 * width, width)
        self.gain = uu.Parameter(torch.ones(width), mup_type="norm")

    def forward(self, x):
        x, skip = U.residual_split(x, self.tau)
        x = self.down(self.act(self.up(self.norm(x)))) * self.gain
        return U.residual_add(x, skip, self.tau)


class Model(nn.Module):
    def __init__(self, width=32, vocabulary=29, layers=3):
        super().__init__()
        rule = transformer_residual_scaling_rule(0.5, 2.0)
        self.embedding = uu.Embedding(vocabulary, width)
        self.conv = uu.Conv1d(width, width, 3, padding=1, bias=True)
        self.layers = uu.DepthModuleList(
            [Block(width, rule(i, layers)) for i in range(layers)]
        )
        self.attention = uu.MHSA(width, heads=4, is_causal=True, mult=2.0)
        self.norm = uu.RMSNorm(width, elementwise_affine=True)
        self.readout = uu.LinearReadout(width, vocabulary, bias=True)
        self.criterion = uu.CrossEntropyLoss(mult=1.5)

    def loss(self, ids):
        x = self.conv(self.embedding(ids).transpose(1, 2)).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        x = U.residual_apply(self.attention, x, tau=0.3)
        logits = self.readout(self.norm(x))[:, :-1]
        return self.criterion(logits.flatten(end_dim=1), ids[:, 1:].flatten())


model = Model()
loss = model.loss
"""


def run(source, package):
    """The model of a program that imports unit_scaling, or ours in its place."""
    source = re.sub(r"(import|from) unit_scaling", rf"\1 {package}", source)
    torch.manual_seed(0)
    program = {"__name__": "program"}
    exec(compile(source, "program", "exec"), program)
    return program["model"].double(), sys.modules[package].optim, program["loss"]


def train(compute_loss, optimizer, steps=20):
    draw = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        ids = torch.randint(VOCABULARY, (4, 12), generator=draw)
        loss = compute_loss(ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture
def exact_peer(monkeypatch):
    """The package takes the RMS norm's mean in float32 whatever the dtype; here, in that of x."""
    from unit_scaling.core import functional as core

    def rms(x, dims=None, keepdim=False, eps=0.0):
        return (x.pow(2).mean(dims, keepdim=keepdim) + eps).sqrt()

    monkeypatch.setattr(core, "rms", rms)
    monkeypatch.setattr(peer.functional, "rms", rms)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        # At 0.05 the second program diverges, and rounding with it (2e-10 after 20 steps).
        ("SGD", {"lr": 0.005, "momentum": 0.9, "weight_decay": 1e-3}),
        ("Adam", {"lr": 0.25, "weight_decay": 1e-3}),
        ("AdamW", {"lr": 0.25, "weight_decay": 2**-10, "betas": (0.9, 0.95)}),
    ],
)
@pytest.mark.parametrize("source", [DECODER, CUSTOM], ids=["decoder", "custom"])
def test_programs_run_unchanged_with_equal_trajectories(source, optimizer, options, exact_peer):
    found = {}
    for package in ("unit_scaling", "paramz.compat.unit_scaling"):
        model, optim, loss = run(source, package)
        losses = train(loss, getattr(optim, optimizer)(model.parameters(), **options))
        found[package] = losses, dict(model.named_parameters())
    (theirs, expected), (ours, parameters) = found.values()
    assert parameters.keys() == expected.keys()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0.0)
    start = dict(run(source, "unit_scaling")[0].named_parameters())
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-10, atol=1e-12, msg=name)
        assert (parameter - start[name]).abs().max() > 1e-4, name


def test_the_package_as_it_is_differs_by_the_rounding_of_its_float32_norm():
    """Its decoder's own loss is in float32, ours too."""
    losses = []
    for package in ("unit_scaling", "paramz.compat.unit_scaling"):
        model, optim, _ = run(DECODER, package)
        losses.append(train(model.loss, optim.AdamW(model.parameters(), lr=0.25)))
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0.0)


def every_type(package):
    """One parameter of each type, shape and depth."""
    torch.manual_seed(0)
    found = {}
    for kind in ("weight", "bias", "norm", "output"):
        for shape in ((6,), (5, 6), (4, 5, 6)):
            for depth in (None, 1, 7):
                parameter = package.Parameter(torch.zeros(shape), kind, depth)
                found[kind, shape, depth] = parameter
    return found


@pytest.mark.parametrize("rule", ["adam", "sgd", "sgd, constrained readout"])
@pytest.mark.parametrize("independent", [True, False])
def test_tables_of_learning_rate_and_decay(rule, independent):
    tables = []
    for package in (peer, uu):
        function = {
            "adam": package.optim.lr_scale_func_adam,
            "sgd": package.optim.lr_scale_func_sgd(None),
            "sgd, constrained readout": package.optim.lr_scale_func_sgd("to_output_scale"),
        }[rule]
        parameters = every_type(package)
        groups = package.optim.scaled_parameters(
            parameters.values(), function, 0.25, 0.125, independent
        )
        names = {id(p): name for name, p in parameters.items()}
        tables.append(
            {names[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
        )
    theirs, ours = tables
    assert len(ours) == 36
    for name, values in theirs.items():
        assert ours[name] == pytest.approx(values, rel=1e-12), name


def test_groups_of_equal_rules_are_one():
    theirs = peer.TransformerDecoder(WIDTH, VOCABULARY, 4, HEADS)
    model = uu.TransformerDecoder(WIDTH, VOCABULARY, 4, HEADS)
    assert len(peer.optim.AdamW(theirs.parameters(), lr=1.0).param_groups) == 22
    groups = uu.optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.5).param_groups
    assert [len(g["params"]) for g in groups] == [1, 16, 4, 1]
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_given_groups_stay_apart_and_keep_their_options():
    layers = [uu.Linear(4, 4) for _ in range(3)]
    given = [
        {"params": layers[0].parameters(), "betas": (0.5, 0.9)},
        {"params": layers[1].weight, "lr": torch.tensor(0.5), "weight_decay": 0.0},
        {"params": [layers[2].weight]},
    ]
    groups = uu.optim.scaled_parameters(given, uu.optim.lr_scale_func_adam, lr=1.0, weight_decay=1)
    assert [g["lr"] for g in groups] == [0.5, torch.tensor(0.25), 0.5]
    assert [g["weight_decay"] for g in groups] == [2.0, 0.0, 2.0]
    assert groups[0]["betas"] == (0.5, 0.9)
    assert "params" in given[0] and given[1]["lr"] == 0.5  # what was given is left as it was


def test_a_scheduler_keeps_the_ratios():
    model = uu.TransformerDecoder(WIDTH, VOCABULARY, 2, HEADS)
    optimizer = uu.optim.AdamW(model.parameters(), lr=1.0)
    before = [g["lr"] for g in optimizer.param_groups]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == [lr / 2 for lr in before]


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_one_group_per_tensor_is_the_packages(kind):
    """The four of its own tests that merged groups fail ask for the number and order of groups."""
    made = []
    for package, options in ((peer, {}), (uu, {"per_tensor": True})):
        torch.manual_seed(0)
        model = package.TransformerDecoder(WIDTH, VOCABULARY, 2, HEADS)
        kind_ = getattr(package.optim, kind)
        made.append((model, kind_(model.parameters(), lr=0.5, weight_decay=0.1, **options)))
    (_, theirs), (model, ours) = made
    assert len(ours.param_groups) == len(list(model.parameters()))
    for a, b in zip(theirs.param_groups, ours.param_groups, strict=True):
        assert (a["lr"], a["weight_decay"], len(a["params"])) == (b["lr"], b["weight_decay"], 1)
        assert a["params"][0].shape == b["params"][0].shape
    ours.load_state_dict(theirs.state_dict())


def test_arguments_by_position_are_torchs():
    """The package passes its first further argument to torch as lr."""
    model = uu.Linear(4, 4)
    with pytest.raises(TypeError):
        peer.optim.AdamW(peer.Linear(4, 4).parameters(), 1.0, (0.5, 0.9))
    (group,) = uu.optim.AdamW(model.parameters(), 1.0, (0.5, 0.9), 1e-6).param_groups
    assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.5, 0.9), 1e-6)


def test_a_learning_rate_of_zero():
    """The package divides by it."""
    with pytest.raises(ZeroDivisionError):
        peer.optim.SGD(peer.Linear(4, 4).parameters(), lr=0.0, weight_decay=0.1)
    (group,) = uu.optim.SGD(uu.Linear(4, 4).parameters(), lr=0.0, weight_decay=0.1).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.0, 0.1)


def test_convolutions_over_two_axes_have_a_rule():
    with pytest.raises(ValueError, match="Cannot get fan_in"):
        peer.optim.lr_scale_func_adam(peer.Parameter(torch.zeros(8, 4, 2, 2), "weight"))
    parameter = uu.Parameter(torch.zeros(8, 4, 2, 2), "weight")
    assert uu.optim.lr_scale_func_adam(parameter) == 0.25
    assert uu.optim.lr_scale_func_sgd("to_output_scale")(parameter) == 4.0


def test_parameters_without_a_type_are_refused():
    mixed = [uu.Linear(2, 2).weight, nn.Parameter(torch.zeros(3, 4))]
    message = r"no mup_type.*\(3, 4\).*Parameter\(data, mup_type.*to_empty.*allow_non_unit_scaling"
    with pytest.raises(ValueError, match=message):
        uu.optim.Adam(mixed)
    groups = uu.optim.Adam(mixed, lr=0.5, allow_non_unit_scaling_params=True).param_groups
    assert groups[-1]["lr"] == 0.5
    with pytest.raises(TypeError, match=r"params\[0\] is a tuple.*names are not taken"):
        uu.optim.Adam(uu.Linear(2, 2).named_parameters())
    with pytest.raises(ValueError, match="requires lr, unless all groups"):
        uu.optim.scaled_parameters(mixed[:1], uu.optim.lr_scale_func_adam)
    with pytest.raises(ValueError, match="readout_constraint='gmean' has no rule"):
        uu.optim.SGD(mixed[:1], readout_constraint="gmean")


class Own(nn.Module):
    """A user's module with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.gain = uu.Parameter(torch.ones(4), "norm")

    def forward(self, x):
        return x * self.gain


def kinds(model):
    return {n: (p.mup_type, p.mup_scaling_depth) for n, p in model.named_parameters()}


def stack():
    layer = lambda: nn.Sequential(uu.Linear(4, 4, bias=True), Own())  # noqa: E731
    norm = uu.LayerNorm(4, elementwise_affine=True)
    return nn.Sequential(
        uu.Embedding(5, 4), uu.DepthSequential(layer(), layer()), norm, uu.LinearReadout(4, 5)
    )


def swapped(model):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        return model.to("meta").to_empty(device="cpu")
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.parametrize(
    "move",
    [
        copy.deepcopy,
        lambda m: pickle.loads(pickle.dumps(m)),
        lambda m: m.to("meta").to_empty(device="cpu"),
        lambda m: m.double().half().float(),
        swapped,
    ],
    ids=["deepcopy", "pickle", "to_empty", "dtype", "swap"],
)
def test_types_and_depths_survive(move):
    model = stack()
    model[0].weight.requires_grad_(False)
    before = kinds(model)
    assert before["1.0.1.gain"] == ("norm", 2) and before["3.weight"] == ("output", None)
    moved = move(model)
    assert kinds(moved) == before
    assert all(type(p) is uu.Parameter for p in moved.parameters())
    uu.optim.AdamW(moved.parameters())


def test_the_package_forgets_types_where_torch_makes_new_parameters():
    model = peer.Linear(4, 4).to("meta").to_empty(device="cpu")
    with pytest.raises(ValueError, match="no mup_type"):
        peer.optim.AdamW(model.parameters())


def test_types_survive_assignment_except_in_modules_of_ones_own():
    model = stack()
    with torch.device("meta"):
        fresh = stack()
    fresh.load_state_dict(model.state_dict(), assign=True)
    lost = [n for n, p in fresh.named_parameters() if type(p) is not uu.Parameter]
    assert lost == ["1.0.1.gain", "1.1.1.gain"]
    with pytest.raises(ValueError, match="no mup_type.*assign=True"):
        uu.optim.AdamW(fresh.parameters())


def test_a_module_of_ones_own_outside_of_any_layer_is_refused_after_to_empty():
    model = Own().to("meta").to_empty(device="cpu")
    with pytest.raises(ValueError, match=r"shape \(4,\).*to_empty"):
        uu.optim.AdamW(model.parameters())


def test_nothing_is_hung_on_parameters_of_torch():
    model = stack()
    for module in model.modules():
        for parameter in module._parameters.values():
            assert isinstance(parameter, uu.Parameter | None)
    plain = nn.Linear(2, 2)
    assert vars(plain.weight) == {}
    assert not uu.parameter.has_parameter_data(plain.weight)


def test_parameters_say_what_is_wrong():
    with pytest.raises(
        ValueError, match="mup_type='wieght' is no type.*weight, bias, norm, output"
    ):
        uu.Parameter(torch.zeros(2), "wieght")
    with pytest.raises(TypeError, match="takes a tensor, not a list"):
        uu.Parameter([1.0], "weight")


def test_stacks_refuse_plain_layers_and_each_other():
    with pytest.raises(ValueError, match=r"Parameter 0.weight \(3, 2\) has no type"):
        uu.DepthSequential(nn.Linear(2, 3), uu.Linear(3, 2))
    inner = uu.DepthSequential(uu.Linear(2, 2), uu.Linear(2, 2))
    with pytest.raises(
        ValueError, match="0.0.weight.* in a stack of 2 already: stacks do not nest"
    ):
        uu.DepthModuleList([inner])


def test_dropout_in_attention_ends_with_training():
    """The package drops attention weights in eval mode too."""
    x = torch.randn(2, 5, 8)
    for package, noisy in ((peer, True), (uu, False)):
        torch.manual_seed(0)
        model = package.MHSA(8, heads=2, is_causal=True, dropout_p=0.5).eval()
        assert torch.equal(model(x), model(x)) is not noisy
    trained = []
    for package in (peer, uu):
        torch.manual_seed(0)
        layer = package.TransformerLayer(8, 2, 0.5, 0.5, is_causal=True, dropout_p=0.2)
        trained.append(layer(x))
    torch.testing.assert_close(*trained)


def test_convolutions_obey_padding_mode_and_constraint():
    """The package pads twice, and its layer does not look at its constraint."""
    x = torch.randn(2, 4, 9)
    layer = uu.Conv1d(4, 8, 3, padding=1, padding_mode="circular")
    assert layer(x).shape[-1] == 9
    expected = F.conv1d(F.pad(x, (1, 1), mode="circular"), layer.weight) * 12**-0.5
    torch.testing.assert_close(layer(x), expected)
    assert peer.Conv1d(4, 8, 3, padding=1, padding_mode="circular")(x).shape[-1] == 11
    grads = {}
    for package in (peer, uu):
        for constraint in ("to_output_scale", None):
            x.requires_grad_().grad = None
            torch.manual_seed(0)
            package.Conv1d(4, 8, 3, constraint=constraint)(x).sum().backward()
            grads[package, constraint] = x.grad.norm().item()
    assert grads[peer, None] == grads[peer, "to_output_scale"]
    assert grads[uu, "to_output_scale"] == pytest.approx(grads[peer, "to_output_scale"])
    assert grads[uu, None] == pytest.approx(grads[peer, None] * (12 / 24) ** 0.5)


def test_float64_norms_are_exact():
    """The package's mean of squares is taken in float32, so finite differences reject it."""
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: uu.functional.rms_norm(x, (8,)), x)
    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(lambda x: peer.functional.rms_norm(x, (8,)), x)


def test_paramz_takes_the_models():
    """Plans by names, folding and FP8 work on them as on paramz.nn's own."""
    model = stack()
    plan = unit_plan(model)
    groups = plan.param_groups(model, "adamw", lr=0.25, weight_decay=0.125)
    expected = uu.optim.AdamW(model.parameters(), lr=0.25, weight_decay=0.125).param_groups
    table = lambda groups: {  # noqa: E731
        id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]
    }
    assert table(groups).keys() == table(expected).keys()
    for key, values in table(expected).items():
        assert table(groups)[key] == pytest.approx(values)
    ids = torch.tensor([[0, 3, 1]])
    before = model(ids)
    fold_scales_(model)
    torch.testing.assert_close(model(ids), before)
    assert fp8_(model) == ["1.0.0", "1.1.0"]


def test_models_compile_without_graph_breaks():
    torch.manual_seed(0)
    model = uu.TransformerDecoder(WIDTH, VOCABULARY, 2, HEADS)
    ids = torch.randint(VOCABULARY, (2, 8))
    expected = model.loss(ids)
    compiled = torch.compile(model.loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(ids), expected)


@pytest.mark.slow
def test_the_packages_own_tests_pass_with_the_import_exchanged(tmp_path):
    """All but the one that expects a group for every tensor."""
    source = Path(peer.__file__).parent / "tests"
    names = ["functional", "modules", "optim", "parameter", "constraints", "scale"]
    paths = [source / "helper.py", source / "conftest.py", source / "core" / "test_functional.py"]
    paths += [source / f"test_{name}.py" for name in names]
    for path in paths:
        text = re.sub(r"from \.+helper", "from helper", path.read_text())
        text = re.sub(r"from \.+(\w)", r"from paramz.compat.unit_scaling.\1", text)
        text = text.replace("unit_scaling._modules", "unit_scaling")
        text = text.replace("import unit_scaling", "import paramz.compat.unit_scaling")
        name = "test_core.py" if path.parent.name == "core" else path.name
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    command += ["--deselect", f"{tmp_path}/test_optim.py::test_scaled_parameters", "-k"]
    command += ["not test_scaled_parameters or existing"]
    # A cache of its own: processes that compile the same at once have loaded each other's halves.
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "86 passed" in done.stdout
