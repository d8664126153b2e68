"""Lists of experts inside residual branches: they stand beside each other and are no depth."""

import re

import pytest
import torch
from torch import nn

import paramz

BATCH = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))


def known(width):
    return nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))


class Unknown(nn.Module):
    """An expert whose names say nothing of which map is the last."""

    def __init__(self, width):
        super().__init__()
        self.red, self.blue = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return self.blue(self.red(x).relu())


class Mixture(nn.Module):
    def __init__(self, width, experts, top_k, expert):
        super().__init__()
        self.top_k, self.gate = top_k, nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(expert(width) for _ in range(experts))

    def forward(self, x):
        values, chosen = self.gate(x).softmax(-1).topk(self.top_k, -1)
        return sum(
            (values * (chosen == number)).sum(-1, keepdim=True) * expert(x)
            for number, expert in enumerate(self.experts)
        )


class Block(nn.Module):
    def __init__(self, width, *mixture):
        super().__init__()
        self.norm, self.moe = nn.LayerNorm(width), Mixture(width, *mixture)

    def forward(self, x):
        return x + self.moe(self.norm(x))


class Looped(nn.Module):
    """A stack of blocks that code runs several times."""

    def __init__(self, width=32, loops=1, experts=4, top_k=2, blocks=1, expert=known):
        super().__init__()
        self.first, self.head, self.loops = nn.Linear(8, width), nn.Linear(width, 3), loops
        self.blocks = nn.ModuleList(Block(width, experts, top_k, expert) for _ in range(blocks))

    def forward(self, x):
        x = self.first(x)
        for _ in range(self.loops):
            for block in self.blocks:
                x = block(x)
        return self.head(x)


def planned(branches=None, expert=known, **target):
    return paramz.make_plan(
        Looped(64, expert=expert, **target), "mup+completep+moe", base_width=32, example=BATCH,
        base=lambda width: Looped(width, expert=expert), branches=branches,
    )  # fmt: skip


def require_right(plan, last, depth, loops):
    """Every tensor of a block has its depth, and the branch's factor is on experts' last maps."""
    rows = {row.name: row for row in plan.rows}
    for name in ("norm.weight", "moe.gate.weight", "moe.experts.7.0.weight"):
        row = rows.get(f"blocks.0.{name}", rows.get("blocks.0.moe.experts.7.red.weight"))
        assert (row.ratios["depth"], row.ratios.get("loops", 1)) == (depth, loops)
    factors = {
        name: plan.rulebook.branch_factor(row)
        for name, row in rows.items()
        if plan.rulebook.branch_factor(row) != 1
    }
    assert set(factors.values()) == {1 / depth}
    assert {re.sub("[0-9]+", "#", name) for name in factors} == {
        f"blocks.#.moe.experts.#.{last}.weight", f"blocks.#.moe.experts.#.{last}.bias"
    }  # fmt: skip


@pytest.mark.parametrize(("blocks", "loops"), [(1, 4), (2, 4), (3, 1)])
def test_stacks_of_experts_in_a_module_of_their_own_end_branches(blocks, loops):
    plan = planned(blocks=blocks, loops=loops, experts=8, top_k=4)
    require_right(plan, "#", blocks * loops, loops)


def test_the_declaration_to_paste_takes_blocks_and_not_experts():
    """Experts that grow in number would count as a depth that grows."""
    with pytest.raises(ValueError, match="last linear map paramz does not know") as told:
        planned(expert=Unknown, loops=4, experts=8, top_k=4)
    pasted = re.search(r"branches=(paramz\.Branches\(.*\))$", str(told.value))
    assert pasted is not None
    branches = eval(pasted[1], {"paramz": paramz})
    plan = planned(branches, Unknown, loops=4, experts=8, top_k=4)
    require_right(plan, "blue", 4, 4)


def test_a_declaration_that_counts_experts_as_blocks_is_refused():
    branches = paramz.Branches(
        inside=r"^(blocks[.]\d+[.]moe[.]experts[.]\d+)[.]", ends=r"experts[.]\d+[.]blue$"
    )
    with pytest.raises(ValueError, match=r"experts would count as depth.* at blocks\.0\.moe$"):
        planned(branches, Unknown, loops=4, experts=8, top_k=4)
