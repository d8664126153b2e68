"""Families of looped and shared models, as they are written: what is counted, checks over loops.

A looped stack of experts (as MoEUT), low-rank experts inside a shared layer (mixture of LoRAs),
tokens that a router keeps for another run (mixture of recursions), and one kernel in layers whose
norms are their own.
"""

import functools

import pytest
import torch
from cases import Plain
from cases import residual_batch as batch
from torch import nn

import paramz


class Looped(nn.Module):
    """One block that runs `depth` times between a first layer and a readout."""

    def __init__(self, block, width=64, depth=1):
        super().__init__()
        self.first, self.head = nn.Linear(16, width), nn.Linear(width, 8)
        self.norm = nn.LayerNorm(width)
        self.loops, self.blocks = depth, nn.ModuleList([block(width)])

    def forward(self, x):
        x = self.first(x)
        for _ in range(self.loops):
            x = self.blocks[0](x)
        return self.head(self.norm(x))


class Experts(nn.Module):
    """Two of four experts, chosen by a router with sigmoid gates."""

    def __init__(self, width, number=4):
        super().__init__()
        self.norm, self.top_k = nn.LayerNorm(width), 2
        self.router = nn.Linear(width, number, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
            for _ in range(number)
        )

    def forward(self, x):
        z = self.norm(x)
        scores = self.router(z).sigmoid()
        top, chosen = scores.topk(self.top_k, -1)
        gates = torch.zeros_like(scores).scatter(-1, chosen, top)
        return x + sum(gates[..., i, None] * expert(z) for i, expert in enumerate(self.experts))


class LowRank(nn.Module):
    """A feed-forward layer, to whose hidden units low-rank experts add something of their own."""

    def __init__(self, width, number=4, rank=4):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)
        self.router = nn.Linear(width, number, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False))
            for _ in range(number)
        )

    def forward(self, x):
        z = self.norm(x)
        gates = self.router(z).softmax(-1)
        added = sum(gates[..., i, None] * expert(z) for i, expert in enumerate(self.experts))
        return x + self.down((self.up(z) + added).relu())


class Routed(Plain):
    """A block that half of the tokens run through, those that the router scores highest."""

    def __init__(self, width):
        super().__init__(width)
        self.router = nn.Linear(width, 1, bias=False)

    def forward(self, x):
        score = self.router(x).sigmoid()
        kept = (score >= score.median()).to(score.dtype)
        return x + 2 * kept * score * self.ffn(self.norm(x))


class OneKernel(nn.Module):
    """`depth` blocks with norms and biases of their own, whose matrices are those of the first."""

    def __init__(self, width=64, depth=1):
        super().__init__()
        self.first, self.head = nn.Linear(16, width), nn.Linear(width, 8)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList([Plain(width) for _ in range(depth)])
        for block in self.blocks[1:]:
            for layer in (0, 2):
                block.ffn[layer].weight = self.blocks[0].ffn[layer].weight

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


FAMILIES = {
    "experts": functools.partial(Looped, Experts),
    "low-rank": functools.partial(Looped, LowRank),
    "routed": functools.partial(Looped, Routed),
    "one kernel": OneKernel,
}
# Experts whose sum goes on into another layer do not end a branch: that has to be said.
BRANCHES = {
    "low-rank": paramz.Branches(inside=r"^(blocks[.][0-9]+)[.]", ends=r"^(blocks[.][0-9]+[.]down)$")
}


@pytest.mark.parametrize("family", FAMILIES)
def test_runs_are_counted_in_models_as_they_are_written(family):
    build = FAMILIES[family]
    plan = paramz.make_plan(
        build(depth=8), "mup+completep", base=functools.partial(build, depth=2), base_width=64,
        branches=BRANCHES.get(family), example=batch()[0],
    )  # fmt: skip
    rows = {row.name: row for row in plan.rows}
    runs = {(row.ratios.get("depth"), row.ratios.get("loops")) for row in plan.rows if row.block}
    # Norms and biases of their own run once each, beside a kernel of all layers.
    assert runs == ({(4, 4), (4, None)} if family == "one kernel" else {(4, 4)})
    ends = {
        "experts": {f"blocks.0.experts.{n}.2" for n in range(4)},
        "low-rank": {"blocks.0.down"},
        "routed": {"blocks.0.ffn.2"},
        "one kernel": {f"blocks.{n}.ffn.2" for n in range(8)},
    }
    assert {name.rpartition(".")[0] for name in rows if rows[name].ends} == ends[family]


def test_low_rank_experts_are_refused_with_the_line_to_paste():
    build = FAMILIES["low-rank"]
    with pytest.raises(ValueError, match="last linear map paramz does not know") as error:
        paramz.make_plan(build(depth=8), "mup+completep", base=build, base_width=64,
                         example=batch()[0])  # fmt: skip
    assert "ends=r'^(blocks[.][0-9]+[.]down)$'" in str(error.value)


def test_sgd_divides_by_the_layers_that_have_a_kernel_in_common():
    model = OneKernel(depth=8)
    plan = paramz.make_plan(
        model, "mup+completep", base=functools.partial(OneKernel, depth=2), base_width=64,
        example=batch()[0],
    )  # fmt: skip
    lrs = {
        name: group["lr"]
        for group in plan.param_groups(model, "sgd", lr=1.0)
        for name in group["names"]
    }
    assert (lrs["blocks.0.ffn.0.weight"], lrs["blocks.0.ffn.0.bias"]) == (1.0, 4.0)


def test_loops_are_compared_by_their_last_run():
    # After the first run of many, the state has moved by 1 / loops of what all runs do, by design.
    table = paramz.coord_check(
        FAMILIES["routed"], batch(), depths=[1, 4], base_width=64, parametrization="mup+completep",
        optimizer="adamw", lr=2**-8, seeds=1, steps=1,
    )  # fmt: skip
    of_block = table[table.module.str.partition("#")[0] == "blocks.0"]
    assert set(of_block.module) == {"blocks.0"}
    change = of_block[(of_block.quantity == "delta")].groupby("depth")["rms"].mean()
    assert 0.7 < change[4] / change[1] < 1.4  # the first of four runs: 0.25


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 2**-4), ("adamw", 2**-8)])
@pytest.mark.parametrize("family", FAMILIES)
def test_over_loops_checks_pass_with_the_rule_and_fail_without(family, optimizer, lr):
    for scheme, wanted in (("mup+completep", "pass"), ("mup", "fail")):
        table = paramz.coord_check(
            FAMILIES[family], batch(), depths=[1, 2, 4, 8, 16], base_width=64,
            parametrization=scheme, optimizer=optimizer, lr=lr, branches=BRANCHES.get(family),
        )  # fmt: skip
        verdict = paramz.judge(table)
        assert verdict.outcome == wanted, verdict.sentence
