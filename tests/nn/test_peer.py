"""Equality with the authors' package, unit_scaling 0.3.5."""

import pytest
import torch
from torch.nn import functional as F
from umup_models import (
    HEADS,
    LAYERS,
    VOCABULARY,
    WIDTH,
    Plain,
    copy_weights_,
    mean_loss,
    tokens,
    weights,
)

import paramz
from paramz.nn import Alphas, TransformerDecoder, unit_plan
from paramz.nn import functional as U

uu = pytest.importorskip("unit_scaling")

# unit_scaling takes the RMS norm's statistic in float32, whatever the model's dtype.
CLOSE = 1e-6


@pytest.fixture
def peer():
    torch.manual_seed(0)
    return uu.TransformerDecoder(WIDTH, VOCABULARY, LAYERS, HEADS).double()


def ours():
    return TransformerDecoder(WIDTH, VOCABULARY, LAYERS, HEADS).double()


def converted(length: int):
    model = Plain().double()
    plan = paramz.parametrize_(model, "u-mup", example=tokens(length))
    return model, plan


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def test_layers_of_paramz_nn_equal_the_peer(peer):
    model = ours()
    copy_weights_(model, peer)
    ids = tokens()
    assert relative(model(ids), peer(ids)) < CLOSE
    loss, expected = model.loss(ids), peer.loss(ids)
    assert loss.item() == pytest.approx(expected.item(), rel=CLOSE)
    loss.backward()
    expected.backward()
    gradients = weights(peer)
    for name, parameter in weights(model).items():
        assert relative(parameter.grad, gradients[name].grad) < CLOSE, name


def test_a_converted_plain_model_equals_the_peer(peer):
    ids = tokens()
    model, _ = converted(ids.shape[1] - 1)
    copy_weights_(model, peer)
    logits = peer(ids[:, :-1])
    assert relative(model(ids[:, :-1]), logits) < CLOSE
    mean_loss(model, ids).backward()
    uu.functional.cross_entropy(logits.flatten(end_dim=1), ids[:, 1:].flatten()).backward()
    gradients = weights(peer)
    for name, parameter in weights(model).items():
        assert relative(parameter.grad, gradients[name].grad) < CLOSE, name


@pytest.mark.parametrize("made", ["layers", "converted"])
def test_adamw_trajectories_are_equal(peer, made):
    ids = tokens()
    model, plan = converted(16) if made == "converted" else ((m := ours()), unit_plan(m))
    copy_weights_(model, peer)
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.5, weight_decay=1e-3))
    expected = uu.optim.AdamW(peer.parameters(), lr=0.5, weight_decay=1e-3)
    before = {name: p.detach().clone() for name, p in weights(peer).items()}
    for _ in range(5):
        for net, opt in ((model, optimizer), (peer, expected)):
            opt.zero_grad()
            if net is peer or made == "layers":
                logits = net(ids[:, :-1]).flatten(end_dim=1)
                U.cross_entropy(logits, ids[:, 1:].flatten()).backward()
            else:
                mean_loss(net, ids).backward()
            opt.step()
    theirs = weights(peer)
    for name, parameter in weights(model).items():
        assert relative(parameter.detach(), theirs[name].detach()) < CLOSE, name
        assert relative(theirs[name].detach(), before[name]) > 1e-3, name


