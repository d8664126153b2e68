"""Factors in forward code that no attribute shows: seen by a run, held at the base's value."""

import math
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz

BASE, WIDTH = 16, 64
IDS = torch.arange(8).reshape(2, 4)


class Net(nn.Module):
    """A small model with factors of width in its code, at one place each."""

    def __init__(self, width=BASE, where=""):
        super().__init__()
        self.width, self.where = width, where
        self.tokens, self.positions = nn.Embedding(11, width), nn.Embedding(4, width)
        self.mix, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.head = nn.Linear(width, 11, bias=False)

    def forward(self, ids):
        x, where = self.tokens(ids), self.where
        if where == "tokens":
            x = x * math.sqrt(self.width)
        places = self.positions.weight if where == "bare" else self.positions(torch.arange(4))
        x = x + (places * self.width**-0.5 if where in ("positions", "bare") else places)
        hidden = self.norm(x + self.mix(x).relu() * 0.5)
        if where == "before":
            return self.head(hidden / self.width**0.5)
        if where == "functional":
            return F.linear(hidden, self.tokens.weight) / self.width
        logits = self.head(hidden)
        return self.width**-0.5 * logits if where == "logits" else logits


def planned(where, scheme="mup", **options):
    def build(width=BASE):
        return Net(width, where)

    torch.manual_seed(0)
    model = build(WIDTH)
    return model, paramz.parametrize_(model, scheme, base=build, **options)


HELD = {
    "tokens": ("tokens", 0.5), "positions": ("positions", 2.0), "logits": ("head", 2.0),
    "before": ("head", 2.0),
}  # fmt: skip


@pytest.mark.parametrize("where", HELD)
def test_a_factor_of_width_is_held_at_the_bases_value(where):
    module, factor = HELD[where]
    model, plan = planned(where)
    assert plan.multipliers == {module: pytest.approx(factor)}
    (note,) = plan.notes
    assert "held at the base's value" in note
    assert f"factors={{r'^{module}$': None}}" in note
    assert f"{module}: input times {factor:.4g}" in str(plan.summary())
    with torch.no_grad():
        constant = Net(WIDTH, "")  # the same weights with the base's factor in place of the width's
        constant.load_state_dict(model.state_dict())
        constant.where, constant.width = where, BASE
        assert torch.allclose(model(IDS), constant(IDS), atol=1e-6)


class Times(nn.Module):
    """Its table times a number, as the code makes it."""

    def __init__(self, width, make):
        super().__init__()
        self.width, self.make = width, make
        self.tokens, self.head = nn.Embedding(5, width), nn.Linear(width, 5)

    def forward(self, ids):
        x = self.tokens(ids)
        number = self.make(self, x)
        first, _ = x.mean().reshape(1).expand(2).split(1)  # what is computed is no constant
        return self.head((x * number * first).relu())


@pytest.mark.parametrize(
    ("make", "held"),
    [
        (lambda m, x: torch.tensor(m.width**0.5, dtype=x.dtype), 0.5),
        (lambda m, x: torch.tensor(m.width).sqrt().to(x.device), 0.5),
        (lambda m, x: torch.full((1,), m.width**0.5), 0.5),
        (lambda m, x: torch.full((), 3.0), None),
        (lambda m, x: x.sum(), None),
    ],
)
@pytest.mark.parametrize("meta", [True, False])
def test_numbers_that_are_tensors(make, held, meta):
    model = Times(WIDTH, make)
    base = (lambda width: Times(width, make)) if meta else Times(BASE, make)
    options = {"base_width": BASE} if meta else {"wider": Times(2 * BASE, make)}
    plan = paramz.parametrize_(model, "mup", base=base, **options)
    assert plan.multipliers == ({} if held is None else {"tokens": pytest.approx(held)})


@pytest.mark.parametrize("where", HELD)
def test_the_factor_folds_into_the_layer(where):
    model, _ = planned(where)
    before = model(IDS)
    paramz.fold_(model)
    assert torch.allclose(model(IDS), before, atol=1e-6)


