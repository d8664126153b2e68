"""Fused maps of which some rows stay while the others grow: where these lie, and what they get."""

import json
import warnings

import pytest
import torch
from torch import nn

import paramz
from paramz.check.labels import slices_shown


class Fused(nn.Module):
    """Queries of a growing number of heads beside one key and value head of eight, in one map."""

    def __init__(self, width, norm=None):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, width + 16), nn.Linear(width, width)
        self.norm = nn.Identity() if norm is None else norm(8)

    def forward(self, x):
        q, k, v = self.qkv(x).split([self.out.in_features, 8, 8], -1)
        return x + self.out(mixed(q, self.norm(k), v))


def mixed(q, k, v):
    scores = (q.unflatten(-1, (-1, 8)) @ k[..., None]).softmax(1)
    return (scores @ v[:, None]).flatten(1)


class FixedFirst(Fused):
    """The same, with the key and value in front and behind."""

    def forward(self, x):
        k, q, v = self.qkv(x).split([8, self.out.in_features, 8], -1)
        return x + self.out(mixed(q, k, v))


class ByIndex(Fused):
    """As in Falcon: heads are taken by lists of their numbers."""

    def forward(self, x):
        heads = self.qkv(x).view(len(x), -1, 8)
        q, k, v = heads[..., :-2, :], heads[..., [-2], :], heads[..., [-1], :]
        return x + self.out(mixed(q.flatten(1), k[:, 0], v[:, 0]))


class OfTheWeight(Fused):
    """The weight is cut, not what it makes."""

    def forward(self, x):
        parts = self.qkv.weight.split([self.out.in_features, 8, 8])
        return x + self.out(mixed(*(nn.functional.linear(x, part) for part in parts)))


class Grouped(Fused):
    """Two groups, each of growing queries and four rows that stay; these are used as one map."""

    def __init__(self, width):
        super().__init__(width)
        self.qkv = nn.Linear(width, width + 8)

    def forward(self, x):
        groups = self.qkv(x).unflatten(-1, (2, -1))
        q, kv = groups.split([groups.shape[-1] - 4, 4], -1)
        return x + self.out(mixed(q.flatten(1), kv.flatten(1), kv.flatten(1)))


class WrittenNorm(nn.Module):
    def __init__(self, size):
        super().__init__()

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Mixed(Fused):
    """No run shows which rows stay: all of them are used together."""

    def forward(self, x):
        made = self.qkv(x)
        return x + self.out(made.tanh().sum(-1, keepdim=True).expand(x.shape))


def net(kind, *more):
    return lambda width: nn.Sequential(nn.Linear(4, width), kind(width, *more), nn.Linear(width, 3))


