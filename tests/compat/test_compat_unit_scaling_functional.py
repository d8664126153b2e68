"""Every function of unit_scaling, under every constraint: equal values and gradients."""

import itertools

import pytest
import torch

import paramz.compat.unit_scaling as uu

peer = pytest.importorskip("unit_scaling")

U, V = uu.functional, peer.functional
BINARY = ["to_output_scale", None, "gmean", "hmean", "amean", "to_grad_input_scale"]
TERNARY = [*BINARY[:-1], "to_left_grad_scale", "to_right_grad_scale"]
MULTS = [1.0, 0.3, 4.0]


def check(name, shapes, *, rtol=1e-12, atol=1e-14, **options):
    """Values, and gradients of all tensors for a random gradient of the output."""
    results = []
    for package in (V, U):
        torch.manual_seed(1)
        inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
        out = getattr(package, name)(*inputs, **options)
        torch.manual_seed(2)
        out.backward(torch.randn_like(out))
        results.append([out, *(x.grad for x in inputs)])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)


@pytest.mark.parametrize(("mult", "constraint"), list(itertools.product(MULTS, BINARY)))
def test_entrywise(mult, constraint):
    check("gelu", [(5, 7)], mult=mult, constraint=constraint)
    check("gelu", [(5, 7)], mult=mult, constraint=constraint, approximate="tanh")
    check("silu", [(5, 7)], mult=mult, constraint=constraint)
    check("softmax", [(5, 7)], dim=1, mult=mult, constraint=constraint)


@pytest.mark.parametrize("mult", MULTS)
def test_with_a_multiplier(mult):
    check("silu_glu", [(5, 7), (5, 7)], mult=mult)
    for causal in (False, True):
        check(
            "scaled_dot_product_attention", [(2, 3, 6, 4)] * 3, is_causal=causal, mult=mult,
            rtol=1e-10,
        )  # fmt: skip
    target = torch.tensor([0, 6, 2, -100, 5])
    for reduction in ("mean", "sum"):
        check("cross_entropy", [(5, 7)], target=target, reduction=reduction, mult=mult)
    check("cross_entropy", [(7,)], target=torch.tensor(3), mult=mult)


@pytest.mark.parametrize("constraint", BINARY)
def test_linear_maps(constraint):
    for shape in ((4, 5, 8), (5, 8), (8,)):
        check("linear", [shape, (6, 8), (6,)], constraint=constraint)
        check("linear_readout", [shape, (6, 8), (6,)], constraint=constraint)
    check("linear", [(5, 8), (6, 8)], bias=None, scale_power=(1.0, 0.25, 0.0))


@pytest.mark.parametrize("constraint", BINARY)
def test_convolutions(constraint):
    check("conv1d", [(3, 4, 11), (6, 4, 3), (6,)], constraint=constraint)
    options = {"stride": 2, "padding": 3, "dilation": 2, "groups": 2}
    check("conv1d", [(3, 4, 11), (6, 2, 3)], constraint=constraint, **options)
    check("conv1d", [(4, 11), (6, 4, 3)], constraint=constraint, scale_power=(1.0, 0.3, 0.7))


@pytest.mark.parametrize("constraint", TERNARY)
def test_of_two_tensors(constraint):
    check("matmul", [(3, 5), (5, 7)], constraint=constraint)
    check("matmul", [(2, 3, 5), (2, 5, 7)], constraint=constraint)
    check("add", [(3, 5), (3, 5)], constraint=constraint)
    check("add", [(3, 5), (5,)], constraint=constraint)
    check("add", [(3, 5), (1,)], constraint=constraint)
    check("add", [(3, 5)], other=2.0, constraint=constraint)


def test_the_rest():
    check("layer_norm", [(4, 5, 8)], normalized_shape=(8,))
    for reduction in ("mean", "sum"):
        check("mse_loss", [(4, 5), (4, 5)], reduction=reduction)
    # Its mean of squares is in float32.
    check("rms_norm", [(4, 5, 8)], normalized_shape=(8,), rtol=1e-6, atol=1e-6)
    check("rms_norm", [(4, 5, 8)], normalized_shape=(5, 8), eps=0.1, rtol=1e-6, atol=1e-6)
    for p, training in ((0.3, True), (0.3, False), (0.0, True)):
        torch.manual_seed(0)
        check("dropout", [(4, 5)], p=p, training=training)


