"""What a run shows of products of two activations: attention under any name, and dot products."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz


class Mixer(nn.Module):
    """Attention, but for its name and those of its layers; ``scale`` is what its code does."""

    def __init__(self, width, heads, scale="root", names=("one", "two")):
        super().__init__()
        self.n, self.scaled, self.names = heads, scale, names
        self.maps = nn.ModuleDict({names[0]: nn.Linear(width, 3 * width, bias=False)})
        self.maps[names[1]] = nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (
            t.unflatten(-1, (self.n, -1)).transpose(1, 2)
            for t in self.maps[self.names[0]](x).chunk(3, -1)
        )
        size = q.shape[-1]
        if self.scaled == "root":
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.scaled == "cosine":
            logits = 10 * F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
            out = logits.softmax(-1) @ v
        elif self.scaled == "sum":
            logits = (q[..., None, :] * k[..., None, :, :]).sum(-1) * size**-0.5
            out = logits.softmax(-1) @ v
        elif self.scaled == "gate":
            out = (q * k).sum(-1, keepdim=True).sigmoid() * v
        else:
            out = ((q * (3 / size)) @ k.mT).softmax(-1) @ v
        return self.maps[self.names[1]](out.transpose(1, 2).flatten(2))


def net(width, heads, **options):
    return nn.Sequential(
        nn.Embedding(7, width), Mixer(width, heads(width), **options), nn.Linear(width, 7)
    )


def said(build, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        paramz.make_plan(build(64), "mup", base=build, base_width=16, **options)
    return " ".join(str(each.message) for each in caught)


# The size of a head grows with four heads; with one head for every 8 channels it stays.
FOUR, SMALL = (lambda width: 4), (lambda width: width // 8)


@pytest.mark.parametrize("names", [("one", "two"), ("q", "value")], ids=["unknown", "known"])
@pytest.mark.parametrize(
    ("heads", "scale", "grows"),
    [
        (FOUR, "root", True),
        (SMALL, "root", False),
        (FOUR, "sum", True),
        (SMALL, "sum", False),
        (SMALL, "gate", False),
        (FOUR, "cosine", False),
        (FOUR, "mup", False),
    ],
    ids=["heads grow", "heads stay", "a sum grows", "it stays", "gates", "cosines", "1/d_head"],
)
def test_attention_is_told_by_its_product_and_not_by_its_name(heads, scale, grows, names):
    def build(width):
        return net(width, heads, scale=scale, names=names)

    assert ("the size of a head grows" in said(build)) == grows
    if grows:
        assert said(build, factors={r"^[0-9]+$": None}) == ""


class Norm(nn.Module):
    """The squares of what was centred, which is computed twice."""

    def forward(self, x):
        square = (x - x.mean(-1, keepdim=True)) * (x - x.mean(-1, keepdim=True))
        return x * (square.sum(-1, keepdim=True) / x.shape[-1] + 1e-6).rsqrt()


def test_a_norm_written_out_is_no_product():
    def build(width):
        return nn.Sequential(
            nn.Embedding(7, width), nn.Linear(width, width), Norm(), nn.Linear(width, 7)
        )

    assert said(build) == ""


class Towers(nn.Module):
    def __init__(self, width, normed=False, biased=False, divided=False):
        super().__init__()
        self.user, self.item = nn.Embedding(5, width), nn.Embedding(6, width)
        self.last = nn.Linear(width, width, bias=biased)
        self.normed, self.divided = normed, divided

    def forward(self, user, item):
        one, other = self.last(self.user(user)), self.item(item)
        if self.normed:
            one, other = (x / x.pow(2).sum(-1, keepdim=True) ** 0.5 for x in (one, other))
        product = (one * other).sum(-1)
        return product * 16 / one.shape[-1] if self.divided else product


PAIR = {"user": torch.tensor([1, 2]), "item": torch.tensor([3, 4])}


def test_a_dot_product_that_is_the_output_is_a_warning_whose_suggestions_paste():
    text = said(Towers, example=PAIR)
    assert "last: what it puts out is multiplied by another activation and summed over" in text
    assert "factors={r'^last$': 'width^-1'}" in text and "factors={r'^last$': None}" in text
    assert said(Towers, example=PAIR, factors={r"^last$": "width^-1"}) == ""
    assert said(Towers, example=PAIR, factors={r"^last$": None}) == ""

    def biased(width):  # whose bias a factor on what goes in would pass over
        return Towers(width, biased=True)

    assert "factors={r'^item$': 'width^-1'}" in said(biased, example=PAIR)
    assert said(biased, example=PAIR, factors={r"^item$": "width^-1"}) == ""


@pytest.mark.parametrize("option", ["normed", "divided"])
def test_cosines_and_products_that_the_code_divides_are_right_as_they_are(option):
    assert said(lambda width: Towers(width, **{option: True}), example=PAIR) == ""


def test_the_suggested_factor_makes_a_dot_product_flat_in_width():
    """The change of the output in three steps of AdamW grows without it and stays with it."""
    torch.manual_seed(0)
    user, item = torch.arange(64) % 5, torch.arange(64) % 6
    target = torch.randn(5, 6)[user, item]

    def change(width, factors):
        torch.manual_seed(0)
        model = Towers(width)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plan = paramz.parametrize_(
                model, "mup", base=Towers, base_width=32, factors=factors, example=PAIR
            )
        optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=2**-7))
        before = model(user, item).detach()
        for _ in range(3):
            F.mse_loss(model(user, item), target).backward()
            optimizer.step(), optimizer.zero_grad()
        return (model(user, item) - before).pow(2).mean().sqrt().item()

    with_it, without = ([change(w, f) for w in (32, 512)] for f in ({r"^last$": "width^-1"}, {}))
    assert 0.5 < with_it[1] / with_it[0] < 2 < 3 < without[1] / without[0]


class Computed(nn.Module):
    """A matrix of width by width that another layer puts out, as a hypernetwork's."""

    def __init__(self, width, after="plain"):
        super().__init__()
        self.first, self.hyper = nn.Linear(5, width, bias=False), nn.Linear(7, width * width)
        self.head, self.after = nn.Linear(width, 3), after

    def forward(self, x, z):
        weight = self.hyper(z).unflatten(-1, (self.first.out_features, -1))
        h = self.first(x) @ weight
        if self.after == "divided":
            h = h * (16 / len(weight))
        elif self.after == "normed":
            h = F.layer_norm(h, h.shape[-1:])
        elif self.after == "ratio":
            h = h / (self.first(x) @ weight.abs())
        return self.head(h.tanh())


