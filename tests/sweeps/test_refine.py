import math

import pytest

from paramz.sweeps import Store, load, run
from paramz.sweeps.running.recording import failure
from paramz.sweeps.running.refine import begin_round, next_round, refinement
from paramz.sweeps.running.runner import prepare


def record(config, loss, status="ok"):
    return {"key": str(config), "status": status, "config": config, "metrics": {"loss": loss}}


def octaves(trials):
    return sorted(math.log2(config["lr"]) for config in trials.values())


def test_an_inner_optimum_is_bracketed_at_half_the_distance():
    records = [record({"lr": 2.0**x}, (x + 6) ** 2) for x in (-8, -7, -6, -5)]
    assert octaves(refinement(records, "lr", 0.25)) == [-6.5, -5.5]


def test_an_optimum_at_an_end_is_followed_beyond_it():
    records = [record({"lr": 2.0**x}, x) for x in (-8, -7, -6)]
    assert octaves(refinement(records, "lr", 0.25)) == [-9]


def test_diverged_and_failed_trials_are_never_the_optimum():
    records = [record({"lr": 2.0**x}, x) for x in (-8, -7, -6)]
    records.append(record({"lr": 2.0**-9}, -100.0, status="diverged"))
    assert octaves(refinement(records, "lr", 0.25)) == [-8.5, -7.5]


def test_each_width_has_its_own_optimum_and_seeds_are_averaged():
    records = [
        record({"width": width, "lr": 2.0**x, "seed": seed}, (x - best) ** 2 + seed)
        for width, best in ((64, -6), (128, -7))
        for x in (-9, -8, -7, -6, -5)
        for seed in (0, 1)
    ]
    found = refinement(records, "lr", 0.25)
    assert len(found) == 8
    wide = {k: c for k, c in found.items() if c["width"] == 128 and c["seed"] == 1}
    assert octaves(wide) == [-7.5, -6.5]


@pytest.mark.parametrize(("status", "best"), [("failed", -6), ("diverged", -8)])
def test_a_seed_that_crashed_leaves_its_value_to_the_others(status, best):
    """Losses fall towards 2^-6, where one of two seeds has none."""
    records = [
        record({"lr": 2.0**x, "seed": seed}, abs(x + 6) + 0.1 * (x == -4))
        for x in (-10, -8, -6, -4)
        for seed in (0, 1)
    ]
    records[4] |= {"status": status, "metrics": {}}
    assert octaves(refinement(records, "lr", 0.25)) == [best - 1] * 2 + [best + 1] * 2


def test_a_narrow_optimum_is_done():
    records = [record({"lr": 2.0**x}, abs(x)) for x in (-0.25, 0, 0.25)]
    assert refinement(records, "lr", 0.25) == {}


def test_what_cannot_be_refined_is_said():
    with pytest.raises(ValueError, match="cannot refine 'lr': it must be a positive number"):
        refinement([record({"width": 64}, 1.0)], "lr", 0.25)
    with pytest.raises(ValueError, match="cannot refine 'lr': it takes one value only"):
        refinement([record({"lr": 0.5}, 1.0)], "lr", 0.25)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"opt": ["adam", "sgd"]}, r"refine.axis is 'opt', which is 'adam' in a config"),
        ({"opt": [0.0, 0.9]}, r"refine.axis is 'opt', which is 0.0 in a config"),
        ({"opt": [0.1], "lr": [0.1, 0.2]}, r"refine.axis is 'opt', which has the one value 0.1"),
    ],
)
def test_it_is_said_before_the_first_trial(sweep, axes, said):
    with pytest.raises(ValueError, match=said):
        sweep("train", axes=axes, refine={"axis": "opt", "rounds": 2, "narrowest": 0.25})


def test_rounds_are_run_within_the_budget_and_a_rerun_adds_none(sweep, tmp_path):
    """The parabola's optimum is at 2^-3, outside the range that the spec gives."""
    axes = {"width": [32, 64], "lr": {"log2": [-8, -4], "step": 2}}
    refine = {"axis": "lr", "rounds": 3, "narrowest": 0.5}
    wanted = sweep("train", axes=axes, refine=refine, budget={"trials": 13})
    table = run(wanted, tmp_path / "run", workers=2)
    assert len(table) == 13  # 6, then 2^-2 for both; then 2^-5 and 2^-3 for both; then one more
    best = table.loc[table.groupby("width")["loss"].idxmin()]
    assert best["lr"].tolist() == [2**-3, 2**-3]
    assert len(run(wanted, tmp_path / "run")) == 13


def made(sweep, store, missing):
    """Results of these trials and of all rounds after them."""
    while missing:
        for key, config in missing.items():
            loss = (math.log2(config["lr"]) + 6.3) ** 2 / config["width"]
            store.save(failure(key, config, "", 1.0, 1) | {"status": "ok", "error": None,
                                                          "metrics": {"loss": loss}})  # fmt: skip
        if missing := next_round(sweep, store):
            begin_round(store, missing)


def test_rounds_of_an_earlier_spec_are_kept_only_for_the_settings_that_it_shares(sweep, tmp_path):
    """Points of 100 steps were taken for points of the curve of 200, which had no rounds."""
    lr, refine = {"log2": [-10, -2], "step": 2}, {"axis": "lr", "rounds": 2}
    store = Store(tmp_path / "run")
    for steps, widths, rows in (
        (100, [32, 64], {(32, 100): 9, (64, 100): 9}),
        (200, [32, 64], {(32, 200): 9, (64, 200): 9}),
        (200, [64, 128], {(64, 200): 11, (128, 200): 9}),  # those of width 64 go on from there
    ):
        axes = {"width": widths, "lr": lr}
        wanted = sweep("train", base={"steps": steps}, axes=axes, refine=refine)
        for _ in range(2):  # the same spec changes nothing
            made(wanted, store, prepare(wanted, store))
            assert load(store.root).groupby(["width", "steps"]).size().to_dict() == rows


def test_a_broken_list_of_trials_is_written_again(sweep, tmp_path):
    axes = {"width": [32], "lr": {"log2": [-10, -2], "step": 2}}
    wanted = sweep("train", axes=axes, refine={"axis": "lr", "rounds": 2})
    store = Store(tmp_path / "run")
    made(wanted, store, prepare(wanted, store))
    before = store.trials()
    (store.root / "trials.jsonl").write_text("{broken")
    assert prepare(wanted, store) == {} and store.trials() == before