def plan_of(build, width=64, base=16, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return paramz.make_plan(build(width), "mup", base=build, base_width=base, **options)


# Where the key and the value of eight rows lie, at width 64 with a base of 16.
KEY, VALUE = ((64, 72, 16),), ((72, 80, 24),)
BEHIND = [("inward", KEY), ("inward", VALUE)]
AROUND = [("inward", ((0, 8, 0),)), ("inward", VALUE)]


def layout(row):
    return [(part.role, part.spans) for part in row.slices]


def row_of(plan, name="1.qkv.weight"):
    return next(row for row in plan.rows if row.name == name)


@pytest.mark.parametrize(
    ("build", "slices"),
    [
        (net(Fused), BEHIND),
        (net(FixedFirst), AROUND),
        (net(ByIndex), BEHIND),
        (net(OfTheWeight), BEHIND),
        (net(Grouped), [("inward", ((32, 36, 8), (68, 72, 20)))]),
        (net(Fused, nn.LayerNorm), [("latent", KEY), ("inward", VALUE)]),
        (net(Fused, WrittenNorm), [("latent", KEY), ("inward", VALUE)]),
    ],
    ids=["split", "around", "by index", "of the weight", "grouped", "normed", "normed by hand"],
)
def test_a_run_shows_where_the_rows_that_stay_lie(build, slices):
    row = row_of(plan_of(build))
    assert (row.role, row.ratios) == ("hidden", {"fan_in": 4, "fan_out": 4})
    assert layout(row) == slices
    with torch.device("meta"):
        model = build(64)
    assert row_of(paramz.make_plan(model, "mup", base=build, base_width=16)) == row


class ByNumber(Fused):
    """Some blocks of the stack have the key and value around the queries."""

    def __init__(self, width, around):
        super().__init__(width)
        self.around = around

    def forward(self, x):
        return (FixedFirst if self.around else Fused).forward(self, x)


class Stack(nn.Module):
    def __init__(self, width, *around):
        super().__init__()
        self.embed, self.head = nn.Linear(4, width), nn.Linear(width, 3)
        self.blocks = nn.ModuleList(ByNumber(width, each) for each in around)

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_every_block_has_the_rows_of_its_own_layout():
    plan = plan_of(lambda width: Stack(width, False, False, True, False))
    found = [layout(row_of(plan, f"blocks.{n}.qkv.weight")) for n in range(4)]
    assert found == [BEHIND, BEHIND, AROUND, BEHIND]
    (note,) = plan.notes
    assert note.startswith(
        "blocks.0.qkv.weight ([64:72] inward, [72:80] inward), "
        "blocks.2.qkv.weight ([0:8] inward, [72:80] inward): several maps"
    )


def test_a_block_whose_twin_in_the_base_is_laid_out_otherwise_is_told():
    def build(width, *around):
        return Stack(width, *around)

    model = build(64, False, True, True, True)
    residual = paramz.Branches(inside=r"^(blocks[.][0-9]+)[.]", ends=r"^(blocks[.][0-9]+[.]out)$")
    plan = paramz.make_plan(
        model,
        "mup+completep",
        base=lambda width: build(width, False, True),
        base_width=16,
        branches=residual,
    )
    found = [layout(row_of(plan, f"blocks.{n}.qkv.weight")) for n in range(4)]
    # Blocks 0 and 1 have the base's block 0.
    assert found == [BEHIND, [("inward", ())], AROUND, AROUND]
    (note,) = (note for note in plan.notes if "No run shows which of its rows stay" in note)
    assert note.startswith("blocks.1.qkv.weight (axis 0")


def test_each_slice_starts_as_its_role_does():
    build = net(Fused, nn.LayerNorm)
    torch.manual_seed(0)
    plain = build(256)
    torch.manual_seed(0)
    model = build(256)
    plan = paramz.parametrize_(model, "mup", base=build, base_width=16)
    weight = model[1].qkv.weight
    q, k, v = (
        weight[rows] / plain[1].qkv.weight[rows]
        for rows in (slice(256), slice(256, 264), slice(264, 272))
    )
    # torch's own init falls like width^-1/2, as that of queries and normed keys is to.
    for part, factor in ((q, 1.0), (k, 1.0), (v, 16**-0.5)):
        torch.testing.assert_close(part, torch.full_like(part, factor), rtol=1e-5, atol=0)
    torch.testing.assert_close(model[1].qkv.bias, 4 * plain[1].qkv.bias)  # all rows alike
    text = str(plan.summary())
    assert "1.qkv.weight[256:264]  8x256    latent" in text
    assert "1.qkv.weight[264:272]  8x256    inward" in text
    summary = plan.summary()
    of_eps = {line[0]: line[summary.columns.index("eps")] for line in summary.cells}
    # The optimizer has one for the tensor, whatever the slice alone would want.
    assert of_eps["1.qkv.weight[264:272]"] == of_eps["1.qkv.weight"] == "fan_out^-1 = 0.0625"
    assert paramz.Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert paramz.parametrize_(model, "mup", base=build, base_width=16) == plan


def test_an_init_of_their_own_is_measured_for_the_rows_that_stay():
    """Values that the model's own code draws three times as large, at every width."""

    def build(width):
        model = net(Fused)(width)
        nn.init.normal_(model[1].qkv.weight, std=0.02)
        nn.init.normal_(model[1].qkv.weight[width + 8 :], std=0.06)
        return model

    model = build(256)
    plan = paramz.parametrize_(model, "mup", base=build, base_width=16)
    fresh = build(256).to("meta").to_empty(device="cpu")
    paramz.init_(fresh, plan)
    for weight in (model[1].qkv.weight, fresh[1].qkv.weight):
        assert float(weight[:256].detach().std()) == pytest.approx(0.02 / 4, rel=0.15)
        assert float(weight[256:264].detach().std()) == pytest.approx(0.02 / 16, rel=0.15)
        assert float(weight[264:].detach().std()) == pytest.approx(0.06 / 16, rel=0.15)


def test_nothing_changes_at_the_base():
    build = net(Fused)
    torch.manual_seed(0)
    plain = build(16)
    torch.manual_seed(0)
    model = build(16)
    plan = paramz.parametrize_(model, "mup", base=build, base_width=16)
    assert layout(row_of(plan)) == [("inward", ((16, 24, 16),)), ("inward", ((24, 32, 24),))]
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True)
    )
    assert len(plan.param_groups(model, "sgd", lr=0.1)) == 1


def test_where_no_run_tells_the_note_says_so():
    plan = plan_of(net(Mixed), factors={"^1$": None})
    (part,) = row_of(plan).slices
    assert (part.role, part.size, part.spans) == ("inward", 16, ())
    (note,) = plan.notes
    assert note.startswith(
        "1.qkv.weight (axis 0 is 32 in the base, of which 16 stay): several maps"
    )
    assert "No run shows which of its rows stay" in note


def test_one_tensor_has_one_rate():
    build = net(Fused)
    model = build(64)
    plan = paramz.parametrize_(model, "mup", base=build, base_width=16)
    rates = {n: g["lr"] for g in plan.param_groups(model, "adamw", lr=1.0) for n in g["names"]}
    assert rates["1.qkv.weight"] == 0.25
    for optimizer, stays, grows in (("sgd", "0.25", "1"), ("muon", "0.5", "1")):
        with pytest.raises(
            ValueError, match=r"1\.qkv\.weight \(80, 64\) is several maps"
        ) as refused:
            groups = plan.param_groups if optimizer == "sgd" else matrices(plan)
            groups(model, optimizer, lr=1.0)
        text = str(refused.value)
        assert f"want {stays} times the base's lr, and the others {grows} times" in text
    # What the error suggests, pasted.
    muon, rest = plan.split_groups(model, muon={"lr": 1.0}, adamw={"lr": 1.0})
    assert [n for group in muon for n in group["names"]] == ["1.out.weight"]
    assert "1.qkv.weight" in [n for group in rest for n in group["names"]]
    whole = plan_of(build, roles={"1[.]qkv[.]weight$": "hidden", "1[.]qkv[.]bias$": "vector"})
    assert all(row.slices == () for row in whole.rows)
    whole.param_groups(model, "sgd", lr=1.0)