def test_a_product_of_matrices_of_the_model_itself_is_named_in_words():
    class Biaffine(nn.Module):
        def __init__(self, width=16):
            super().__init__()
            self.first, self.second = nn.Linear(3, width), nn.Linear(3, width)
            self.weight = nn.Parameter(torch.randn(width, width) / width)

        def forward(self, x):
            return self.first(x) @ self.weight @ self.second(x).transpose(-1, -2)

    text = said(Biaffine, example=torch.zeros(2, 4, 3))
    assert text.startswith("a matrix of the model itself: what it puts out is multiplied by")


GIVEN = {"x": torch.zeros(2, 5), "z": torch.zeros(7)}


def test_a_computed_weight_is_a_warning_and_not_where_the_code_keeps_its_product_in_size():
    text = said(Computed, example=GIVEN)
    assert text.startswith(
        "first: what it puts out is multiplied by another activation and summed over an axis that "
        "grows: it grows like width^1/2 as drawn and like width while it is trained. Divide it in "
        "the code by the length of that axis over its length in the base."
    )
    assert said(Computed, example=GIVEN, factors={r"^first$": None}) == ""
    for after in ("divided", "normed", "ratio"):
        assert said(lambda width, after=after: Computed(width, after), example=GIVEN) == ""


class Kernels(nn.Module):
    """A convolution whose kernel depends on its input, as in CondConv and StyleGAN."""

    def __init__(self, width, kind="mixed"):
        super().__init__()
        self.kind, self.width = kind, width
        self.first, self.inner = nn.Conv2d(3, width, 1), nn.Conv2d(width, width, 1)
        self.style, self.head = nn.Linear(3, 4 if kind == "mixed" else width), nn.Linear(width, 3)
        stack = {"mixed": (4, width, width, 3, 3), "modulated": (1, width, width, 3, 3)}
        if kind in stack:
            self.stack = nn.Parameter(torch.randn(stack[kind]) / (3 * width**0.5))

    def forward(self, x):
        h, style = self.inner(self.first(x).relu()).relu(), self.style(x.mean((2, 3)))
        groups = len(x)
        if self.kind == "mixed":
            kernel = style.softmax(-1) @ self.stack.flatten(1)
        elif self.kind == "modulated":
            kernel = self.stack * style[:, None, :, None, None]
        else:  # one filter for each channel
            kernel = style[..., None] * torch.ones(9)
            groups = len(x) * self.width
        kernel = kernel.reshape(len(x) * self.width, -1, 3, 3)
        h = F.conv2d(h.reshape(1, -1, *h.shape[2:]), kernel, padding=1, groups=groups)
        return self.head(h.view(len(x), self.width, -1).relu().mean(-1))


