"""Blocks that run several times: their runs add up, at init and in their gradient."""

import functools

import pytest
from cases import Plain
from cases import residual_batch as batch
from torch import nn

import paramz


class Looped(nn.Module):
    """A stack of `blocks` different blocks, each of which runs `depth` times on end."""

    def __init__(self, width=64, depth=1, blocks=1):
        super().__init__()
        self.first, self.head = nn.Linear(16, width), nn.Linear(width, 8)
        self.norm = nn.LayerNorm(width)
        own = [Plain(width) for _ in range(blocks)]
        self.blocks = nn.ModuleList([block for block in own for _ in range(depth)])

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def planned(model, scheme, **base):
    return paramz.make_plan(
        model, scheme, base=functools.partial(Looped, **base), base_width=64, example=batch()[0]
    )


def lr_of(plan, model, optimizer, name):
    groups = plan.param_groups(model, optimizer, lr=1.0, split="tensor")
    wanted = dict(model.named_parameters())[name]
    (group,) = (g for g in groups if g["params"][0] is wanted)
    return group["lr"]


# Scheme, different blocks and runs of each in the target and in the base -> branch factor, and
# the lr of SGD and AdamW inside of branches.
RULES = [
    ("mup+completep", (1, 8), (1, 2), 1 / 4, 1, 1),
    ("mup+completep", (2, 4), (2, 1), 1 / 4, 1, 1),
    ("mup+completep", (4, 1), (1, 1), 1 / 4, 4, 1),
    # Fewer runs than the base: the nearest of them is not the first, which has the block's name.
    ("mup+completep", (1, 1), (1, 4), 4, 1, 1),
    ("mup+completep", (2, 1), (2, 4), 4, 1, 1),
    ("mup+depth-mup", (1, 8), (1, 2), 1 / 4, 1, 1),
    ("mup+depth-mup", (2, 4), (2, 1), 1 / 4, 1, 1),
    ("mup+depth-mup", (4, 1), (1, 1), 1 / 2, 1, 1 / 2),
]


@pytest.mark.parametrize(("scheme", "target", "base", "branch", "sgd", "adamw"), RULES)
def test_runs_of_one_block_and_different_blocks_have_rules_of_their_own(
    scheme, target, base, branch, sgd, adamw
):
    model = Looped(blocks=target[0], depth=target[1])
    plan = planned(model, scheme, blocks=base[0], depth=base[1])
    rows = {row.name: row for row in plan.rows}
    row = rows["blocks.0.ffn.0.weight"]
    assert row.ratios["depth"] == target[0] * target[1] / (base[0] * base[1])
    assert row.ratios.get("loops", 1) == target[1] / base[1]
    end = rows["blocks.0.ffn.2.weight"]
    assert plan.rulebook.branch_factor(end) == pytest.approx(branch)
    assert lr_of(plan, model, "sgd", row.name) == pytest.approx(sgd)
    assert lr_of(plan, model, "adamw", row.name) == pytest.approx(adamw)


def test_a_block_that_is_shared_beside_others_counts_its_own_runs():
    a, b = Plain(64), Plain(64)
    model = Looped()
    model.blocks = nn.ModuleList([a, b, b, b])
    ratios = {row.name: row.ratios for row in planned(model, "mup+completep", blocks=2).rows}
    same = {"fan_in": 1.0, "fan_out": 1.0, "depth": 2.0}
    assert ratios["blocks.0.ffn.0.weight"] == same
    assert ratios["blocks.1.ffn.0.weight"] == {**same, "loops": 3.0}


class OneUp(Looped):
    """Different blocks that have the first map of their feed-forward in common."""

    def __init__(self, width=64, blocks=1, whole=True):
        super().__init__(width, blocks=blocks)
        for block in self.blocks:
            if whole:  # the module
                block.ffn[0] = self.blocks[0].ffn[0]
            else:  # its tensors
                block.ffn[0].weight = self.blocks[0].ffn[0].weight
                block.ffn[0].bias = self.blocks[0].ffn[0].bias
        self.last = self.blocks[-1]  # other names change nothing
        self.ups = nn.ModuleList([self.blocks[-1].ffn[0]])


def test_of_fewer_blocks_the_nearest_one_may_have_a_weight_by_the_name_of_the_first():
    model, base = (Looped(blocks=blocks) for blocks in (2, 8))
    wider = Looped(128, blocks=8)
    for one in (model, base, wider):
        for block in one.blocks:
            block.ffn[0].weight = one.blocks[0].ffn[0].weight
    plan = paramz.make_plan(model, "mup+completep", base=base, wider=wider, example=batch()[0])
    ratios = {row.name: row.ratios for row in plan.rows}
    assert ratios["blocks.0.ffn.0.weight"]["loops"] == 1 / 4
    assert ratios["blocks.0.ffn.0.bias"]["depth"] == 1 / 4


