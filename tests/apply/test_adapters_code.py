"""Adapters behind factors of width in the model's own code, which stay as it was trained."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

import paramz

peft = pytest.importorskip("peft")
# As that what is frozen behind a copy of it "could not be run".
pytestmark = pytest.mark.filterwarnings("error:base_model")

IDS = torch.arange(7)[None]


class Scaled(nn.Embedding):
    """A table with its own factor, as Gemma's."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(rows, width)
        self.register_buffer("embed_scale", torch.tensor(width**0.5), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids) * self.embed_scale


class Net(nn.Module):
    """Embeddings times sqrt(width), and a readout of its input over width, as MiniCPM's."""

    def __init__(self, width: int, held: bool, behind: bool) -> None:
        super().__init__()
        self.held, self.behind, self.width = held, behind, width
        self.embed = Scaled(7, width) if held else nn.Embedding(7, width)
        self.one = nn.Linear(width, width)
        self.head = nn.Linear(width, 7)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids) if self.held else self.embed(ids) * self.width**0.5
        x = nn.functional.layer_norm(x + self.one(x).relu(), x.shape[-1:])
        return self.head(x) / self.width if self.behind else self.head(x / self.width)


def build(width: int, rank: int = 4, held: bool = True, behind: bool = False, **options):
    torch.manual_seed(0)
    options.setdefault("target_modules", ["embed", "one", "head"])
    config = peft.LoraConfig(r=rank, lora_alpha=rank, **options)
    return peft.get_peft_model(Net(width, held, behind), config)


def found(optimizer: str, **options) -> dict[str, float]:
    """Rates at four times the base's width, by tensor."""
    model = build(128, **options)
    plan = paramz.parametrize_(
        model, "mup+lora", base=partial(build, **options), base_width=32, example=IDS
    )
    groups = plan.param_groups(model, optimizer, lr=1.0)
    names = {id(p): name.removeprefix("base_model.model.") for name, p in model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in groups for p in group["params"]}


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_rates_of_adapters_make_up_for_factors_that_stay(optimizer, held, behind):
    rates = found(optimizer, held=held, behind=behind)
    power = 1 if optimizer == "adamw" else 2
    mup = 1 if optimizer == "adamw" else 4  # of what goes back to width, without a factor
    assert rates["embed.lora_embedding_B.default"] == pytest.approx(mup * 2**-power)
    assert rates["one.lora_B.default.weight"] == pytest.approx(mup)
    assert rates["head.lora_B.default.weight"] == pytest.approx(4**power)
    # Only one of the two makes up for it.
    assert rates["head.lora_A.default.weight"] == pytest.approx(rates["one.lora_A.default.weight"])


@pytest.mark.parametrize("held", [False, True])
def test_what_is_trained_whole_beside_adapters_makes_up_for_them_too(held):
    options = dict(target_modules=["one"], modules_to_save=["embed", "head"], held=held)
    rates = found("adamw", **options)
    assert rates["embed.modules_to_save.default.weight"] == pytest.approx(1 / 2)
    assert rates["head.modules_to_save.default.weight"] == pytest.approx(1)  # 1/4 over 1/4
    assert rates["head.modules_to_save.default.bias"] == pytest.approx(1)  # not behind the factor
    behind = found("adamw", behind=True, **options)
    assert behind["head.modules_to_save.default.bias"] == pytest.approx(4)
    rows = dict(target_modules=["one"], trainable_token_indices={"embed": [1, 2]}, held=held)
    rates = found("adamw", **rows)
    assert rates["embed.token_adapter.trainable_tokens_delta.default"] == pytest.approx(1 / 2)


@pytest.mark.parametrize("whole", [False, True])
def test_steps_move_the_stream_and_the_logits_alike_at_both_widths(whole):
    """By sqrt(4) and 1/4 otherwise."""
    part = dict(target_modules=["one"], modules_to_save=["embed", "head"]) if whole else {}
    moved = []
    for width in (64, 256):
        model = build(width, **part)
        with torch.no_grad():  # as a trained table is
            for name, p in model.named_parameters():
                if "embed" in name and "lora" not in name:
                    p.mul_(width**-0.5)
        plan = paramz.parametrize_(
            model, "mup+lora", base=partial(build, **part), base_width=64, example=IDS
        )
        net = model.base_model.model
        optimizer = torch.optim.Adam(plan.param_groups(model, "adam", lr=1e-3, eps=1e-12))
        x = nn.functional.layer_norm(net.embed(IDS).detach(), (width,))
        before = net.embed(IDS).detach(), net.head(x / width).detach()
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(IDS)[0], IDS[0]).backward()
            optimizer.step()
        after = net.embed(IDS).detach(), net.head(x / width).detach()
        moved.append(
            [float((a - b).square().mean().sqrt()) for a, b in zip(after, before, strict=True)]
        )
        said = [note for note in plan.notes if "the model's code has a factor there" in note]
        assert len(said) == (2 if width == 256 else 0)
    for small, wide in zip(*moved, strict=True):
        assert math.log2(wide / small) == pytest.approx(0, abs=0.5)


class Attention(nn.Module):
    """Two heads, or heads of 16 channels."""

    def __init__(self, width: int, grow: bool) -> None:
        super().__init__()
        self.heads = 2 if grow else width // 16
        self.scale = (width // self.heads) ** -0.5
        self.embed = nn.Embedding(7, width)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.head = nn.Linear(width, 7)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        q, k, v = (
            f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for f in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.head(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("grow", "adapted", "said"),
    [(True, ["q_proj"], True), (True, ["v_proj"], False), (False, ["q_proj"], False)],
)
def test_adapters_of_queries_in_larger_heads_are_told_of(grow, adapted, said):
    def attention(width):
        config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=adapted)
        return peft.get_peft_model(Attention(width, grow), config)

    plan = paramz.make_plan(attention(128), "mup+lora", base=attention, base_width=32, example=IDS)
    assert any("heads are larger than the base's" in note for note in plan.notes) == said
    assert plan.attention == ()
