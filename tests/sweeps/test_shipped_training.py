"""The shipped training functions on devices: which one they take, in which precision, shared how.

No test here needs a GPU. What a GPU would be asked is tested on the CPU: the choice of device and
precision, autocast through all shipped models, and the GPUs that trials and jobs are given.
"""

import importlib
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from paramz.cli import app
from paramz.slurm import Profile, pack
from paramz.sweeps import Sweep, run

ROOT = Path(__file__).parents[2]
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _shipped_are_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "sweeps"))


@pytest.fixture
def loop():
    return importlib.import_module("train_loop")


@pytest.mark.parametrize(
    ("config", "device", "reduced"),
    [
        ({}, GPU, True),
        ({"optimizer": "muon"}, GPU, True),
        ({"optimizer": "kfac"}, GPU, False),
        ({"precision": "float32"}, GPU, False),
        ({}, CPU, False),
        ({"precision": "bf16"}, CPU, True),
    ],
)
def test_forward_passes_are_in_bfloat16_on_a_gpu_under_first_order_optimizers(
    loop, monkeypatch, config, device, reduced
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert loop.uses_bf16(config, device) is reduced
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert loop.uses_bf16(config, device) is (config.get("precision") == "bf16")


def test_a_misspelt_precision_is_refused(loop):
    with pytest.raises(ValueError, match="precision 'bf-16': write bf16 or float32"):
        loop.uses_bf16({"precision": "bf-16"}, CPU)


def test_the_gpu_is_taken_where_there_is_one(loop, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert loop.best_device() == GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert loop.best_device() == CPU


def test_all_tensors_of_a_batch_move(loop):
    x = torch.ones(2)
    there = loop.moved({"x": (x, [x]), "name": "a"}, torch.device("meta"))
    assert there["x"][0].is_meta and there["x"][1][0].is_meta and there["name"] == "a"
    assert isinstance(there["x"], tuple) and isinstance(there["x"][1], list)


def test_a_trained_model_is_judged_by_text_that_it_has_not_seen(tmp_path):
    lm = importlib.import_module("train_lm")
    (tmp_path / "text").write_bytes(bytes([1, 2] * 950 + [3] * 100))  # the last twentieth apart
    config = {"text": str(tmp_path / "text"), "context": 8, "held_out": True, "heads": 2}
    drawn = torch.cat([lm.task(config).batch(step)[1] for step in range(99)])
    assert drawn.unique().tolist() == [1, 2]
    assert torch.cat(lm.held_out(config)).unique().tolist() == [3]
    log, should_stop = (lambda *_, **__: None), (lambda: False)
    trial = SimpleNamespace(directory=tmp_path, log=log, should_stop=should_stop)
    metrics = lm.train({**config, "width": 16, "lr": 2**-6, "steps": 20}, trial)
    assert metrics["held_out_loss"] > math.log(256) / 2 > metrics["loss"]
    assert metrics["held_out_accuracy"] == 0.0


def test_a_text_is_words_where_the_config_gives_a_vocabulary(tmp_path):
    lm = importlib.import_module("train_lm")
    (tmp_path / "text").write_text("if a:  if if once\n" * 20, encoding="utf-8")
    config = {"text": str(tmp_path / "text"), "vocabulary": 4, "context": 8, "heads": 2}
    # "if" and " " are the most frequent, then "a"; ":", "  ", "once" and newlines are the rest
    assert lm.words(config["text"], 4)[:11].tolist() == [0, 1, 2, 3, 3, 0, 1, 0, 1, 3, 3]
    task = lm.task(config)
    model, (x, y) = task.build(16), task.batch(0)
    assert model.readout.out_features == model.embed.num_embeddings == 4
    assert model(x).shape == (16, 8, 4) and y.max() == 3


def test_a_shared_block_runs_as_often_as_the_depth_says_and_is_planned_by_its_runs():
    task = importlib.import_module("train_lm").task({"depth": 8, "shared": True, "heads": 2})
    model = task.build(16)
    assert len({id(block) for block in model.blocks}) == 1
    plan = task.parametrize_(model, "mup+completep", base_width=16, base_sizes={"depth": 2})
    (row,) = (row for row in plan.rows if row.name == "blocks.0.up.weight")
    assert (row.ratios["depth"], row.ratios["loops"]) == (4.0, 4.0)


@pytest.mark.parametrize(
    ("config", "width", "experts", "fans"),
    [
        ({"expert_widths": 8}, 64, 32, {"fan_in": 0.25, "fan_out": 2.0}),
        ({"expert_size": 16}, 128, 16, {"fan_out": 4.0}),
        ({}, 64, 8, {"fan_in": 2.0, "fan_out": 2.0}),
    ],
)
def test_experts_are_finer_or_thin_where_the_config_says_so(config, width, experts, fans):
    task = importlib.import_module("train_moe").task({"experts": experts, "heads": 2, **config})
    model = task.build(width)
    sizes = {"experts": 4}
    plan = task.parametrize_(model, "mup+moe", base_width=32, base_sizes=sizes)
    (row,) = (row for row in plan.rows if row.name == "blocks.0.moe.experts.1.down.weight")
    assert {name: row.ratios[name] for name in row.ratios if "fan" in name} == fans
    assert row.ratios["experts"] == experts / 4


def test_images_that_are_held_out_are_not_trained_on(tmp_path):
    mlp = importlib.import_module("train_mlp")
    trial = SimpleNamespace(
        directory=tmp_path, log=lambda *args, **values: None, should_stop=lambda: False
    )
    config = {"held_out": True, "width": 32, "lr": 2**-6, "steps": 60}
    images, classes = mlp.unseen(config)
    assert images.shape == (599, 64) and classes.shape == (599,)
    held, batches = set(map(tuple, images.tolist())), mlp.task(config).batch
    # No two of the images are the same, so that one in both would be a leak.
    assert not held & {tuple(x) for step in range(40) for x in batches(step)[0].tolist()}
    assert mlp.unseen({}) is None
    metrics = mlp.train(config, trial)
    assert metrics["held_out_accuracy"] > 0.8 and metrics["held_out_loss"] > metrics["loss"]
    with pytest.raises(ValueError, match="cross_entropy"):
        mlp.train({**config, "objective": "mse"}, trial)


def test_noise_on_images_is_new_at_every_step_and_the_loss_is_that_of_the_last_tenth(tmp_path):
    mlp, losses = importlib.import_module("train_mlp"), []
    trial = SimpleNamespace(
        directory=tmp_path, log=lambda step, loss: losses.append(loss), should_stop=lambda: False
    )
    config = {"noise": 1.5, "width": 32, "lr": 2**-6, "steps": 20}
    noisy, plain = mlp.task(config).batch, mlp.task({}).batch
    drawn = torch.cat([noisy(step)[0] - plain(step)[0] for step in range(40)])  # of one image each
    assert drawn.std().item() == pytest.approx(1.5, rel=0.02)
    assert abs(torch.corrcoef(drawn)[0, 1:]).max() < 0.6  # none is that of another, of 64 pixels
    assert torch.equal(noisy(3)[0], noisy(3)[0]) and torch.equal(noisy(3)[1], plain(3)[1])
    assert mlp.train(config, trial)["loss"] == pytest.approx(sum(losses[-2:]) / 2)


def test_experts_whose_size_is_said_twice_or_does_not_divide_are_refused():
    build = importlib.import_module("train_moe").MoEGPT
    with pytest.raises(ValueError, match="give one"):
        build(32, expert_size=16, expert_widths=16)
    with pytest.raises(ValueError, match="cannot be divided"):
        build(33, experts=8, expert_widths=4)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("train_lm", {"parametrization": "mup"}),
        ("train_lm", {"parametrization": "u-mup"}),
        ("train_moe", {"parametrization": "mup+moe", "experts": 4}),
        ("train_mlp", {}),
    ],
)
def test_shipped_models_train_in_bfloat16_as_in_float32(name, config, tmp_path):
    function = importlib.import_module(name).train
    trial = SimpleNamespace(
        directory=tmp_path, log=lambda *args, **values: None, should_stop=lambda: False
    )
    base = {"width": 32, "lr": 2**-7, "steps": 4, "seed": 0, **config}
    kinds = set()

    def seen(module, args, output):
        if isinstance(module, torch.nn.Linear):
            kinds.add(output.dtype)

    handle = torch.nn.modules.module.register_module_forward_hook(seen)
    try:
        losses = [function({**base, "precision": p}, trial)["loss"] for p in ("float32", "bf16")]
    finally:
        handle.remove()
    assert all(map(math.isfinite, losses))
    assert losses[1] == pytest.approx(losses[0], rel=0.02) and losses[0] != losses[1]
    assert torch.bfloat16 in kinds or config.get("parametrization") == "u-mup"