@pytest.mark.parametrize("where", HELD)
def test_a_user_can_refuse_and_plain_schemes_leave_it(where):
    module, _ = HELD[where]
    _, plan = planned(where, factors={f"^{module}$": None})
    assert (dict(plan.multipliers), plan.notes) == ({}, ())
    assert planned(where, "sp")[1].multipliers == {}


def test_a_model_without_such_factors_has_no_note():
    _, plan = planned("")
    assert (dict(plan.multipliers), plan.notes) == ({}, ())


def test_a_readout_without_a_layer_is_named_with_a_way_out():
    _, plan = planned("functional")
    (note,) = plan.notes
    assert note.startswith(
        "forward code multiplies the logits of tokens by 0.0625 in the base and by width^-1, and "
        "there is no layer of its own to hold it at. Let the code use a number that stays, or call"
    )


def tied(gain):
    def build(width=BASE):
        model = Net(width, "tokens")
        model.head.weight = model.tokens.weight
        if not gain:
            model.norm = nn.LayerNorm(width, elementwise_affine=False)
        return model

    return build


def test_a_factor_on_a_tied_table_folds_into_the_table_and_the_gain_before_the_readout():
    model = tied(gain=True)(WIDTH)
    plan = paramz.parametrize_(model, "mup", base=tied(gain=True))
    assert plan.multipliers["tokens"] == pytest.approx(0.5)
    before = model(IDS)
    paramz.fold_(model)
    plain = tied(gain=True)(WIDTH)
    plain.load_state_dict(model.state_dict())
    assert plain.head.weight is plain.tokens.weight
    assert torch.allclose(plain(IDS), before, atol=1e-6)


def test_a_factor_on_a_tied_table_is_refused_by_fold_where_no_gain_can_take_it():
    model = tied(gain=False)(WIDTH)
    paramz.parametrize_(model, "mup", base=tied(gain=False))
    before = model(IDS)
    with pytest.raises(ValueError, match="head shares tokens.weight .* finds no norm with a gain"):
        paramz.fold_(model)
    assert torch.equal(model(IDS), before)


def test_at_the_base_nothing_is_hooked():
    model = Net(BASE, "tokens")
    plan = paramz.parametrize_(model, "mup", base=lambda w=BASE: Net(w, "tokens"))
    assert plan.multipliers == {}


def test_the_embedding_does_not_drown_the_rest_as_width_grows():
    def size(scheme, width):
        torch.manual_seed(0)
        model = Net(width, "tokens")
        paramz.parametrize_(model, scheme, base=lambda w=BASE: Net(w, "tokens"))
        seen = []
        model.mix.register_forward_pre_hook(lambda _, args: seen.append(args[0].std().item()))
        model(IDS)
        return seen[0]

    def slope(scheme):
        return math.log2(size(scheme, 256) / size(scheme, 16)) / 4

    assert abs(slope("mup")) < 0.05
    assert slope("sp") > 0.3


def test_a_large_model_on_meta_is_run_as_well():
    from transformers import BartConfig, BartForConditionalGeneration, LlamaConfig, LlamaForCausalLM

    from paramz.anatomy.probes import build_probes
    from paramz.anatomy.written import find_written

    sizes = {"vocab_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4}
    llama = LlamaConfig(hidden_size=64, intermediate_size=64, num_key_value_heads=4, **sizes)
    halves = {"encoder_layers": 1, "decoder_layers": 1, "decoder_attention_heads": 4}
    bart = BartConfig(d_model=64, scale_embedding=True, **halves, **sizes)
    for kind, config, found in (
        (LlamaForCausalLM, llama, set()),
        (BartForConditionalGeneration, bart, {("model.shared", "embedding")}),
    ):
        with torch.device("meta"):
            model = kind(config)
        written = find_written(model, build_probes(model, 32, measure=False))
        assert {(each.module, each.place) for each in written} == found


class Rows(nn.Module):
    """Numbers in, no embedding; ``where`` says what its code multiplies by a power of the width."""

    def __init__(self, width=BASE, where="", bias=False):
        super().__init__()
        self.width, self.where = width, where
        self.into, self.mix = nn.Linear(5, width, bias=bias), nn.Linear(width, width, bias=bias)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 3, bias=False)

    def forward(self, x):
        where = self.where
        x = self.into(x) * (self.width**0.5 if where == "into" else 1)
        x = x + (self.mix(x) / (self.width**0.5 if where == "mix" else 1)).relu()
        logits = self.head(self.norm(x))
        return logits / self.width if where == "head" else logits


