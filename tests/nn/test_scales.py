"""Scales at init: within 10 % of one where u-muP says so."""

import math

import pytest
import torch

import paramz
from paramz.nn import Linear, Readout, TransformerDecoder
from paramz.nn import functional as U

WIDTH, TOKENS = 256, 512
TOLERANCE = 0.1


def leaf(*shape):
    return torch.randn(shape, requires_grad=True)


def scales(function, *inputs):
    """Standard deviations of the output, and of all gradients under a unit normal one."""
    torch.manual_seed(0)
    out = function(*inputs)
    out.backward(torch.randn_like(out))
    return [out.std().item(), *(x.grad.std().item() for x in inputs)]


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (U.linear, [(TOKENS, WIDTH), (WIDTH, WIDTH)]),
        (lambda x, w: U.linear(x, w, None, "none"), [(TOKENS, WIDTH), (4 * WIDTH, WIDTH)]),
        (U.silu, [(TOKENS, WIDTH)]),
        (U.silu_glu, [(TOKENS, WIDTH), (TOKENS, WIDTH)]),
        (lambda x: U.rms_norm(x, (WIDTH,)), [(TOKENS, WIDTH)]),
        (lambda a, b: U.residual_add(a, b, 0.7), [(TOKENS, WIDTH), (TOKENS, WIDTH)]),
        (lambda w: U.embedding(torch.arange(TOKENS) % WIDTH, w), [(WIDTH, WIDTH)]),
    ],
    ids=["linear", "linear unconstrained", "silu", "silu_glu", "rms_norm", "residual", "embedding"],
)
def test_operations_keep_unit_scale_forward_and_backward(function, shapes):
    torch.manual_seed(1)
    assert scales(function, *(leaf(*s) for s in shapes)) == pytest.approx(
        [1.0] * (1 + len(shapes)), abs=TOLERANCE
    )


def test_activations_and_attention_keep_unit_scale_forward():
    """Their one factor is the output's; relu's gradient has sqrt(1/2) of 1.71, attention's less."""
    torch.manual_seed(1)
    assert scales(U.gelu, leaf(TOKENS, WIDTH))[0] == pytest.approx(1, abs=TOLERANCE)
    assert scales(U.relu, leaf(TOKENS, WIDTH))[0] == pytest.approx(1, abs=TOLERANCE)
    qkv = [leaf(4, 4, 256, 64) for _ in range(3)]
    out, query, key, value = scales(lambda *x: U.attention(*x, causal=True), *qkv)
    assert (out, value) == pytest.approx((1, 1), abs=TOLERANCE)
    assert max(query, key) < 0.2  # softmax over 64-dimensional q k / d_head is nearly flat


def test_the_readouts_logits_start_small_and_its_gradients_at_one():
    torch.manual_seed(0)
    logits, x, weight = scales(U.readout, leaf(1024, WIDTH), leaf(512, WIDTH))
    assert logits == pytest.approx(WIDTH**-0.5, rel=TOLERANCE)
    assert (x, weight) == pytest.approx((1, 1), abs=TOLERANCE)


def test_a_decoder_has_unit_weights_and_unit_hidden_activations():
    """The stream between blocks is not among them: attention's factor takes values of different
    tokens for independent, which they are in the first block alone. Ours equals the authors'."""
    torch.manual_seed(0)
    model = TransformerDecoder(WIDTH, vocabulary=256, layers=4, heads=4)
    outputs = {}
    for path, module in model.named_modules():
        if isinstance(module, Linear) and path.endswith(("qkv", "up", "gate")):
            module.register_forward_hook(lambda m, a, y, p=path: outputs.update({p: y.std()}))
    model.loss(torch.randint(256, (4, 256))).backward()
    assert len(outputs) == 12
    for path, std in outputs.items():
        assert std.item() == pytest.approx(1, abs=TOLERANCE), path
    for name, parameter in model.named_parameters():
        assert parameter.std().item() == pytest.approx(1, abs=TOLERANCE), name
    assert model.readout.weight.grad.std().item() == pytest.approx(1, abs=TOLERANCE)


def residual_mlp(width):
    return torch.nn.Sequential(
        torch.nn.Linear(16, width), torch.nn.GELU(), torch.nn.Linear(width, width),
        torch.nn.GELU(), torch.nn.Linear(width, 8),
    )  # fmt: skip


SLOW_MUON = pytest.param("muon", 0.1, marks=pytest.mark.slow)  # torch's computes in bfloat16


@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 0.1), ("sgd", 0.1), SLOW_MUON])
def test_coordinate_check_over_eightfold_width(optimizer, lr):
    draw = torch.Generator().manual_seed(0)
    batch = torch.randn(64, 16, generator=draw), torch.randint(8, (64,), generator=draw)
    settings = {"widths": [64, 128, 256, 512], "optimizer": optimizer, "seeds": 4, "steps": 2}
    df = paramz.coord_check(residual_mlp, batch, parametrization="u-mup", lr=lr, **settings)
    judged = paramz.judge(df)
    assert judged.passed, judged.sentence


def test_readouts_are_found_without_being_named():
    model = residual_mlp(32)
    paramz.parametrize_(model, "u-mup", example=torch.randn(2, 16))
    assert [isinstance(m, Readout) for m in model if isinstance(m, Linear)] == [False, False, True]


def test_gradients_keep_their_size_over_width_so_adams_eps_needs_no_rule():
    """A plain decoder's shrink, which is why muP has one."""
    from umup_models import VOCABULARY, Plain, mean_loss, tokens

    ids = tokens(32, batch=8)

    def sizes(width, plain):
        found = {}
        for seed in range(3):
            torch.manual_seed(seed)
            model = Plain(width) if plain else TransformerDecoder(width, VOCABULARY, 2, 4)
            (mean_loss(model, ids) if plain else model.loss(ids)).backward()
            for name, parameter in model.named_parameters():
                size = parameter.grad.pow(2).mean().sqrt().item()
                found[name] = found.get(name, 0.0) + size
        return found

    for plain in (False, True):
        narrow, wide = sizes(32, plain), sizes(256, plain)
        slopes = {name: math.log(wide[name] / narrow[name], 8) for name in narrow}
        if plain:
            assert min(slopes.values()) < -0.4, slopes
        else:
            assert all(abs(slope) < 0.1 for slope in slopes.values()), slopes


def test_an_expert_that_gets_no_token_has_gradients_of_zero():
    expert = torch.nn.Sequential(paramz.nn.RMSNorm(4), paramz.nn.Linear(4, 3, bias=True))
    out = expert(torch.zeros(0, 4, requires_grad=True))
    assert out.shape == (0, 3)
    out.sum().backward()
    assert not any(parameter.grad.any() for parameter in expert.parameters())
