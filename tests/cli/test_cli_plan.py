"""paramz plan: whatever builds a model has a plan and an export; and mistakes are told apart."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paramz.cli import app

OWN = """
import torch
from torch import nn

def net(width, depth=2):
    layers = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth)]
    return nn.Sequential(nn.Linear(8, width), *layers, nn.Linear(width, 4))

class Net(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))

def broken(width):
    return nn.Linear(width, missing)

def number(width):
    return 3

def train(config, trial):
    raise SystemExit("a training function was run")

def train_of_config(config) -> dict[str, float]:
    raise SystemExit("a training function was run")

here = 3
"""


def run(*arguments):
    result = CliRunner().invoke(app, ["plan", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path / 'own.py'}:net"


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """The folder of a Hugging Face model, of which there is only the config."""
    from transformers import LlamaConfig

    folder = tmp_path_factory.mktemp("hf") / "llama"
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4}
    config = LlamaConfig(**sizes, num_attention_heads=8, vocab_size=40)
    config.save_pretrained(folder)
    return folder


def test_a_function_of_width_or_a_class_has_a_plan(own):
    code, output = run(own, "--target", "width=128,depth=3", "--base", "width=32,depth=3")
    assert code == 0, output
    assert "{1..3}.0.weight" in output and "fan_in^-1 = 0.25" in output
    code, output = run(own.replace(":net", ":Net"), "--width", 128, "--base-width", 32, "--json")
    assert [row["role"] for row in json.loads(output)["rows"]][::2] == ["input", "output"]


def test_a_hugging_face_folder_or_config_has_a_plan_without_weights(llama):
    code, output = run(llama, "--base", "width=32", "--scheme", "mup")
    assert code == 0, output
    assert "model.layers.{0..3}.mlp.up_proj.weight" in output and "128x64" in output
    asked = ("--base", "width=32,depth=2", "--scheme", "mup+completep")
    code, output = run(llama / "config.json", *asked, "--target", "width=128,depth=8", "--json")
    assert code == 0, output
    rows = {row["name"]: row for row in json.loads(output)["rows"]}
    ends = rows["model.layers.7.mlp.down_proj.weight"]
    assert ends["ratios"] == {"fan_in": 4.0, "fan_out": 4.0, "depth": 4.0} and ends["ends"]


def test_an_export_has_the_values_and_inits_of_the_target(llama, own, tmp_path):
    asked = (llama, "--base", "width=32", "--export", "olmo-core", "--lr", "2^-6")
    code, output = run(*asked, "--weight-decay", 0.1, "--eps", 1e-7)
    assert code == 0, output
    assert "opts=dict(lr=0.0078125, weight_decay=0.2, eps=5e-08)" in output
    assert "(r'model\\.embed_tokens\\.weight', 'normal', 0.0" in output
    (tmp_path / "names.yaml").write_text("- ['^model\\.', '']\n")
    two = ("--optimizer", "muon,adamw", "--lr", "0.02,0.003", "--names", tmp_path / "names.yaml")
    code, output = run(llama, "--base", "width=32", "--export", "torchtitan", *two, "--json")
    assert code == 0, output
    groups = json.loads(output)["groups"]
    assert {group["optimizer"] for group in groups} == {"muon", "adamw"}
    assert not any("model" in name for group in groups for name in group["names"])


def test_mistakes_are_told_apart_and_nothing_is_trained(own, llama, tmp_path):
    (tmp_path / "bad.yaml").write_text("- [1, 2]\n")
    sizes = ("--width", 64, "--base", "width=32")
    export = ("--base", "width=32", "--export", "trainer")
    for arguments, message in [
        (
            (own, "--width", 64),
            "or will it be? Write --base width= with that width, such as 16, smaller than",
        ),
        ((own,), "--base is missing: at which width was the learning rate tuned"),
        ((own, "--base", "width=32"), "--target is missing: which model of"),
        ((own, "--base", "wdith=32"), "--base wdith=32: write width=..., depth=..., experts=..."),
        ((own, "--base", "width=0"), "--base width=0: write width="),
        ((own, *sizes, "--base-width", 16), "--base width=32 and --base-width 16: give one"),
        ((own, *sizes, "--set", "a=1"), "--set is for tasks, and"),
        ((own, *sizes, "--lr", "0.1"), "--lr is for --export, which is not asked for"),
        ((own, *sizes, "--eps", "0.1"), "--eps is for --export"),
        (
            (own.replace(":net", ":broken"), *sizes),
            "NameError: name 'missing' is not defined (own.",
        ),
        ((own.replace(":net", ":number"), *sizes), ":number returned int, no torch.nn.Module"),
        ((own.replace(":net", ":here"), *sizes), ":here is int, no function"),
        ((own.replace(":net", ":nett"), *sizes), "defines no function 'nett'; it has: net, broken"),
        ((own.replace(":net", ""), *sizes), "own.py names no function: write "),
        ((own.replace(":net", ":train"), *sizes), "train takes (config, trial), as training funct"),
        ((own.replace(":net", ":train_of_config"), *sizes), "train_of_config returns dict"),
        ((tmp_path, "--base", "width=32"), "error: "),
        (("gpt-none", "--base", "width=32"), "no model in the local cache (nothing is downloaded)"),
        ((llama, *export), "--export needs --lr, the learning rate that was tuned at the base"),
        ((llama, *export, "--lr", "0.1,0.2"), "--optimizer adamw and --lr 0.1,0.2: write one lr"),
        ((llama, *export, "--lr", 1, "--names", tmp_path / "bad.yaml"), "write a list of pairs"),
        ((llama, "--base", "width=32", "--export", "jax", "--lr", 1), "'jax' is none of megatron"),
    ]:
        code, output = run(*arguments)
        assert code == 2 and message in output, (arguments, output)
        assert "Traceback" not in output and len(output.splitlines()) < 4


def test_what_a_users_code_prints_is_not_on_stdout(tmp_path, capfd):
    """Nor what is printed by a program that it starts."""
    file = tmp_path / "loud.py"
    file.write_text(
        "import os\nos.system('echo shell')\nprint('loud')\n"
        + OWN.replace("    layers =", "    print('built')\n    layers =")
    )
    sizes = ["--target", "width=32", "--base", "width=8", "--json"]
    result = CliRunner().invoke(app, ["plan", f"{file}:net", *sizes])
    assert json.loads(result.stdout)["parametrization"]["name"] == "mup"
    assert "loud" in result.stderr and "built" in result.stderr
    of_shell = capfd.readouterr()
    assert "shell" in of_shell.err and "shell" not in of_shell.out


def test_no_file_is_written(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(own, "--width", 64, "--base", "width=32")
    assert {path.name for path in Path(tmp_path).iterdir()} <= {"own.py", "__pycache__"}
