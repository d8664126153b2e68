"""Where branches end and how often blocks run is read from a run, where names do not tell it."""

import re

import pytest
import torch
from cases import Plain
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.anatomy.branches import find_branches


def attend(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


class Flat(nn.Module):
    """All maps stand in the block itself; what ends the attention is called o."""

    def __init__(self, width):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.w1, self.w2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        y = self.n1(x)
        x = x + self.o(attend(self.q(y), self.k(y), self.v(y)))
        return x + self.w2(self.w1(self.n2(x)).relu())


class NormsAreCode(Flat):
    def __init__(self, width):
        super().__init__(width)
        del self.n1, self.n2
        self.n1 = self.n2 = lambda x: F.rms_norm(x, x.shape[-1:])


class LastIsThird(nn.Module):
    """A gated feed-forward whose second map is a gate."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.w1, self.w2 = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.w3 = nn.Linear(2 * width, width)

    def forward(self, x):
        y = self.norm(x)
        return x + self.w3(F.silu(self.w1(y)) * self.w2(y))


class Gated(nn.Module):
    """As in RWKV: a gate lets the branch through after its last map."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x):
        y = self.norm(x)
        return x + self.gate(y).sigmoid() * self.value(self.key(y).relu())


class Stack(nn.Module):
    def __init__(self, width=16, depth=2, block=Flat):
        super().__init__()
        self.first, self.head = nn.Linear(8, width), nn.Linear(width, 4)
        self.layers = nn.ModuleList(block(width) for _ in range(depth))

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class SumOutside(Stack):
    """Pairs of attention and feed-forward, and the model's code adds."""

    class Attention(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.norm, self.to_qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
            self.to_out = nn.Linear(width, width)

        def forward(self, x):
            return self.to_out(attend(*self.to_qkv(self.norm(x)).chunk(3, -1)))

    class FeedForward(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.net = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
            )

        def forward(self, x):
            return self.net(x)

    def __init__(self, width=16, depth=2, block=None):
        super().__init__(width, 0)
        self.layers = nn.ModuleList(
            nn.ModuleList([self.Attention(width), self.FeedForward(width)]) for _ in range(depth)
        )

    def forward(self, x):
        x = self.first(x)
        for attention, feed_forward in self.layers:
            x = attention(x) + x
            x = feed_forward(x) + x
        return self.head(x)


FOUND = {
    "maps in the block": (Flat, {"o", "w2"}),
    "norms in code": (NormsAreCode, {"o", "w2"}),
    "third map last": (LastIsThird, {"w3"}),
    "a gate behind": (Gated, {"value"}),
    "sums outside": (None, {"0.to_out", "1.net.3"}),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_ends_a_branch_by_no_known_name_is_refused_and_the_pasted_line_is_right(name):
    block, ends = FOUND[name]

    def build(width=16, depth=2):
        return Stack(width, depth, block) if block else SumOutside(width, depth)

    with pytest.raises(ValueError, match=r"branches=paramz\.Branches") as refused:
        paramz.make_plan(build(depth=6), "mup+completep", base=build, example=torch.ones(2, 5, 8))
    line = re.search(r"paramz\.Branches\(.*\)", str(refused.value)).group()
    model = build(depth=6)
    plan = paramz.parametrize_(
        model, "mup+completep", base=build, branches=eval(line), example=torch.ones(2, 5, 8)
    )
    ended = {row.name for row in plan.rows if row.ends}
    assert ended == {
        f"layers.{n}.{end}.{kind}" for n in range(6) for end in ends for kind in ("weight", "bias")
    }
    inside = {row.name for row in plan.rows if row.ratios.get("depth") == 3}
    assert inside == {n for n, _ in model.named_parameters() if n.startswith("layers.")}
    # Without the ends the model is its first and its last layer.
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        for name in ended:
            model.get_parameter(name).zero_()
    assert torch.allclose(model(x), model.head(model.first(x)), atol=1e-6)


def test_a_branch_through_a_nonlinearity_is_refused_with_what_to_change():
    class Bent(Plain):
        def forward(self, x):
            return x + self.ffn(self.norm(x)).relu()

    def build(width=16, depth=2):
        return Stack(width, depth, lambda w: nn.Sequential(Bent(w)))

    model, base = build(depth=4), build()
    for each in (model, base):
        for layer in each.layers:
            layer[0].last = layer[0]._modules.pop("ffn")[2]
            layer[0].ffn = lambda x, layer=layer[0]: layer.last(x)
    with pytest.raises(
        ValueError, match="comes a nonlinearity, or a gate .*, so a factor on them is none on"
    ):
        find_branches(model, base)


class Gate(nn.Module):
    """Squeeze and excitation: what goes in, times a gate that is made of its mean."""

    def __init__(self, width):
        super().__init__()
        self.squeeze, self.excite = nn.Linear(width, 4), nn.Linear(4, width)

    def forward(self, x):
        return x * self.excite(self.squeeze(x.mean(1, keepdim=True)).relu()).sigmoid()


class Squeezed(nn.Module):
    """A branch that such a gate ends, as in SE-ResNets, NFNets and ECA."""

    def __init__(self, width, where="module"):
        super().__init__()
        self.where, self.map, self.se = where, nn.Linear(width, width), Gate(width)
        self.tail = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(5))

    def forward(self, x):
        if self.where == "inside":  # as in MBConv: a map and a norm come behind it
            return x + self.tail(self.se(self.map(x.relu())))
        if self.where == "module":
            return x + 0.5 * self.se(self.map(x.relu()))
        y = self.map(x.relu())
        return x + y * self.se.excite(self.se.squeeze(y.mean(1, keepdim=True)).relu()).sigmoid()


class SEResNet(nn.Module):
    """The same behind a norm that names know."""

    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = (
            kind(width) for _ in range(2) for kind in (lambda w: nn.Conv1d(w, w, 1), nn.BatchNorm1d)
        )
        self.se = Gate(width)

    def forward(self, x):
        y = self.bn1(self.conv1(x.mT)).relu()
        return x + self.se(self.bn2(self.conv2(y)).mT)


@pytest.mark.parametrize(
    ("block", "end", "told"),
    [
        (Squeezed, "se", True),
        (lambda width: Squeezed(width, "inside"), "tail.1", True),
        (SEResNet, "se", False),
    ],
)
def test_a_gate_made_of_what_it_lets_through_ends_the_branch(block, end, told):
    """A factor before it is one on what the gate sees, too; the last map was named, or taken."""
    options = {"base": lambda width=16, depth=2: Stack(width, depth, block)}
    options["example"] = torch.ones(2, 5, 8)
    model = Stack(16, 6, block)
    if told:
        with pytest.raises(ValueError, match=r"branches=paramz\.Branches") as refused:
            paramz.make_plan(model, "mup+completep", **options)
        line = re.search(r"paramz\.Branches\(.*\)", str(refused.value)).group()
        options["branches"] = eval(line)
    plan = paramz.make_plan(model, "mup+completep", **options)
    ends = {row.name.rpartition(".")[0] for row in plan.rows if row.ends} | set(plan.branches)
    assert ends == {f"layers.{n}.{end}" for n in range(6)}


def test_such_a_gate_in_the_code_of_a_block_is_refused():
    build = lambda width=16, depth=2: Stack(width, depth, lambda w: Squeezed(w, "code"))  # noqa: E731
    with pytest.raises(ValueError, match="or a gate that is made of the same, so a factor"):
        paramz.make_plan(build(depth=6), "mup+completep", base=build, example=torch.ones(2, 5, 8))


class Core(nn.Module):
    """A block before, two that a loop runs, one after: the attribute's name says nothing."""

    def __init__(self, width=16, turns=2):
        super().__init__()
        self.first, self.head, self.turns = nn.Linear(8, width), nn.Linear(width, 4), turns
        self.before, self.core, self.after = (
            nn.ModuleList(Plain(width) for _ in range(n)) for n in (1, 2, 1)
        )

    def forward(self, x):
        x = self.before[0](self.first(x))
        for _ in range(self.turns):
            for block in self.core:
                x = block(x)
        return self.head(self.after[0](x))


def test_a_run_shows_how_often_each_block_runs():
    plan = paramz.make_plan(Core(turns=8), "mup+completep", base=Core)
    found = {row.name: row.ratios for row in plan.rows if "depth" in row.ratios}
    assert {(n.partition(".")[0], r["depth"], r.get("loops", 1)) for n, r in found.items()} == {
        ("before", 1.0, 1), ("core", 4.0, 4.0), ("after", 1.0, 1)
    }  # fmt: skip
    assert "blocks that run several times: core.# run 16 times in all, 4 in the base" in plan.notes


def test_a_declared_count_that_the_run_does_not_show_is_said():
    plan = paramz.make_plan(
        Core(turns=8), "mup+completep", base=Core, branches=paramz.Branches(runs="turns")
    )
    assert any("turns says depth times 4, loops times 4 for before.0, and a run shows depth times 1"
               in note for note in plan.notes)  # fmt: skip


def test_looking_leaves_the_model_as_it_was():
    model, base = Core(turns=3), Core()
    kept = [{n: (id(p), p.device) for n, p in m.named_parameters()} for m in (model, base)]
    model.train()
    find_branches(model, base)
    assert kept == [{n: (id(p), p.device) for n, p in m.named_parameters()} for m in (model, base)]
    assert model.training and not any(m._forward_pre_hooks for m in model.modules())


def test_rwkvs_branches_end_in_its_values():
    from transformers import RwkvConfig, RwkvForCausalLM

    def build(width=16, depth=2):
        config = RwkvConfig(
            vocab_size=20, hidden_size=width, num_hidden_layers=depth, context_length=8
        )
        with torch.device("meta"):
            return RwkvForCausalLM(config)

    with pytest.raises(ValueError, match=re.escape("[.]feed_forward[.]value)$')")):
        paramz.make_plan(build(depth=4), "mup+completep", base=build)


def test_torchs_own_attention_ends_a_branch_whose_layer_it_does_not_call():
    """It takes the weight of its out_proj alone, so a run showed no end; encoders were refused."""

    def encoder(width, depth=2):
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, norm_first=True, batch_first=True)
        stack = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        return nn.Sequential(nn.Linear(8, width), stack, nn.Linear(width, 3))

    asked = {"base": encoder, "base_width": 16}
    plan = paramz.make_plan(encoder(32, 8), "mup+completep", **asked)
    assert plan.notes == ("depth times 4: residual branches times 0.25",)  # 1 is no block
    ends = {row.name for row in plan.rows if row.ends and row.name.endswith("weight")}
    assert ends == {
        f"1.layers.{n}.{end}.weight" for n in range(8) for end in ("self_attn.out_proj", "linear2")
    }
    declared = paramz.Branches(
        inside=r"^(1[.]layers[.][0-9]+)[.]", ends=r"(linear2|self_attn[.]out_proj)$"
    )
    plan = paramz.make_plan(encoder(32, 8), "mup+completep", branches=declared, **asked)
    assert plan.notes == ("depth times 4: residual branches times 0.25",)