def test_each_trial_sees_its_share_of_the_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    code = "import os; print('loss', os.environ['CUDA_VISIBLE_DEVICES'])"
    sweep = Sweep(
        command=[sys.executable, "-c", code, "{seed}"],
        metrics={"pattern": r"loss (?P<loss>\d+)$"},
        axes={"seed": [0, 1, 2, 3]},
        resources={"gpus": 0.5},
    )
    table = run(sweep, tmp_path / "run", workers=4)
    assert sorted(table["loss"]) == [4, 4, 5, 5], table["error"].tolist()


def hours(spec, profile):
    arguments = ["sweep", str(spec), "--profile", str(profile), "--dry-run", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", ["demo_lm", "lr_width", "kv_heads"])
def test_a_dry_run_of_what_needs_gpus_shows_gpu_hours(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = ROOT / "sweeps" / f"{name}.yaml"
    shown = hours(spec, ROOT / "slurm" / "h100.yaml")
    assert shown["gpu_hours"] > 0
    sweep = Sweep.from_yaml(spec)
    profile = Profile.from_yaml(ROOT / "slurm" / "h100.yaml")
    assert {array.gpus for array in pack(sweep, profile, sweep.trials).arrays} == {1}
    assert hours(spec, ROOT / "slurm" / "cpu.yaml")["gpu_hours"] == 0
