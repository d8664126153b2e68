"""Coordinate checks over depth: flat under a depth scheme, growing without one."""

from pathlib import Path

import pytest
import torch

import paramz
from paramz.check.jobs import numbered, table

TASK = f"{Path(__file__).parents[2] / 'sweeps' / 'train_lm.py'}:task"
SMALL = {"batch_size": 8, "context": 16, "zero": True}


def check(scheme, optimizer="adamw", lr=2**-7, depths=(2, 4, 8, 16), seeds=2, **config):
    return paramz.coord_check(
        TASK, depths=depths, base_width=16, parametrization=scheme, optimizer=optimizer, lr=lr,
        seeds=seeds, config={**SMALL, **config},
    )  # fmt: skip


@pytest.fixture(scope="module")
def complete():
    return check("mup+completep")


@pytest.fixture(scope="module")
def plain():
    return check("mup")


def test_completep_is_flat_over_depth_and_plain_mup_is_not(complete, plain):
    passed, failed = paramz.judge(complete), paramz.judge(plain)
    assert passed.sentence.startswith("PASS: mup+completep with adamw, depth 2 to 16, lr 0.0078")
    assert failed.sentence.startswith("FAIL: mup with adamw, depth 2 to 16")
    assert "changes like depth^+" in failed.sentence


def test_blocks_are_compared_at_the_same_relative_depth(complete):
    # Under the names of the shallowest model, and what is inside them, too.
    assert {m for m in complete.module if m.startswith("blocks.") and m.count(".") == 1} == {
        "blocks.0(input)",  # the sum of embeddings, which no module puts out
        "blocks.0",
        "blocks.1",
    }
    assert complete.groupby("module").depth.nunique().min() == 4
    assert set(complete.columns) >= {"depth", "rms"} and "width" not in complete.columns


def own_update(df):
    """Slope over depth of what the second layer of the feed-forward parts did by itself."""
    own = df[(df.quantity == "update") & (df.module == "blocks.1.down")]
    slopes = [s for s in paramz.judge(df).slopes if s.module == "blocks.1.up"]
    assert not own.empty
    return next(s.slope for s in slopes if s.quantity == "update")


def test_layers_of_a_deeper_branch_freeze_under_depth_mup_and_learn_under_completep(complete):
    # Dey et al. 2025: the lazy layers of alpha = 1/2, in branches of two layers and more.
    lazy = check("mup+depth-mup")
    assert paramz.judge(lazy).passed
    assert own_update(lazy) < -0.4
    assert abs(own_update(complete)) < 0.15


def with_rate(factor):
    """AdamW with a wrong learning rate of a hidden matrix in the first block."""

    def made(plan, model, lr):
        groups = plan.param_groups(model, "adamw", lr=lr, split="tensor")
        for group in groups:
            if group["params"][0] is model.blocks[0].up.weight:
                group["lr"] *= factor(len(model.blocks) / 2)
        return torch.optim.AdamW(groups)

    return made


@pytest.mark.parametrize(
    ("factor", "cause"),
    [(lambda r: r, "does not fall fast enough with depth"), (lambda r: 1 / r, "falls too fast")],
)
def test_a_wrong_learning_rate_inside_a_branch_is_found(factor, cause):
    verdict = paramz.judge(check("mup+completep", with_rate(factor)))
    assert (verdict.outcome, verdict.culprit) == ("fail", "blocks.0.up")
    assert f"Cause: the learning rate of blocks.0.up (hidden) {cause}" in verdict.finding


def test_branches_that_add_up_are_the_cause_and_not_the_updates_behind_them(plain):
    assert "Cause: the factor on residual branches" in paramz.judge(plain).finding


def test_one_axis_at_a_time():
    with pytest.raises(
        ValueError, match="one of widths, depths, experts, ranks and densities; got width"
    ):
        paramz.coord_check(TASK, widths=(8, 16), depths=(2, 4))
    with pytest.raises(ValueError, match=r"depths=\[4, 4\]: a slope needs at least two differ"):
        paramz.coord_check(TASK, depths=(4, 4))


# Not depth-mup with AdamW, which is measured at -0.11 [-0.18, -0.04] in docs/slopes.csv.
FLAT = [
    ("mup+completep", "sgd", 2**-3),
    ("mup+completep", "adamw", 2**-7),
    ("mup+completep", "muon", 2**-6),
    ("mup+depth-mup", "sgd", 2**-3),
    ("mup+depth-mup", "muon", 2**-6),
]


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "optimizer", "lr"), FLAT)
def test_every_optimizer_is_flat_over_depth(scheme, optimizer, lr):
    df = paramz.coord_check(
        TASK, depths=(4, 8, 16, 32), base_width=32, parametrization=scheme, optimizer=optimizer,
        lr=lr, seeds=3, config={"batch_size": 16, "context": 32, "zero": True},
    )  # fmt: skip
    assert paramz.judge(df).passed, paramz.judge(df).sentence


def test_runs_that_loop_a_different_number_of_times_keep_their_own_last_call():
    """Seed 0 loops twice, at the larger width three times; seed 1 once, then twice."""
    calls = {(16, 0): 2, (32, 0): 3, (16, 1): 1, (32, 1): 2}
    rows = [
        ("mup", "adamw", width, seed, 0.1, 0, numbered("block", call), "hidden", "output", call, "")
        for (width, seed), made in calls.items()
        for call in range(1, made + 1)
    ]
    found = table("width", rows)
    assert set(found.module) == {"block"}
    assert {(row.width, row.seed): row.rms for row in found.itertuples()} == calls
