"""nn.MultiheadAttention and torch's encoder layers under u-muP."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.nn import Linear, MultiheadAttention, Scale, unit_plan, unit_scale_

VOCABULARY = 29


class Encoder(nn.Module):
    """A causal language model of torch's own layers."""

    def __init__(self, width=64, heads=4, layers=3, batch_first=True, norm_first=True):
        super().__init__()
        self.batch_first = batch_first
        self.embed = nn.Embedding(VOCABULARY, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=batch_first,
            norm_first=norm_first,
        )  # fmt: skip
        norm = nn.LayerNorm(width)
        self.encoder = nn.TransformerEncoder(layer, layers, norm, enable_nested_tensor=False)
        self.readout = nn.Linear(width, VOCABULARY)

    def forward(self, ids):
        x = self.embed(ids)
        x = x if self.batch_first else x.transpose(0, 1)
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        x = self.encoder(x, mask=mask, is_causal=True)
        return self.readout(x if self.batch_first else x.transpose(0, 1))


def tokens(batch=16, length=32):
    draw = torch.Generator().manual_seed(5)
    return torch.randint(VOCABULARY, (batch, length), generator=draw)


def mean_loss(model, ids):
    return F.cross_entropy(model(ids[:, :-1]).flatten(end_dim=1), ids[:, 1:].flatten())


def plain(theirs):
    """Our layer, without factors and with torch's 1/sqrt(d_head), on the parameters of theirs."""
    mine = MultiheadAttention(
        theirs.embed_dim, theirs.num_heads, theirs.dropout, theirs.in_proj_bias is not None,
        batch_first=theirs.batch_first, mult=theirs.head_dim**0.5,
        scales=(Scale(), Scale(), Scale()), scale=Scale(),
    )  # fmt: skip
    mine.load_state_dict(theirs.state_dict())
    return mine.train(theirs.training)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_without_factors_it_is_torchs(batch_first, bias, need_weights):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4, bias=bias, batch_first=batch_first)
    if bias:
        nn.init.normal_(theirs.in_proj_bias)
    mine = plain(theirs)
    shapes = [(3, 5, 16), (3, 7, 16)] if batch_first else [(5, 3, 16), (7, 3, 16)]
    query, key = (torch.randn(s) for s in shapes)
    value = torch.randn_like(key)
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[1, 4:] = True
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    each = torch.randn(12, 5, 7)
    calls = [
        (query, key, value, {}),
        (query, query, query, {"attn_mask": causal, "is_causal": True}),
        (query, query, query, {"attn_mask": causal < 0}),
        (query, key, value, {"key_padding_mask": padding}),
        (query, key, value, {"key_padding_mask": padding.float(), "attn_mask": each}),
        (query, key, value, {"attn_mask": each, "average_attn_weights": False}),
    ]
    if batch_first:
        calls.append((query[0], key[0], value[0], {}))
    for q, k, v, options in calls:
        expected = theirs(q, k, v, need_weights=need_weights, **options)
        found = mine(q, k, v, need_weights=need_weights, **options)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_it_equals_the_authors_attention():
    uu = pytest.importorskip("unit_scaling")
    torch.manual_seed(0)
    theirs = uu.MHSA(32, heads=4, is_causal=True, mult=2.0).double()
    mine = MultiheadAttention(32, 4, batch_first=True, mult=2.0).double()
    with torch.no_grad():
        mine.in_proj_weight.copy_(theirs.linear_qkv.weight)
        mine.out_proj.weight.copy_(theirs.linear_o.weight)
    results = []
    for function in (theirs, lambda x: mine(x, x, x, need_weights=False, is_causal=True)[0]):
        x = torch.randn(2, 6, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        y = function(x.requires_grad_())
        y.backward(torch.ones_like(y))
        results.append((y, x.grad))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(mine.in_proj_weight.grad, theirs.linear_qkv.weight.grad)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_converted_encoders_have_unit_scale(batch_first, norm_first):
    torch.manual_seed(0)
    model = Encoder(batch_first=batch_first, norm_first=norm_first)
    names = list(model.state_dict())
    ids = tokens(32)
    plan = paramz.parametrize_(model, "u-mup", example=ids)
    assert list(model.state_dict()) == names
    layers = model.encoder.layers
    sizes = []
    for layer in layers:
        assert isinstance(layer.self_attn, MultiheadAttention)
        layer.linear1.register_forward_hook(lambda m, a, y: sizes.append(y.std().item()))
    mean_loss(model, ids).backward()
    assert sizes == pytest.approx([1.0] * 3, abs=0.1)
    for name, parameter in model.named_parameters():
        # Attention's factor is for values of independent tokens; gradients of what is behind it
        # are up to twice too large, as the authors' are.
        if parameter.dim() > 1:
            size = parameter.grad.pow(2).mean().sqrt().item()
            assert 0.75 < size < 2.0, (name, size)
    rows = {row.name: row for row in plan.rows}
    row = rows["encoder.layers.0.self_attn.in_proj_weight"]
    assert (row.role, row.ratios["fan_in"], row.ratios["depth"]) == ("hidden", 64.0, 3.0)
    assert rows["encoder.layers.0.self_attn.in_proj_bias"].role == "vector"
    assert rows["readout.weight"].role == "output"


def test_torchs_shortcut_in_eval_mode_is_not_taken():
    """Its kernel would multiply by the bare weights."""
    model = Encoder()
    paramz.parametrize_(model, "u-mup", example=tokens())
    expected = model(tokens())
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(tokens()), expected, rtol=1e-5, atol=1e-5)