class Equalised(nn.Linear):
    """The weight is drawn with std 1 and multiplied by fan_in^-1/2, kept in ``gain`` if asked."""

    def __init__(self, n, m, kept=False):
        super().__init__(n, m)
        nn.init.normal_(self.weight)
        self.gain = n**-0.5 if kept else None

    def forward(self, x):
        return F.linear(x, self.weight * (self.gain or self.in_features**-0.5), self.bias)


def rows(where, bias=False):
    return lambda width=BASE: Rows(width, where, bias)


def equalised(kept=False):
    return lambda width=BASE: nn.Sequential(
        Equalised(5, width, kept), nn.ReLU(), Equalised(width, width, kept), nn.ReLU(),
        Equalised(width, 3, kept),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("build", "held"),
    [
        (rows("into"), {"into": 0.5}),
        (rows("mix"), {"mix": 2.0}),
        (rows("head"), {"head": 4.0}),
        (equalised(), {"2": 2.0, "4": 2.0}),
        (equalised(kept=True), {"2": 2.0, "4": 2.0}),
    ],
    ids=["first layer", "inside", "readout", "weights", "weights by an attribute"],
)
def test_factors_on_layers_and_weights_are_held_without_any_embedding(build, held):
    torch.manual_seed(0)
    plan = paramz.parametrize_(build(WIDTH), "mup", base=build)
    assert plan.multipliers == {module: pytest.approx(factor) for module, factor in held.items()}
    assert len(plan.notes) == len(held)
    left = {rf"^{module}$": None for module in held}
    assert paramz.make_plan(build(WIDTH), "mup", base=build, factors=left).multipliers == {}
    assert paramz.make_plan(build(WIDTH), "sp", base=build).multipliers == {}


@pytest.mark.parametrize("kept", [False, True])
def test_an_equalised_learning_rate_is_that_of_the_base(kept):
    torch.manual_seed(0)
    model, x = equalised(kept)(WIDTH), torch.randn(8, 5)
    paramz.parametrize_(model, "mup", base=equalised(kept))
    plain = x
    for i, gain in ((0, 5), (2, BASE), (4, BASE)):
        plain = plain.relu() if i else plain
        plain = F.linear(plain, model[i].weight * gain**-0.5, model[i].bias)
    with torch.no_grad():
        assert torch.allclose(model(x), plain, atol=1e-5)


def test_what_a_bias_keeps_from_being_held_is_a_warning():
    build = rows("into", bias=True)
    with pytest.warns(UserWarning, match="because the layer has a bias, which it multiplies, too"):
        paramz.make_plan(build(WIDTH), "mup", base=build)
    paramz.make_plan(build(WIDTH), "mup", base=build, factors={r"^into$": None})


class Own(nn.Module):
    """A layer of a user's own with the number in an attribute."""

    def __init__(self, n, m):
        super().__init__()
        self.weight, self.c = nn.Parameter(torch.randn(m, n)), n**-0.5

    def forward(self, x):
        return x @ (self.weight * self.c).T