@pytest.mark.parametrize(
    ("kind", "told"), [("mixed", True), ("modulated", False), ("filters", False)]
)
def test_a_kernel_that_data_makes_is_told_unless_a_matrix_has_a_rule_for_its_sum(kind, told):
    given = (
        {"roles": {"stack": paramz.Axes(fan_in=(2,), fan_out=(1,))}} if kind == "modulated" else {}
    )
    text = said(lambda width: Kernels(width, kind), example=torch.zeros(2, 3, 5, 5), **given)
    told_of = "inner: what it puts out is multiplied by another activation and summed over an axis"
    assert told_of in text if told else text == ""


def test_what_a_computed_weight_makes_grows_unless_it_is_divided():
    def size(width, after):
        torch.manual_seed(0)
        model = Computed(width, after)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            paramz.parametrize_(
                model, "mup", base=lambda w: Computed(w, after), base_width=16, example=GIVEN
            )
        model.head = nn.Identity()
        h = model(torch.randn(64, 5) / 16, torch.randn(7))  # small, so that tanh leaves it alone
        return h.square().mean().sqrt()

    assert size(256, "plain") / size(16, "plain") > 2
    assert size(256, "divided") / size(16, "divided") < 1


class Bare(nn.Module):
    """Attention without a layer; it keeps its factor in an attribute all the same."""

    def __init__(self, width):
        super().__init__()
        self.table = nn.Parameter(torch.randn(7, width))
        self.maps = nn.Parameter(torch.randn(3, width, 4, width // 4))
        self.out = nn.Parameter(torch.randn(width, 7))
        self.scale = (width // 4) ** -0.5

    def forward(self, ids):
        x = self.table[ids]
        q, k, v = torch.einsum("btd,ndhk->nbhtk", x, self.maps)
        logits = torch.einsum("bhtk,bhsk->bhts", q, k) * self.scale
        return torch.einsum("bhts,bhsk->bthk", logits.softmax(-1), v).flatten(2) @ self.out


def test_attention_that_only_a_run_shows_has_its_factor_set():
    ids = torch.zeros(2, 4, dtype=torch.long)
    plan = paramz.make_plan(Bare(64), "mup", base=Bare, base_width=16, example=ids)
    (scale,) = plan.attention
    assert (scale.attribute, scale.plain, scale.value) == ("scale", 0.25, 0.125)  # 1/d_head
    assert said(Bare, example=ids) == ""
    assert [row.role for row in plan.rows] == ["input", "hidden", "output"]


def test_weights_that_tokens_choose_from_a_table_are_found_in_models_of_transformers():
    """Doge's experts are rows of tables in its blocks: a row times a token sums over width."""
    from transformers import DogeConfig, DogeForCausalLM

    def build(width):
        return DogeForCausalLM(
            DogeConfig(
                hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
                num_attention_heads=width // 8, num_key_value_heads=width // 8, vocab_size=40,
                is_moe=True, num_experts=4, num_experts_per_tok=2, max_position_embeddings=32,
            )
        )  # fmt: skip

    text = said(build)
    table = "layers[.][0-9]+[.]mlp[.]down_embed$"
    assert text.startswith("model.layers.0.mlp.down_embed: what it puts out is multiplied by")
    assert f"let factors={{r'^model[.]{table}': 'width^-1'}} do it" in text
    assert said(build, factors={rf"^model[.]{table}": "width^-1"}) == ""


class Cosine(nn.Module):
    """Attention on cosines, with a factor that stays, as x-transformers' qk_norm_scale."""

    def __init__(self, width=16):
        super().__init__()
        self.heads, self.scale = 2, 10.0
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, 5)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in self.to_qkv(x).chunk(3, -1))
        q, k = (F.normalize(t, dim=-1).transpose(1, 2) for t in (q, k))
        weights = (q * self.scale @ k.transpose(-1, -2)).softmax(-1)
        return self.to_out((weights @ v.transpose(1, 2)).transpose(1, 2).flatten(2))


def test_a_constant_factor_on_cosines_stays():
    build = lambda width=16: nn.Sequential(nn.Linear(3, width), Cosine(width))  # noqa: E731
    model = build(64)
    plan = paramz.parametrize_(model, "mup", base=build)
    assert (model[1].scale, plan.notes) == (10.0, ())


OF_WIDTH = {
    "sum": lambda h, g: h.sum(-1),
    "sum of everything": lambda h, g: h.sum(),
    "sum of squares": lambda h, g: h.pow(2).sum(-1),
    "length": lambda h, g: h.norm(dim=-1),
    "distance": lambda h, g: (h - g).norm(dim=-1),
    "distances": torch.cdist,
    "its own products": lambda h, g: h @ h.T,
    "products": lambda h, g: h @ g.T,
    "log probabilities of products": lambda h, g: (h @ g.T).log_softmax(-1),
    "a logit of it": lambda h, g: (0.1 * h.sum(-1)).sigmoid(),
    "a sum that is added in place": lambda h, g: g.mean(-1).add_(h.sum(-1)),
}
SETTLED = {
    "mean": lambda h, g: h.mean(-1),
    "sum / d": lambda h, g: h.sum(-1) / h.shape[-1],
    "length / d^1/2": lambda h, g: h.norm(dim=-1) * h.shape[-1] ** -0.5,
    "sum over the batch": lambda h, g: (h.sum(0) * g).mean(-1),
    "cosine": lambda h, g: F.cosine_similarity(h, g, dim=-1),
    "norm by hand": lambda h, g: (h / (h.pow(2).sum(-1, keepdim=True)).sqrt() * g).mean(-1),
}


class Ending(nn.Module):
    """No readout: code makes the output of two activations."""

    def __init__(self, width, how):
        super().__init__()
        self.a, self.b, self.how = nn.Linear(3, width), nn.Linear(3, width), how

    def forward(self, x):
        return self.how(self.a(x).relu(), self.b(x).relu())


@pytest.mark.parametrize("name", OF_WIDTH)
def test_an_output_that_is_a_sum_over_width_is_warned_of(name):
    text = said(lambda width: Ending(width, OF_WIDTH[name]), example=torch.randn(4, 3))
    assert "over an axis that grows" in text and "and that is the model's output" in text
    spoken = {"factors": {"^a$": None}}
    kept = said(lambda width: Ending(width, OF_WIDTH[name]), example=torch.randn(4, 3), **spoken)
    assert "axis that grows" not in kept


class Beside(nn.Module):
    """What a sum over width makes goes on into a layer, as a feature beside others."""

    def __init__(self, width, how):
        super().__init__()
        self.a, self.weights = nn.Linear(3, width), nn.Parameter(torch.ones(width))
        self.next, self.last, self.how = nn.Linear(1, width), nn.Linear(width, 2), how

    def forward(self, x):
        h = self.a(x).relu()
        return self.last(h + self.next(self.how(h, self.weights)[:, None]).relu())


INSIDE = {
    "sum": (lambda h, w: h.sum(-1), True),
    "length": (lambda h, w: h.norm(dim=-1), True),
    "mean": (lambda h, w: h.mean(-1), False),
    "weighed by parameters": (lambda h, w: (h * w).sum(-1), False),
    "a choice by it": (lambda h, w: w[h.sum(-1, keepdim=True).expand(4, 9).argmin(-1)], False),
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_sum_over_width_that_a_layer_takes_is_warned_of(name):
    how, grows = INSIDE[name]
    text = said(lambda width: Beside(width, how), example=torch.randn(4, 3))
    assert ("a: what it puts out is summed over an axis that grows" in text) == grows
    assert "the model's output" not in text


class Gated(nn.Module):
    """A sum over width multiplies what is there, or opens a gate, before the next layer."""

    def __init__(self, width, how):
        super().__init__()
        self.a, self.last, self.how = nn.Linear(3, width), nn.Linear(width, 2), how

    def forward(self, x):
        return self.last(self.how(self.a(x).relu()))


def _sum(h):
    return h.sum(-1, keepdim=True)


GATES = {
    "a gate": (lambda h: h * _sum(h).sigmoid(), True),
    "a gate by its length": (lambda h: h * h.norm(dim=-1, keepdim=True).tanh(), True),
    "a product": (lambda h: h * _sum(h), True),
    "a score of rows": (lambda h: _sum(h).softmax(0).T @ h, True),
    "a kernel": (lambda h: h * (-_sum(h * h)).exp(), True),
    "a gate by the mean": (lambda h: h * h.mean(-1, keepdim=True).sigmoid(), False),
    "a gate by a sum that is divided": (lambda h: h * (_sum(h) / h.shape[-1]).sigmoid(), False),
    "shares": (lambda h: h.exp() / _sum(h.exp()), False),
    "shares by logarithms": (lambda h: (h - _sum(h.exp()).log()).exp(), False),
    "shares by an inverse": (lambda h: h.exp() * (1 / _sum(h.exp())), False),
    "a norm by a power": (lambda h: h * _sum(h * h).add(1e-6).pow(-0.5), False),
    "squashed": (lambda h: h * (_sum(h * h) / (1 + _sum(h * h))), False),
    "a mask": (lambda h: h * (_sum(h) > 0).float(), False),
    "a product that a norm takes": (lambda h: F.layer_norm(h * _sum(h), h.shape[-1:]), False),
}


@pytest.mark.parametrize("name", GATES)
def test_a_sum_over_width_in_a_gate_or_a_product_is_warned_of(name):
    how, grows = GATES[name]
    text = said(lambda width: Gated(width, how), example=torch.randn(4, 3))
    assert ("a: what it puts out is summed over an axis that grows" in text) == grows


def test_a_readout_that_is_written_as_a_sum_of_products_is_a_readout():
    class Written(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.a, self.weights = nn.Linear(3, width), nn.Parameter(torch.ones(width))

        def forward(self, x):
            return (self.a(x).relu() * self.weights).sum(-1)

    assert said(Written, example=torch.randn(4, 3)) == ""
    plan = paramz.make_plan(
        Written(64), "mup", base=Written, base_width=16, example=torch.randn(4, 3)
    )
    assert {row.name: row.role for row in plan.rows}["weights"] == "output"


@pytest.mark.parametrize("name", SETTLED)
def test_an_output_that_keeps_its_size_is_not(name):
    assert "axis that grows" not in said(
        lambda width: Ending(width, SETTLED[name]), example=torch.randn(4, 3)
    )


def test_the_warning_of_a_sum_is_what_the_output_does():
    changes = []
    for width in (32, 512):
        torch.manual_seed(0)
        model, x = Ending(width, OF_WIDTH["sum"]), torch.randn(16, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plan = paramz.parametrize_(
                model, "mup", base=lambda w: Ending(w, OF_WIDTH["sum"]), base_width=32, example=x
            )
        optimizer = torch.optim.Adam(plan.param_groups(model, torch.optim.Adam, lr=1e-3))
        before = model(x)
        before.mean().backward()
        optimizer.step()
        changes.append((model(x) - before).detach().abs().mean())
    assert 12 < changes[1] / changes[0] < 20  # 16 times the width


class LinearAttention(nn.Module):
    """Queries and keys have a softmax of their own, as in diffusion U-Nets."""

    def __init__(self, width, written=False):
        super().__init__()
        self.n, self.written = 4, written
        if not written:
            self.scale = (width // 4) ** -0.5
        self.maps = nn.ModuleDict({"to_qkv": nn.Linear(width, 3 * width, bias=False)})
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, x):
        q, k, v = (
            t.unflatten(-1, (self.n, -1)).transpose(1, 2)
            for t in self.maps["to_qkv"](x).chunk(3, -1)
        )
        q = q.softmax(-1) * (q.shape[-1] ** -0.5 if self.written else self.scale)
        return self.to_out((q @ (k.softmax(-2).mT @ v)).transpose(1, 2).flatten(2))


def linear_attention(width, written=False):
    return nn.Sequential(
        nn.Embedding(7, width), LinearAttention(width, written), nn.Linear(width, 7)
    )


def test_a_factor_on_what_a_softmax_of_queries_averages_is_held():
    sizes = []
    for width in (64, 1024):
        model = linear_attention(width)
        paramz.parametrize_(model, "mup", base=linear_attention, base_width=64)
        assert model[1].scale == pytest.approx(16**-0.5)
        sizes.append(model[1](model[0](torch.arange(6)[None])).std())
    assert 0.7 < sizes[1] / sizes[0] < 1.4  # 1/16 with the scale of logits
    assert "axis that grows" not in said(linear_attention)


def test_such_a_factor_in_forward_code_is_warned_of():
    text = said(lambda width: linear_attention(width, written=True))
    assert "averaged with a softmax over an axis that grows, and multiplied by a number" in text