def test_a_converted_encoder_is_the_same_as_one_of_linear_layers():
    """What torch does in one module, written out."""

    class Attention(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.heads, self.scaling = heads, (width // heads) ** -0.5
            self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

        def forward(self, x):
            q, k, v = (
                f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                for f in (self.q, self.k, self.v)
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scaling)
            return self.out(y.transpose(1, 2).flatten(2))

    class Torchs(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

        def forward(self, x):
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
            return self.attention(x, x, x, need_weights=False, attn_mask=mask, is_causal=True)[0]

    class Model(nn.Module):
        def __init__(self, attention):
            super().__init__()
            self.embed, self.norm = nn.Embedding(VOCABULARY, 16), nn.LayerNorm(16)
            self.attention = attention(16, 2)
            self.readout = nn.Linear(16, VOCABULARY)

        def forward(self, ids):
            x = self.embed(ids)
            return self.readout(x + self.attention(self.norm(x)))

    torch.manual_seed(0)
    ids = tokens(4, 8)
    alphas = paramz.nn.Alphas(attn_softmax=2.0, res=0.5)
    first, second = Model(Torchs).double(), Model(Attention).double()
    for model in (first, second):
        unit_scale_(model, ids, alphas=alphas)
    theirs, mine = first.attention.attention, second.attention
    with torch.no_grad():
        for name in ("embed", "norm", "readout"):
            getattr(second, name).load_state_dict(getattr(first, name).state_dict())
        for part, layer in zip(
            theirs.in_proj_weight.chunk(3), (mine.q, mine.k, mine.v), strict=True
        ):
            layer.weight.copy_(part)
        mine.out.load_state_dict(theirs.out_proj.state_dict())
    torch.testing.assert_close(first(ids), second(ids), rtol=1e-10, atol=1e-12)
    for model in (first, second):
        mean_loss(model, ids).backward()
    torch.testing.assert_close(first.embed.weight.grad, second.embed.weight.grad)
    rows = torch.cat([m.weight.grad for m in (mine.q, mine.k, mine.v)])
    torch.testing.assert_close(theirs.in_proj_weight.grad, rows)


def test_cross_attention_is_converted_too():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.transformer = nn.Transformer(16, 2, 1, 1, 32, dropout=0.0, batch_first=True,
                                              norm_first=True)  # fmt: skip
            self.embed, self.readout = nn.Embedding(VOCABULARY, 16), nn.Linear(16, VOCABULARY)

        def forward(self, ids):
            x = self.embed(ids)
            return self.readout(self.transformer(x[:, :5], x))

    torch.manual_seed(0)
    model = Model()
    unit_scale_(model, tokens(8, 12))
    assert isinstance(model.transformer.decoder.layers[0].multihead_attn, MultiheadAttention)
    assert model(tokens(8, 12)).isfinite().all()


def test_attention_with_more_than_projections_is_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.attention = nn.MultiheadAttention(8, 2, add_bias_kv=True, batch_first=True)
            self.last = nn.Linear(8, 2)

        def forward(self, x):
            x = self.first(x)
            return self.last(self.attention(x, x, x)[0])

    with pytest.raises(
        ValueError, match="MultiheadAttention with add_bias_kv, called in attention"
    ):
        unit_scale_(Model(), torch.randn(2, 3, 8))


def test_folded_encoders_are_plain_ones():
    torch.manual_seed(0)
    model = Encoder(layers=2).double()
    alphas = paramz.nn.Alphas(attn_softmax=2.0)
    paramz.parametrize_(model, "u-mup", example=tokens(), alphas=alphas)
    expected = model(tokens())
    paramz.fold_(model)
    same = Encoder(layers=2).double()
    same.load_state_dict(model.state_dict())
    torch.testing.assert_close(same(tokens()), expected, rtol=1e-4, atol=1e-4)  # eps of the norms


def test_layers_that_are_scaled_by_each_call_are_not_folded():
    model = nn.Sequential(MultiheadAttention(8, 2), Linear(8, 8))
    before = model[1].weight.clone()
    with pytest.raises(ValueError, match="by the number of keys of each call has no plain form"):
        paramz.nn.fold_scales_(model)
    assert torch.equal(model[1].weight, before)
    assert [row.role for row in unit_plan(model).rows] == ["hidden"] * 3


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="embed_dim=10 is no multiple of num_heads=4"):
        MultiheadAttention(10, 4)


def encoder(width):
    return Encoder(width, heads=4, layers=2)


@pytest.mark.slow
def test_coordinate_check_over_eightfold_width():
    """Of all but the embedding, which u-muP lets move as width^-1/2 (docs/parametrizations.md)."""
    ids = tokens(8, 16)
    batch = ids[:, :-1], ids[:, 1:]
    settings = {"widths": [32, 64, 128, 256], "optimizer": "adamw", "seeds": 4, "steps": 2}
    df = paramz.coord_check(encoder, batch, parametrization="u-mup", lr=0.1, **settings)
    judged = paramz.judge(df[df["module"] != "embed"])
    assert judged.passed, judged.sentence
    assert paramz.judge(df).culprit == "embed"
    df = paramz.coord_check(encoder, batch, parametrization="sp", lr=1e-2, **settings)
    sp = paramz.judge(df[df["module"] != "embed"])
    assert not sp.passed, sp.sentence


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_causal_attention_hides_later_positions_with_and_without_a_mask(need_weights, padded):
    torch.manual_seed(0)
    layer = MultiheadAttention(16, 2, batch_first=True)
    x, padding = torch.randn(2, 5, 16), torch.zeros(2, 5, dtype=torch.bool) if padded else None
    options = {"is_causal": True, "need_weights": need_weights, "key_padding_mask": padding}
    expected = layer(x, x, x, attn_mask=torch.ones(5, 5).triu(1).bool(), **options)[0]
    assert torch.allclose(layer(x, x, x, **options)[0], expected, atol=1e-6)
    later = x + torch.eye(5)[-1, :, None]  # changes the last position only
    assert torch.allclose(
        layer(later, later, later, **options)[0][:, :-1], expected[:, :-1], atol=1e-6
    )