def test_a_layer_of_another_class_is_warned_of_and_the_suggestion_holds_its_number():
    def build(width=BASE):
        return nn.Sequential(nn.Linear(5, width), Own(width, width), nn.Linear(width, 3))

    roles = {r"1[.]weight": paramz.Axes(fan_in=(1,), fan_out=(0,))}
    suggestion = r"factors={r'^1[.]c$': 'constant'} holds 1.c at the base's value"
    with pytest.warns(UserWarning) as caught:
        paramz.make_plan(build(WIDTH), "mup", base=build, roles=roles)
    assert suggestion in str(caught[0].message)
    model, factors = build(WIDTH), {r"^1[.]c$": "constant"}
    plan = paramz.parametrize_(model, "mup", base=build, roles=roles, factors=factors)
    assert model[1].c == BASE**-0.5 and plan.notes == ()


class Standardised(nn.Conv2d):
    """A convolution of NFNets: the factor follows a weight whose mean and std are taken out."""

    def __init__(self, n, m):
        super().__init__(n, m, 3, padding=1, bias=False)
        self.gain, self.scale = nn.Parameter(torch.ones(m, 1, 1, 1)), (9 * n) ** -0.5

    def forward(self, x):
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True).reshape_as(self.weight)
        return F.conv2d(x, weight * (self.gain * self.scale), padding=1)


def test_the_factor_of_a_standardised_weight_stays_and_is_not_offered_as_a_constant():
    def build(width=BASE):
        return nn.Sequential(
            nn.Conv2d(3, width, 1), Standardised(width, width), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(width, 3),
        )  # fmt: skip

    model = build(WIDTH)
    plan = paramz.parametrize_(model, "mup", base=build)
    (note,) = plan.notes
    assert "right where it follows a weight that is standardised" in note
    assert model[1].scale == (9 * WIDTH) ** -0.5 and plan.multipliers == {}


class Normed(nn.Module):
    """A norm written by hand before the readout, as lucidrains' and others write it."""

    def __init__(self, width=BASE, how=""):
        super().__init__()
        self.how, self.width = how, width
        self.tokens, self.mix = nn.Embedding(11, width), nn.Linear(width, width)
        self.gain = nn.Parameter(torch.ones(width))
        self.head = nn.Linear(width, 11)

    def norm(self, x):
        root, length = self.width**0.5, x.norm(dim=-1, keepdim=True)
        squares = (x**2).sum(-1, keepdim=True)
        return {
            "normalize": lambda: F.normalize(x, dim=-1) * root * self.gain,
            "gain first": lambda: F.normalize(x, dim=-1) * self.gain * root,
            "length": lambda: x / (length * root**-1).clamp(min=1e-8) * self.gain,
            "linalg": lambda: x * (root / torch.linalg.vector_norm(x, dim=-1, keepdim=True)),
            "squares": lambda: x * torch.rsqrt(squares + 1e-6) * root,
            "mean": lambda: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
            "sizes": lambda: x / x.abs().mean(-1, keepdim=True),
            "all sizes": lambda: x / x.abs().sum(-1, keepdim=True) * self.width,
            "largest": lambda: x / x.abs().amax(-1, keepdim=True),
            "largest, normalize": lambda: F.normalize(x, p=float("inf"), dim=-1),
            "softmax": lambda: x.softmax(-1) * self.width,
            "unit": lambda: F.normalize(x, dim=-1),
            "sum of sizes": lambda: x / x.abs().sum(-1, keepdim=True),
            "sum of sizes, normalize": lambda: F.normalize(x, 1, -1),
            "sum of sizes, norm": lambda: x / x.norm(p=1, dim=-1, keepdim=True),
            "softmax alone": lambda: x.softmax(-1),
            "smaller": lambda: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)) / root,
        }[self.how]()

    def forward(self, ids):
        x = self.tokens(ids)
        return self.head(self.norm(x + torch.relu(self.mix(x))))