def test_norms_and_tables_with_their_gradients():
    gains = [(4, 5, 8), (8,), (8,)]
    for package in (V, U):
        torch.manual_seed(0)
        x, weight, bias = (torch.randn(s, requires_grad=True) for s in gains)
        package.layer_norm(x, (8,), weight, bias).square().sum().backward()
        table = torch.randn(9, 4, requires_grad=True)
        ids = torch.tensor([[1, 2, 2], [0, 5, 1]])
        package.embedding(ids, table, padding_idx=2).square().sum().backward()
        rms = torch.randn(8, requires_grad=True)
        package.rms_norm(x, (8,), rms).square().sum().backward()
        found = [p.grad for p in (x, weight, bias, table, rms)]
        if package is V:
            expected = found
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_residual_connections():
    results = []
    for package in (V, U):
        torch.manual_seed(0)
        x = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
        branch, skip = package.residual_split(x, 0.7)
        y = package.residual_add(torch.sin(branch), skip, 0.7)
        z = package.residual_apply(torch.cos, y, tau=0.2)
        z.backward(torch.ones_like(z))
        results.append((y, z, x.grad))
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["gmean", "hmean", "amean", "to_output_scale", None, ""])
def test_constraints(name):
    scales = (0.5, 2.0, 3.0)
    assert uu.constraints.apply_constraint(name, *scales) == pytest.approx(
        peer.constraints.apply_constraint(name, *scales), rel=1e-14
    )


def test_the_core():
    for layers, index in itertools.product((2, 7, 8), range(7)):
        for values in ((1.0, 1.0), (0.5, 2.0), (0.0, 1.0)):
            rule = uu.core.functional.transformer_residual_scaling_rule(*values)
            theirs = peer.core.functional.transformer_residual_scaling_rule(*values)
            assert rule(index, layers) == pytest.approx(theirs(index, layers), rel=1e-14)
    x = torch.randn(4, 8)
    for options in ({}, {"dims": (1,), "keepdim": True}, {"dims": (0, 1), "eps": 0.5}):
        torch.testing.assert_close(
            uu.core.functional.rms(x, **options), peer.core.functional.rms(x, **options)
        )
    ours, theirs = (p.core.functional.logarithmic_interpolation for p in (uu, peer))
    assert ours(0.3, 0.2, 7.0) == theirs(0.3, 0.2, 7.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: U.silu(torch.ones(2), inplace=True), "'inplace'.*silu has no unit-scaled form"),
        (lambda: U.dropout(torch.ones(2), inplace=True), "'inplace'.*dropout"),
        (lambda: U.add(torch.ones(2), torch.ones(2), alpha=2), "'alpha'.*Leave it at 1"),
        (lambda: U.embedding(torch.tensor([0]), torch.eye(2), sparse=True), "'sparse'"),
        (lambda: uu.Embedding(2, 2, scale_grad_by_freq=True), "'scale_grad_by_freq'"),
        (lambda: uu.CrossEntropyLoss(label_smoothing=0.1), "'label_smoothing'"),
        (lambda: uu.CrossEntropyLoss(weight=torch.ones(2)), "'weight'.*Leave it at None"),
        (lambda: U.cross_entropy(torch.ones(2, 3, 4), torch.ones(2)), r"shape is \(2, 3, 4\)"),
        (
            lambda: U.cross_entropy(torch.ones(2, 3), torch.tensor([0, 1]), reduction="none"),
            "reduction='none' has no unit-scaled form",
        ),
        (lambda: U.mse_loss(torch.ones(2), torch.ones(3)), "input.shape == target.shape"),
        (lambda: uu.Conv1d(2, 2, 3, padding="same"), "padding='same': only an integer"),
        (lambda: uu.constraints.apply_constraint("mean", 1.0), "mean is not a valid.*gmean"),
    ],
)
def test_what_has_no_unit_scaled_form_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