def matrices(plan):
    """Groups of the fused map alone, as Muon takes no vectors."""
    from dataclasses import replace

    only = replace(plan, rows=tuple(row for row in plan.rows if row.name == "1.qkv.weight"))
    return lambda model, *args, **more: only.param_groups(
        nn.ModuleDict({"1": nn.ModuleDict({"qkv": bias_free(model[1].qkv)})}), *args, **more
    )


def bias_free(layer):
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False)
    plain.weight = layer.weight
    return plain


def test_slices_have_no_rule_over_the_density_of_masks():
    build = net(Fused)
    with pytest.raises(
        ValueError, match="no rule over density for the role of rows that stay, inward"
    ):
        paramz.make_plan(
            build(64), "mup+s-mup", base=build, base_width=16, densities={"1.qkv.weight": 0.5}
        )


class Skip(nn.Module):
    """A hidden layer that also gets the three inputs of the model, as NeRF's does."""

    def __init__(self, width):
        super().__init__()
        self.first, self.hidden = nn.Linear(3, width), nn.Linear(width + 3, width)
        self.head = nn.Linear(width, 1)

    def forward(self, x):
        return self.head(self.hidden(torch.cat([self.first(x).tanh(), x], -1)).tanh())


def test_inputs_that_stay_beside_those_that_grow_are_warned_of():
    with pytest.warns(
        UserWarning, match="a part of what goes in stays while the rest grows"
    ) as found:
        paramz.make_plan(Skip(64), "mup", base=Skip, base_width=16)
    assert "hidden.weight (axis 1 is 19 in the base, of which 3 stay)" in str(found[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paramz.make_plan(Skip(16), "mup", base=Skip, base_width=16)


def test_a_check_measures_the_slices_alone():
    def build(width):
        model = net(Fused)(width)
        nn.init.zeros_(model[1].qkv.bias)
        return model

    assert slices_shown(plan_of(build)) == {"1.qkv": [("inward", -1, [(64, 72), (72, 80)])]}
    batch = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3
    widths = [16, 32, 64, 128]
    df = paramz.coord_check(build, batch, widths=widths, lr=2**-6, steps=1, seeds=2)
    start = next(s for s in paramz.judge(df).slopes if s.module == "1.qkv(inward)" and s.step == 0)
    assert (start.role, start.quantity, start.passed) == ("inward", "output", True)
    assert start.slope == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("spans", [[64, 81, 16]], "a slice of the rows"),
        ("spans", [[64, 68, 16]], "spans of 4"),
        ("axis", 2, "a slice of axis 2"),
        ("role", "hiden", "unknown role"),
    ],
)
def test_a_saved_slice_that_no_plan_can_have_is_refused(field, value, text):
    data = plan_of(net(Fused)).to_json()
    row = next(row for row in data["rows"] if row["name"] == "1.qkv.weight")
    row["slices"][0][field] = value
    with pytest.raises(ValueError, match=text):
        paramz.Plan.from_json(data)


class Gated(nn.Module):
    """A feed-forward size of 8/3 of the width, rounded up to steps of 8, as Llama's."""

    def __init__(self, width):
        super().__init__()
        inner = 8 * -(-8 * width // 24)
        self.first = nn.Linear(3, width)
        self.up, self.gate, self.down = (
            nn.Linear(width, inner), nn.Linear(width, inner), nn.Linear(inner, width)
        )  # fmt: skip
        self.readout = nn.Linear(width, 2)

    def forward(self, x):
        x = self.first(x)
        return self.readout(x + self.down(self.gate(x).sigmoid() * self.up(x)))


@pytest.mark.parametrize("width", [128, 192])
def test_sizes_that_are_rounded_up_are_no_fused_maps(width):
    """176, 344 and 512 lie on one line, as if 8 rows stayed; SGD's groups were refused for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = paramz.make_plan(model := Gated(width), "mup", base=Gated, base_width=64)
    (down,) = (row for row in plan.rows if row.name == "down.weight")
    assert down.ratios["fan_in"] == model.down.in_features / 176
    assert plan.notes == () and plan.param_groups(model, "sgd", lr=0.1)


def test_a_factory_that_builds_on_the_cpu_is_not_asked_for_a_larger_model():
    asked = []

    def build(width):
        asked.append(width)
        model = Gated(width)
        model.register_buffer("mask", torch.ones(width, device="cpu"))
        return model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paramz.make_plan(build(128), "mup", base=build, base_width=64)
    assert max(asked) == 128