@pytest.mark.parametrize(
    ("how", "held"),
    [(how, 1) for how in ("normalize", "gain first", "length", "linalg", "squares", "mean")]
    + [(how, 1) for how in ("sizes", "all sizes", "largest", "largest, normalize", "softmax")]
    + [("unit", 2), ("smaller", 2)]
    + [("sum of sizes" + how, 4) for how in ("", ", normalize", ", norm")]
    + [("softmax alone", 4)],
)
def test_a_norm_written_in_parts_is_no_factor_and_a_length_of_one_is(how, held):
    build = lambda width=BASE: Normed(width, how)  # noqa: E731
    plan = paramz.parametrize_(build(WIDTH), "mup", base=build)
    assert plan.multipliers.get("head", 1) == pytest.approx(held)


class Added(nn.Module):
    """A factor of width on what is added before the readout, or on logits that a softmax takes."""

    def __init__(self, width=BASE, softmax=False):
        super().__init__()
        self.width, self.softmax = width, softmax
        self.tokens, self.head = nn.Embedding(11, width), nn.Linear(width, 11)
        self.places, self.keys = nn.Parameter(torch.ones(4, 1)), nn.Linear(width, 4)

    def forward(self, ids):
        x = self.tokens(ids)
        if not self.softmax:
            return self.head(x + self.places * self.width**-0.5)
        weights = (self.keys(x) * self.width**-0.5 + self.keys(x)).softmax(-1)
        return self.head(weights @ x)


@pytest.mark.parametrize("softmax", [False, True])
def test_a_factor_on_one_of_two_that_are_added_is_none_of_the_logits(softmax):
    build = lambda width=BASE: Added(width, softmax)  # noqa: E731
    plan = paramz.parametrize_(build(WIDTH), "mup", base=build)
    assert (dict(plan.multipliers), plan.notes) == ({}, ())


class OnSphere(nn.Module):
    """Vectors of length one go into a hidden layer, as in nGPT; code may make up for it."""

    def __init__(self, width=BASE, behind=True):
        super().__init__()
        self.tokens, self.mix = nn.Embedding(11, width), nn.Linear(width, width)
        self.size, self.gain = width**0.5 if behind else 1.0, nn.Parameter(torch.ones(width))
        self.head = nn.Linear(width, 11)

    def forward(self, ids):
        self.mixed = self.mix(F.normalize(self.tokens(ids), dim=-1)) * self.gain * self.size
        return self.head(self.mixed.relu())


@pytest.mark.parametrize("behind", [True, False])
def test_what_a_vector_of_length_one_makes_keeps_its_size_in_a_hidden_layer(behind):
    build = lambda width=BASE: OnSphere(width, behind)  # noqa: E731
    sizes = []
    for width in (BASE, 16 * BASE):
        model = build(width)
        nn.init.zeros_(model.mix.bias)
        plan = paramz.parametrize_(model, "mup", base=build)
        model(torch.arange(11)[None])
        sizes.append(model.mixed.std())
    assert plan.multipliers == ({} if behind else {"mix": pytest.approx(4)})
    assert 0.7 < sizes[1] / sizes[0] < 1.4


class Scaled(nn.Module):
    """Blocks with a number of width behind their first layer; the first block may be without it."""

    def __init__(self, width=BASE, layers=3, first=True):
        super().__init__()
        self.width, self.plain = width, () if first else (0,)
        self.tokens, self.head = nn.Embedding(11, width), nn.Linear(width, 11)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {"up": nn.Linear(width, width, bias=False), "down": nn.Linear(width, width)}
            )
            for _ in range(layers)
        )

    def forward(self, ids):
        x = self.tokens(ids)
        for n, block in enumerate(self.blocks):
            h = block["up"](F.layer_norm(x, (self.width,)))
            x = x + block["down"]((h if n in self.plain else h * self.width**-0.5).relu())
        return self.head(F.layer_norm(x, (self.width,)))


def test_a_number_in_repeated_blocks_is_held_in_all_of_them():
    """One block ran, and only there the number was held: the others' layers fell like d^-1/2."""
    plan = paramz.make_plan(Scaled(WIDTH), "mup", base=Scaled, base_width=BASE)
    growth = (WIDTH / BASE) ** 0.5
    assert plan.multipliers == {f"blocks.{n}.up": pytest.approx(growth) for n in range(3)}
    assert [r"blocks[.][0-9]+[.]up$" in note for note in plan.notes] == [True]


