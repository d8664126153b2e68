"""The init of a base that is never built: its laws say what a real one measures."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import paramz
from paramz.anatomy.drawn import build_drawn
from paramz.anatomy.laws import normal
from paramz.apply.measured import known_init, measure_init


class Drawn(nn.Module):
    """One tensor that a function has drawn."""

    def __init__(self, draw, shape=(400, 300)):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        with torch.no_grad():
            other = draw(self.weight)
        if isinstance(other, torch.Tensor) and other is not self.weight:
            self.weight = nn.Parameter(other)


def rows(weight):
    """Other rows, drawn and scaled by themselves, and one of zeros."""
    weight.normal_(0, 0.02)
    weight[:100].uniform_(-0.1, 0.1).mul_(2)
    weight[7] = 0.0


def redrawn(weight):
    weight.fill_(3.0)
    weight.view(300, 400).T.normal_(std=0.5)


def drawn_again(weight):
    """As torch.nn.init does it, but in a loop of the model's own."""
    weight.normal_()
    while (weight > 1).any():
        weight = torch.where(weight > 1, torch.randn_like(weight), weight)
    return weight


LAWS = {
    "normal": lambda w: nn.init.normal_(w, std=0.3),
    "with a mean": lambda w: nn.init.normal_(w, 1.0, 0.3),
    "uniform": lambda w: w.uniform_(-0.2, 0.2),
    "on one side": lambda w: w.uniform_(),
    "Glorot": nn.init.xavier_uniform_,
    "He": nn.init.kaiming_normal_,
    "cut far out": lambda w: nn.init.trunc_normal_(w, std=0.02),
    "cut": lambda w: nn.init.trunc_normal_(w, std=0.02, a=-0.03, b=0.03),
    "cut on one side": lambda w: nn.init.trunc_normal_(w, 0.1, 1.0, a=-0.5, b=9.0),
    "made and scaled": lambda w: torch.randn(400, 300) * 0.02 / 3,
    "made like it": lambda w: -(2.0 * torch.rand_like(w) - 1),
    "moved": lambda w: w.normal_().mul_(0.1).add_(0.5).sub_(0.5).div_(2),
    "turned": lambda w: torch.randn(300, 400).T.contiguous(),
    "copied": lambda w: w.copy_(torch.full_like(w, 0.25)),
    "by rows": rows,
    "in place of another": redrawn,
    "ones": nn.init.ones_,
    "a constant in a tensor": lambda w: w.fill_(torch.tensor(0.3)),
    "one number for all": lambda w: w.copy_(torch.tensor(0.7).expand_as(w)),
    "half of it": lambda w: torch.cat([torch.ones(200, 300), torch.ones(200, 300)]),
}


@pytest.mark.parametrize("name", LAWS)
def test_laws_say_what_a_real_tensor_measures(name):
    found = build_drawn(lambda _: Drawn(LAWS[name]), 1)
    assert found is not None
    model, laws = found
    assert model.weight.is_meta
    torch.manual_seed(0)
    law = known_init(laws["weight"], torch.float32)
    real = measure_init(Drawn(LAWS[name]).weight)
    assert (law.kind, law.value, law.size) == (real.kind, real.value, real.size)
    assert law.std == pytest.approx(real.std, rel=5 * math.sqrt(0.5 / real.size))
    assert law.bound == pytest.approx(real.bound, rel=0.3)


UNKNOWN = {
    "orthogonal": nn.init.orthogonal_,
    "sparse": lambda w: nn.init.sparse_(w, 0.5),
    "identity": nn.init.eye_,
    "identity after a draw": lambda w: nn.init.eye_(w.normal_()),
    "hardly anything left": lambda w: nn.init.trunc_normal_(w, 0.0, 1.0, a=2.0, b=3.0),
    "another law": lambda w: w.exponential_(),
    "computed": lambda w: w.uniform_(1, 9).log_(),
    "a product": lambda w: w.normal_().mul_(torch.rand_like(w)),
    "from a file": lambda w: w.copy_(torch.tensor([[0.1] * 300] * 400)),
    "every other column": lambda w: w.normal_()[:, ::2].zero_(),
    "nothing": lambda w: None,
    "its values": lambda w: w.normal_() / w.std().item(),
    "elsewhere": lambda w: torch.randn(3, device="cpu"),
    "on meta by itself": lambda w: torch.randn(3, device="meta"),
    "complex": lambda w: torch.randn(3, 3, dtype=torch.complex64),
    "a question of its own": lambda w: w.mul_(0.1) if (w.normal_() > 3).any() else w,
    "a loop of its own": drawn_again,
    "rounded": lambda w: w.uniform_().div_(0.3, rounding_mode="floor"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_has_no_law_is_built_for_real(name):
    assert build_drawn(lambda _: Drawn(UNKNOWN[name]), 1) is None


def llama(width):
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, vocab_size=50,
            num_attention_heads=width // 16, num_key_value_heads=width // 16, pad_token_id=1,
        )
    )  # fmt: skip