def test_learning_rate_and_decay_of_every_type_of_tensor():
    layers = [uu.TransformerLayer(WIDTH, HEADS, 0.5, 0.5, is_causal=True) for _ in range(LAYERS)]
    theirs = torch.nn.ModuleDict(
        {
            "embedding": uu.Embedding(VOCABULARY, WIDTH),
            "stack": uu.DepthModuleList(layers),
            "norm": uu.LayerNorm(WIDTH, elementwise_affine=True),
            "readout": uu.LinearReadout(WIDTH, VOCABULARY, bias=True),
        }
    )
    block = lambda: torch.nn.ModuleDict(  # noqa: E731
        {
            "mhsa": torch.nn.ModuleDict(
                {
                    "linear_qkv": paramz.nn.Linear(WIDTH, 3 * WIDTH),
                    "linear_o": paramz.nn.Linear(WIDTH, WIDTH),
                }
            ),
            "mlp": torch.nn.ModuleDict(
                {
                    "linear_1": paramz.nn.Linear(WIDTH, 4 * WIDTH),
                    "linear_gate": paramz.nn.Linear(WIDTH, 4 * WIDTH),
                    "linear_2": paramz.nn.Linear(4 * WIDTH, WIDTH),
                }
            ),
        }
    )
    mine = torch.nn.ModuleDict(
        {
            "embedding": paramz.nn.Embedding(VOCABULARY, WIDTH),
            "stack": torch.nn.ModuleList(block() for _ in range(LAYERS)),
            "norm": paramz.nn.LayerNorm(WIDTH),
            "readout": paramz.nn.Readout(WIDTH, VOCABULARY, bias=True),
        }
    )
    expected = {}
    for optimizer, scale in (
        ("adamw", uu.optim.lr_scale_func_adam),
        ("sgd", uu.optim.lr_scale_func_sgd(None)),
    ):
        for name, parameter in theirs.named_parameters():
            (group,) = uu.optim.scaled_parameters([parameter], scale, lr=0.25, weight_decay=0.125)
            expected[name] = (group["lr"], group["weight_decay"])
        plan = unit_plan(mine)
        groups = plan.param_groups(mine, optimizer, lr=0.25, weight_decay=0.125)
        named = {id(p): name for name, p in mine.named_parameters()}
        found = {named[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
        assert found.keys() == expected.keys()
        for name, values in found.items():
            assert values == pytest.approx(expected[name]), (optimizer, name)


def close(mine, theirs, inputs):
    """Values, and gradients of all inputs for a random gradient of the output."""
    results = []
    for function in (mine, theirs):
        leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
        out = function(*leaves)
        torch.manual_seed(3)
        out.backward(torch.randn_like(out))
        results.append([out, *(x.grad for x in leaves if x.grad is not None)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def draw(*shapes):
    torch.manual_seed(1)
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("mult", [1.0, 0.3, 4.0])
def test_operations_with_a_multiplier(mult):
    theirs = uu.functional
    close(lambda x: U.gelu(x, mult), lambda x: theirs.gelu(x, mult), draw((5, 7)))
    close(lambda x: U.silu(x, mult), lambda x: theirs.silu(x, mult), draw((5, 7)))
    close(
        lambda x, g: U.silu_glu(x, g, mult),
        lambda x, g: theirs.silu_glu(x, g, mult),
        draw((5, 7), (5, 7)),
    )
    close(
        lambda x: U.softmax(x, -1, mult), lambda x: theirs.softmax(x, -1, mult=mult), draw((5, 7))
    )
    for causal in (False, True):
        close(
            lambda q, k, v, c=causal: U.attention(q, k, v, causal=c, mult=mult),
            lambda q, k, v, c=causal: theirs.scaled_dot_product_attention(
                q, k, v, is_causal=c, mult=mult
            ),
            draw(*[(2, 3, 6, 4)] * 3),
        )
    target = torch.arange(5)
    close(
        lambda x: U.cross_entropy(x, target, mult),
        lambda x: theirs.cross_entropy(x, target, mult=mult),
        draw((5, 7)),
    )


def test_operations_without_one():
    theirs = uu.functional
    shapes = draw((4, 5, 8), (6, 8), (6,))
    close(U.linear, lambda x, w, b: theirs.linear(x, w, b), shapes)
    close(
        lambda x, w, b: U.linear(x, w, b, "none"),
        lambda x, w, b: theirs.linear(x, w, b, constraint=None),
        shapes,
    )
    close(U.readout, lambda x, w, b: theirs.linear_readout(x, w, b), shapes)
    ids = torch.tensor([[1, 2, 2], [0, 5, 1]])
    close(lambda w: U.embedding(ids, w), lambda w: theirs.embedding(ids, w), draw((9, 4)))
    norm = draw((4, 5, 8), (8,), (8,))
    close(
        lambda x, w, b: U.layer_norm(x, (8,), w, b),
        lambda x, w, b: theirs.layer_norm(x, (8,), w, b),
        norm,
    )

    def ours(x):
        branch, skip = U.residual_split(x, 0.7)
        return U.residual_add(F.gelu(branch), skip, 0.7)

    def residual(x):
        branch, skip = theirs.residual_split(x, 0.7)
        return theirs.residual_add(F.gelu(branch), skip, 0.7)

    close(ours, residual, draw((4, 8)))


@pytest.mark.parametrize(("res", "ratio"), [(1.0, 1.0), (0.5, 2.0), (3.0, 0.25)])
def test_the_tau_rule(res, ratio):
    rule = uu.core.functional.transformer_residual_scaling_rule(res, ratio)
    found = paramz.nn.taus([True, False] * 5, Alphas(res=res, res_attn_ratio=ratio))
    assert found == pytest.approx([rule(index, 10) for index in range(10)], rel=1e-12)