@pytest.mark.parametrize("whole", [True, False])
def test_a_module_in_several_blocks_counts_as_its_weight_would(whole):
    plan = paramz.make_plan(
        OneUp(blocks=8, whole=whole), "mup+completep", base=lambda w: OneUp(w, 2, whole),
        base_width=64, example=batch()[0],
    )  # fmt: skip
    rows = {row.name: row.ratios for row in plan.rows}
    assert rows["blocks.0.ffn.0.weight"]["loops"] == 4.0
    assert rows["blocks.0.ffn.2.weight"]["depth"] == 4.0
    assert not any("loops" in ratios for name, ratios in rows.items() if "ffn.2" in name)


def test_a_plan_with_loops_says_so_and_survives_saving(tmp_path):
    plan = planned(Looped(depth=8), "mup+completep", depth=2)
    text = str(plan.summary())
    assert "depth times 4 (a block runs 4 times as often): residual branches times 0.25" in text
    assert "blocks.0.norm.weight = blocks.1.norm.weight and 6 more" in text
    plan.save(tmp_path / "plan.json")
    assert paramz.Plan.load(tmp_path / "plan.json").rows == plan.rows


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["mup+completep", "mup+depth-mup", "mup"])
@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 2**-4), ("adamw", 2**-8)])
def test_over_loops_checks_pass_with_a_depth_scheme_and_fail_without(scheme, optimizer, lr):
    table = paramz.coord_check(
        Looped,
        batch(),
        depths=[1, 2, 4, 8, 16],
        base_width=64,
        parametrization=scheme,
        optimizer=optimizer,
        lr=lr,
    )
    verdict = paramz.judge(table)
    assert verdict.outcome == ("fail" if scheme == "mup" else "pass"), verdict.sentence


class Recurrent(nn.Module):
    """One block that code runs several times, as ALBERT's or a universal transformer's."""

    def __init__(self, width=64, loops=1):
        super().__init__()
        self.first, self.head, self.loops = nn.Linear(16, width), nn.Linear(width, 8), loops
        self.block = nn.ModuleList([Plain(width)])

    def forward(self, x):
        x = self.first(x)
        for _ in range(self.loops):
            x = self.block[0](x)
        return self.head(x)


def test_runs_that_a_scheme_has_no_rule_for_are_said_and_suggested_one():
    """No tensor shows them, so a plan for width alone took them for nothing."""
    asked = {"base_width": 32, "example": batch()[0]}
    plan = paramz.make_plan(Recurrent(loops=8), "mup", base=Recurrent, **asked)
    (said,) = (note for note in plan.notes if "'mup+completep'" in note)
    assert said.startswith("loops is 8 and 1 in the base, and both have the same tensors")
    found = paramz.suggest(Recurrent(loops=8), base=Recurrent, **asked)
    assert (found.scheme, found.because) == (
        "mup+completep", ("width times 2", "depth times 8", "loops times 8")
    )  # fmt: skip
    same = functools.partial(Recurrent, loops=8)
    assert not paramz.make_plan(same(), "mup", base=same, **asked).notes
    assert paramz.suggest(same(), base=same, **asked).scheme == "mup"


class Listed(nn.Module):
    """One block that stands in a list several times, so that a base has fewer paths."""

    def __init__(self, width=64, loops=2):
        super().__init__()
        self.first, self.head = nn.Linear(16, width), nn.Linear(width, 8)
        self.blocks = nn.ModuleList([Plain(width)] * loops)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.mark.parametrize(("loops", "at_base"), [(8, 2), (2, 8)])
def test_a_list_of_one_block_is_said_and_suggested_a_rule_for_its_runs(loops, at_base):
    """More of them failed with an AttributeError, and fewer were planned without a word."""
    asked = {"base": functools.partial(Listed, loops=at_base), "base_width": 32}
    plan = paramz.make_plan(Listed(loops=loops), "mup", **asked)
    assert f"the length of blocks is {loops} and {at_base} in the base" in " ".join(plan.notes)
    if loops > at_base:
        assert paramz.suggest(Listed(loops=loops), **asked).scheme == "mup+completep"


class Repeated(Listed):
    """Different blocks that stand in a list twice each, one behind the other (as MobileLLM's)."""

    def __init__(self, width=64, depth=2):
        super().__init__(width)
        blocks = [Plain(width) for _ in range(depth)]
        self.blocks = nn.ModuleList([block for block in blocks for _ in range(2)])


@pytest.mark.parametrize("depth", [8, 3, 1])
def test_blocks_that_stand_in_a_list_twice_are_scaled_in_depth_alone(depth):
    """Names of their second place were no names of the base's."""
    plan = paramz.parametrize_(Repeated(depth=depth), "mup+completep", base=Repeated, base_width=32)
    ratios = {(scale, r) for row in plan.rows for scale, r in row.ratios.items()}
    assert {each for each in ratios if each[0] in ("depth", "loops")} == {("depth", depth / 2)}