def test_of_blocks_only_those_that_have_a_number_of_width_are_held():
    build = partial(Scaled, first=False)
    plan = paramz.make_plan(build(WIDTH), "mup", base=build, base_width=BASE)
    assert set(plan.multipliers) == {"blocks.1.up", "blocks.2.up"}


def test_the_blocks_of_a_deeper_model_are_held_as_their_twins_are():
    build = partial(Scaled, layers=6)
    branches = paramz.Branches(inside=r"^(blocks[.][0-9]+)[.]", ends=r"^(blocks[.][0-9]+[.]down)$")
    plan = paramz.make_plan(
        build(WIDTH), "mup+completep", base=Scaled, base_width=BASE, branches=branches
    )
    assert set(plan.multipliers) >= {f"blocks.{n}.up" for n in range(6)}


class Product(nn.Module):
    """A product of two activations over width, or with a map that is computed, and a number."""

    def __init__(self, width=BASE, kind="einsum", *, before=False):
        super().__init__()
        self.kind, self.before, self.ratio = kind, before, width / BASE
        self.width, self.first = width, nn.Linear(5, width)
        self.maps, self.mix = nn.Linear(5, width * width), nn.Linear(width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        h, n = self.first(x).relu(), self.width
        h = h / self.ratio if self.before else h
        made = {
            "einsum": lambda: torch.einsum("bij,bj->bi", self.maps(x).view(-1, n, n), h),
            "bmm": lambda: torch.bmm(self.maps(x).view(-1, n, n), h[..., None])[..., 0],
            "sum": lambda: h * (h * self.mix(h)).sum(-1, keepdim=True),
            "computed": lambda: h @ self.maps(torch.ones(5)).view(n, n),
            "average": lambda: (h[:, None] * (self.mix(h).softmax(-1)[:, None] @ h[..., None])).sum(
                1
            ),
        }[self.kind]()
        made = made if self.before else made / self.ratio
        return self.head(made.relu())


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("kind", ["einsum", "bmm", "sum", "computed"])
def test_a_number_beside_a_sum_over_width_is_left_where_that_needs_it(kind, before):
    build = lambda width=BASE: Product(width, kind, before=before)  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = paramz.make_plan(build(WIDTH), "mup", base=build, example=torch.zeros(4, 5))
    assert not plan.multipliers
    assert not any("held at the base's value" in note for note in plan.notes)


def test_a_number_behind_an_average_over_width_is_held():
    build = partial(Product, kind="average")
    plan = paramz.make_plan(build(WIDTH), "mup", base=build, example=torch.zeros(4, 5))
    assert plan.multipliers == {"head": 4.0}


@pytest.mark.parametrize("way", ["power", "number first", "exponential", "phase"])
def test_a_number_in_the_frequencies_of_places_is_no_factor(way):
    """Of sines by hand, as diffusion models have them of time and Transformer-XL of distance."""

    class Timed(nn.Module):
        def __init__(self, width=BASE):
            super().__init__()
            self.width, self.first = width, nn.Linear(width, width)
            self.last = nn.Linear(width, 3)

        def forward(self, t):
            n = torch.arange(0, self.width, 2, device=t.device).float()
            angles = (
                t[:, None]
                * {
                    "power": lambda: 1 / 10000 ** (n / self.width),
                    "number first": lambda: torch.pow(10000, -(n / self.width)),
                    "exponential": lambda: (n * (-math.log(10000) / self.width)).exp(),
                    "phase": lambda: n / self.width,
                }[way]()
            )
            return self.last(self.first(torch.cat([angles.sin(), angles.cos()], -1)).relu())

    plan = paramz.make_plan(Timed(WIDTH), "mup", base=Timed, example=torch.rand(5))
    assert not plan.multipliers
    assert not plan.notes