def test_a_library_that_leaves_out_its_init_on_meta_does_not_here():
    model, laws = build_drawn(llama, 64)
    assert model.device.type == "meta"
    assert known_init(laws["lm_head.weight"], torch.float32).std == 0.02
    table = known_init(laws["model.embed_tokens.weight"], torch.float32)
    assert table.std == pytest.approx(0.02 * math.sqrt(49 / 50))  # the row of the padding is zero
    assert laws["model.norm.weight"][0][1].low == 1.0


def test_an_init_by_depth_is_read_at_the_depth_of_the_base():
    config = GPT2Config(n_embd=64, n_layer=8, n_head=4, vocab_size=50, n_positions=16)
    _, laws = build_drawn(lambda _: GPT2LMHeadModel(config), 64)
    assert laws["transformer.h.0.mlp.c_proj.weight"] == [(256 * 64, normal(0.0, 0.02 / 4))]


def test_a_target_on_meta_needs_no_real_base_and_gets_the_same_plan():
    real = paramz.parametrize_(llama(64), "mup", base=llama, base_width=32)
    built = []

    def base(width):
        built.append(llama(width))
        return built[-1]

    with torch.device("meta"):
        model = llama(64)
    plan = paramz.parametrize_(model, "mup", base=base, base_width=32)
    assert [each.device.type for each in built] == ["meta", "meta"]
    for row, other in zip(plan.rows, real.rows, strict=True):
        assert (row.name, row.role, row.ratios) == (other.name, other.role, other.ratios)
        assert row.base_init.kind == other.base_init.kind
        size = row.base_init.size
        assert row.base_init.std == pytest.approx(other.base_init.std, rel=5 * (0.5 / size) ** 0.5)
    model.to_empty(device="cpu")
    paramz.init_(model)
    assert measure_init(model.lm_head.weight).std == pytest.approx(0.02 / 2, rel=0.1)


def test_a_base_without_laws_is_measured_as_ever():
    def build(width):
        made = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))
        nn.init.orthogonal_(made[1].weight)
        return made

    with torch.device("meta"):
        model = build(64)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    plan = paramz.parametrize_(model, "mup", base=build, base_width=8)
    assert torch.equal(torch.get_rng_state(), before)
    expected = [measure_init(parameter) for parameter in build(8).parameters()]
    assert [row.base_init for row in plan.rows] == expected


class ReadsValues(nn.Module):
    """A bottleneck in code that needs the values of its input."""

    def __init__(self, width):
        super().__init__()
        self.first, self.back = nn.Linear(4, width), nn.Linear(3, width)
        self.heads = nn.ModuleDict({"narrow": nn.Linear(width, 3), "out": nn.Linear(width, 2)})

    def forward(self, x):
        if any(math.isnan(number) for number in x.flatten().tolist()):
            raise ValueError("no numbers")
        return self.heads["out"](self.back(self.heads["narrow"](self.first(x))))


def test_code_that_needs_values_is_run_with_a_real_base_on_meta_too():
    with torch.device("meta"):
        on_meta = ReadsValues(64)
    plans = [
        paramz.parametrize_(model, "mup", base=ReadsValues, base_width=8)
        for model in (ReadsValues(64), on_meta)
    ]
    found = [{row.name: (row.role, row.why) for row in plan.rows} for plan in plans]
    assert found[0] == found[1]
    assert found[0]["heads.narrow.weight"][0] == "inward"


@pytest.mark.parametrize(
    "reads",
    [lambda t: t.numpy().sum(), lambda t: f"{t.sum():.2f}", lambda t: {1.0: 2}[float(t[-1])]],
    ids=["numpy", "format", "key"],
)
def test_a_factory_that_reads_values_is_built_for_real(reads):
    # each of these has an error of its own on meta, and two of them ended the plan
    def build(width):
        reads(torch.linspace(0, 1, 4))
        return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))

    plan = paramz.make_plan(build(64), "mup", base=build, base_width=8)
    assert {row.name: row.role for row in plan.rows}["1.weight"] == "output"


def test_the_mean_of_a_cut_law_is_that_of_its_draws():
    drawn = torch.empty(100_000)
    nn.init.trunc_normal_(drawn, mean=1.0, std=0.5, a=0.8, b=3.0)
    law = normal(1.0, 0.5).between(0.8, 3.0)
    assert law.center == pytest.approx(float(drawn.mean()), rel=0.01)
    assert law.rms == pytest.approx(float(drawn.square().mean().sqrt()), rel=0.01)


def test_lazy_modules_are_refused_until_they_have_seen_a_batch():
    def lazy(width):
        return nn.Sequential(nn.LazyLinear(width), nn.Linear(width, 2))

    def made(width):
        model = lazy(width)
        model(torch.zeros(1, 4))
        return model

    for model, base in ((lazy(64), made), (made(64), lazy)):
        with pytest.raises(ValueError, match="0.weight, 0.bias of Sequential: lazy modules"):
            paramz.make_plan(model, "mup", base=base, base_width=8)
    assert len(paramz.make_plan(made(64), "mup", base=made, base_width=8).rows) == 4
