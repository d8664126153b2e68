"""paramz convert: what it finds, what it says, and that what it says runs and does the same."""

import json
import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import paramz
from paramz.cli import app
from paramz.compat.convert import convert
from paramz.compat.convert.code import scan_source
from paramz.compat.convert.settings import read_settings

mup = pytest.importorskip("mup", reason="pip install --no-deps mup==1.0.0")

SCRIPT = """\
import mup
import torch
from mup import MuReadout as Readout, set_base_shapes
from mup.optim import MuAdamW
from torch import nn

torch.manual_seed(0)

def build(width):
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, width), Readout(width, 3))

model = build(32).double()
base = build(8)
set_base_shapes(model, base, delta=build(9))
optimizer = MuAdamW(model.parameters(), lr=0.01, weight_decay=0.1, eps=1e-30)
"""

MEGATRON = """\
#!/bin/bash
HIDDEN=128
ARGS=(
    --num-layers ${LAYERS:-2} --hidden-size "$HIDDEN"
    --ffn-hidden-size 352  # a comment
    --num-attention-heads 8 --num-query-groups 4
    --padded-vocab-size 96 --max-position-embeddings 16
    --swiglu --untie-embeddings-and-output-weights
    --init-method-std 0.05
    --use-mup
    --mup-base-hidden-size 32
    --mup-base-head-dim 16
    --mup-embedding-mult 4.0
)
torchrun pretrain_gpt.py ${ARGS[@]} --lr 0.01 --weight-decay=0.1 --adam-eps 1e-8
"""

ZOO = """\
trainer:
  init:
    model:
      hidden_size: 64
      filter_size: 384
      num_hidden_layers: 2
      num_heads: 4
      vocab_size: 96
      max_position_embeddings: 16
      mup_base_hidden_size: 32
      mup_base_filter_size: 64
      output_logits_alpha: 2.2
      scale_qk_dot_by_d: true
      share_embedding_weights: false
      initializer_range: 0.08
      lr_adjustment_groups:
        embedding: "*embedding*weight"
    optimizer:
      AdamW: {learning_rate: 6e-3, weight_decay: 0.1}
"""


def run(*arguments):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def execute(code):
    space = {}
    torch.manual_seed(0)
    exec(compile(code, "<converted>", "exec"), space)
    return space


def train(space, steps=5):
    x = torch.linspace(-1, 1, 48).reshape(8, 6).double()
    for _ in range(steps):
        space["optimizer"].zero_grad()
        out = space["model"](x)
        nn.functional.cross_entropy(out, torch.arange(8) % 3).backward()
        space["optimizer"].step()
    return out


# --- code


def test_each_use_with_its_place():
    found = {one.line: one for one in scan_source(SCRIPT, "train.py")}
    assert found[3].becomes == (
        "from paramz.compat.mup import MuReadout as Readout, set_base_shapes"
    )
    assert found[10].becomes == "nn.Linear(width, 3)"
    assert found[14].becomes == (
        "plan = paramz.parametrize_(model, 'mup', base=base, wider=build(9))"
    )
    assert found[15].becomes == (
        "torch.optim.AdamW(plan.param_groups(model, 'adamw', lr=0.01, weight_decay=0.1, eps=1e-30))"
    )


def test_the_imports_are_enough_to_run():
    lines = SCRIPT.splitlines()
    for one in scan_source(SCRIPT):
        if "import" in one.found:
            lines[one.line - 1] = one.becomes
    assert torch.allclose(
        train(execute("\n".join(lines))), train(execute(SCRIPT)), rtol=0, atol=1e-12
    )


def test_what_each_use_becomes_does_the_same():
    """Every use replaced by its equivalent, and no package imported but paramz."""
    lines = SCRIPT.splitlines()
    for one in scan_source(SCRIPT):
        if "import" in one.found:
            lines[one.line - 1] = "import paramz"
        else:
            written = one.found if one.found in lines[one.line - 1] else "Readout(width, 3)"
            lines[one.line - 1] = lines[one.line - 1].replace(written, one.becomes)
    code = "\n".join(lines)
    assert "Mu" not in code and "mup." not in code
    assert torch.allclose(train(execute(code)), train(execute(SCRIPT)), rtol=0, atol=1e-12)


CASES = {
    "set_base_shapes(build(w), 'a.bsh')": (
        "model = build(w); plan = paramz.parametrize_(model, 'mup', base=build, base_width=...)"
    ),
    "set_base_shapes(m, b, rescale_params=False, delta=d)": (
        "plan = paramz.parametrize_(m, 'mup', base=b, wider=d, init=False)"
    ),
    "set_base_shapes(m, None)": "",
    "make_base_shapes(a, b, savefile='x')": "",
    "MuReadout(w, 10, bias=False, output_mult=2.0, readout_zero_init=True)": (
        "nn.Linear(w, 10, bias=False)"
    ),
    "MuSharedReadout(tok.weight, bias=False)": (
        "nn.Linear(*reversed(tok.weight.shape), bias=False)  # then .weight = tok.weight"
    ),
    "MuSGD(net.parameters(), lr=0.1, momentum=0.9)": (
        "torch.optim.SGD(plan.param_groups(net, 'sgd', lr=0.1), momentum=0.9)"
    ),
    "MuAdam(net.parameters(), impl=torch.optim.RMSprop, lr=0.1, **more)": (
        "torch.optim.RMSprop(plan.param_groups(net, 'rmsprop', lr=0.1), **more)"
    ),
    "MuAdamW(net.parameters(), lr=1, weight_decay=1, decoupled_wd=True)": (
        "torch.optim.AdamW(plan.param_groups(net, 'adamw', lr=1, weight_decay=1, decay='coupled'))"
    ),
    "MuAdam(net.parameters(), Adam, off, lr=1)": (
        "torch.optim.Adam(plan.param_groups(net, 'adam', lr=1, "
        "decay='coupled' if off else 'lr-constant'))"
    ),
    "set_base_shapes(m, b, rescale_params=fresh, delta=None)": (
        "plan = paramz.parametrize_(m, 'mup', base=build, base_width=..., init=fresh)"
    ),
    "coord_check.example_plot_coord_check(True)": "",
    "import mup.init": "import paramz.compat.mup as mup",
    "import mup.init as start": "import paramz.compat.mup.init as start",
    "isinstance(x, MuReadout)": "nn.Linear",
    "init.kaiming_normal_(p, a=1)": "nn.init.kaiming_normal_(p, a=1)",
    "coord_check.get_coord_data(models, loader)": (
        "df = paramz.coord_check(build, batch, widths=[...])"
    ),
    "p.infshape.width_mult()": "paramz.compat.mup.infshape_of(p)",
    "get_infshapes(m)": "plan.rows",
    "clear_dims(x)": "paramz.compat.mup.clear_dims",
    "map(MuAdam, x)": "torch.optim.Adam",
    "p.infshape = shape": "",
    "hasattr(p, 'infshape')": "",
}


@pytest.mark.parametrize("use", CASES)
def test_what_a_use_becomes(use):
    *_, found = scan_source(
        f"from mup import *\nfrom mup import init, coord_check, clear_dims\n{use}"
    )
    assert (found.line, found.becomes) == (3, CASES[use])
    assert found.why


WORDS = {
    "MuReadout(w, 10, output_mult=32)": "multiply the logits by output_mult=32",
    "MuSharedReadout(w, output_mult=32)": "multiply the logits by output_mult=32",
    "MuReadout(w, 10, readout_zero_init=True)": "zero with nn.init.zeros_",
    "MuAdam(p, lr=1, weight_decay=1)": "so does its L2 decay",
    "MuAdamW(m.parameters(), lr=1)": "without weight_decay it is torch's 0.01",
    "MuSGD(groups, lr=1)": "groups has groups or a choice of its own",
    "set_base_shapes(m, None)": "the standard parametrization",
    "self.scale = 8 / d": "1/d_head would be scaled once more",
}


@pytest.mark.parametrize("use", WORDS)
def test_why(use):
    *_, found = scan_source(f"from mup import *\n{use}")
    assert WORDS[use] in found.why


def test_an_attention_scale_that_paramz_turns_itself_is_not_named():
    for text in ("self.scale = d**-0.5", "self.scale = 1 / math.sqrt(d)", "self.other = 8 / d"):
        assert len(scan_source(f"import mup\n{text}")) == 1
    assert scan_source("self.scale = 8 / d") == []


UNITS = {
    "uu.Linear(8, 8, bias=True)": "nn.Linear(8, 8, bias=True)",
    "uu.LinearReadout(8, 3, constraint=None)": "nn.Linear(8, 3, bias=False)",
    "uu.Linear(8, 8, True)": "nn.Linear(8, 8, True)",
    "uu.LayerNorm(8)": "nn.LayerNorm(8, elementwise_affine=False)",
    "uu.GELU(2.0)": "nn.GELU()",
    "uu.Softmax(-1, 2.0)": "nn.Softmax(-1)",
    "uu.optim.AdamW(m.parameters(), lr=1.0, weight_decay=0.1)": (
        "torch.optim.AdamW(plan.param_groups(m, 'adamw', lr=1.0, weight_decay=0.1))"
    ),
    "uu.optim.AdamW(p, lr=1, weight_decay=0.1, independent_weight_decay=False)": (
        "torch.optim.AdamW(plan.param_groups("
        "model, 'adamw', lr=1, weight_decay=0.1, decay='coupled'))"
    ),
    "uu.optim.SGD(p, lr=1, readout_constraint=None, allow_non_unit_scaling_params=True)": (
        "torch.optim.SGD(plan.param_groups(model, 'sgd', lr=1))"
    ),
    "U.gelu(x, mult=2.0)": "paramz.compat.unit_scaling.functional.gelu",
    "uu.TransformerDecoder(8, 9, 2, 2)": "paramz.nn.TransformerDecoder",
    "uu.transforms.unit_scale(m)": "",
    "unit_scale(m)": "",
}


@pytest.mark.parametrize("use", UNITS)
def test_what_a_use_of_unit_scaling_becomes(use):
    imports = (
        "import unit_scaling as uu\nimport unit_scaling.functional as U\n"
        "from unit_scaling.transforms import unit_scale\n"
    )
    *_, found = scan_source(imports + use)
    assert (found.line, found.becomes) == (4, UNITS[use])
    assert found.why


def test_nothing_else_is_named():
    other = "import torch\nMuReadout = 3\nx.normal_()\nfrom .mup import MuAdam\nMuAdam()\n"
    assert scan_source(other) == []
    fallback = "try:\n    from mup import MuSGD\nexcept ImportError:\n    MuSGD = None\n"
    assert [one.line for one in scan_source(fallback)] == [2]


def test_a_folder(tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "model.py").write_text("from mup import MuReadout\nMuReadout(4, 2)\n")
    (tmp_path / "train.py").write_text("import mup.optim as o\no.MuSGD(m.parameters(), lr=1)\n")
    (tmp_path / "old.py").write_text("print 'python 2'\n")
    (tmp_path / "base.bsh").write_text("w: [8]")
    (tmp_path / "run.sh").write_text("echo\ntrain --use-mup\n")
    (tmp_path / "other.yaml").write_text("a: 1\n")
    cells = [
        {"cell_type": "markdown", "source": ["from mup import nothing"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "from mup import MuSGD"]},
    ]
    (tmp_path / "notes.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "x.py").write_text("import mup\n")
    result = run(tmp_path, "--json")
    found = json.loads(result.stdout)
    assert found["kind"] == "code"
    assert [(one["file"], one["line"]) for one in found["findings"]] == [
        ("base.bsh", 0), ("notes.ipynb", 2), ("old.py", 1), ("pkg/model.py", 1),
        ("pkg/model.py", 2), ("run.sh", 2), ("train.py", 1), ("train.py", 2),
    ]  # fmt: skip
    assert found["findings"][0]["becomes"] == f"paramz convert {tmp_path}/base.bsh"
    assert found["findings"][2]["why"].startswith("not read: ")
    text = run(tmp_path).stdout
    assert "train.py:2: o.MuSGD(m.parameters(), lr=1)\n    -> torch.optim.SGD(" in text
    assert "Changing the 3 imports is enough to run" in text


# --- base shapes and models


def test_base_shapes(tmp_path):
    file = tmp_path / "net.bsh"
    small, more = (nn.Sequential(nn.Linear(4, w), mup.MuReadout(w, 2)) for w in (16, 17))
    mup.make_base_shapes(small, more, savefile=str(file))
    found = convert(file)
    assert found.kind == "base shapes" and "base_width=16" in found.code
    assert found.notes == ("sizes at the base of the axes that grow: 16 (3 axes)",)
    assert "net.bsh: 0.weight [16, None]" in run(file).stdout


MODEL = """\
import mup
from torch import nn

def net(w):
    return nn.Sequential(nn.Linear(6, w), nn.Linear(w, w), mup.MuReadout(w, 3, output_mult=2.0))

def model():
    return mup.set_base_shapes(net(32), net(8))

def bare():
    return net(32)

made = model()

def number():
    return 3
"""


@pytest.mark.parametrize("name", ["model", "made"])
def test_a_model_of_mups(name, tmp_path):
    (tmp_path / "nets.py").write_text(MODEL)
    result = run(f"{tmp_path}/nets.py:{name}")
    assert result.exit_code == 0, result.output
    assert "2: mup.MuReadout\n    -> nn.Linear" in result.stdout
    assert "multiply the logits by 2 in forward" in result.stdout
    plan = json.loads(run(f"{tmp_path}/nets.py:{name}", "--json").stdout)["plan"]
    assert [row["role"] for row in paramz.Plan.from_json(plan).to_json()["rows"]] == [
        "input", "vector", "hidden", "vector", "output", "scalar"
    ]  # fmt: skip


def test_the_plan_of_a_model_has_mups_rates():
    model = mup.set_base_shapes(
        *(nn.Sequential(nn.Linear(6, w), nn.Linear(w, w), mup.MuReadout(w, 3)) for w in (32, 8))
    )
    plan = paramz.convert(model).plan
    theirs = mup.MuSGD(model.parameters(), lr=0.1, weight_decay=0.01).param_groups
    wanted = {id(p): (g["lr"], g["weight_decay"]) for g in theirs for p in g["params"]}
    for group in plan.param_groups(model, "sgd", lr=0.1, weight_decay=0.01):
        for p in group["params"]:
            assert (group["lr"], group["weight_decay"]) == pytest.approx(wanted[id(p)], rel=1e-12)
    assert plan.param_groups(model, "lion", lr=0.1)


def test_the_plan_of_a_model_of_unit_scaling_has_its_rates():
    uu = pytest.importorskip("unit_scaling")
    model = uu.TransformerDecoder(hidden_size=16, vocab_size=11, layers=2, heads=2)
    plan = convert(model).plan
    theirs = uu.optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.1).param_groups
    wanted = {id(p): (g["lr"], g["weight_decay"]) for g in theirs for p in g["params"]}
    for group in plan.param_groups(model, "adamw", lr=1.0, weight_decay=0.1):
        for p in group["params"]:
            assert (group["lr"], group["weight_decay"]) == pytest.approx(wanted[id(p)], rel=1e-6)


# --- settings


def rates(space):
    return {id(p): g for g in space["optimizer"].param_groups for p in g["params"]}


def test_megatrons_flags(tmp_path):
    """The code builds the described model, whose rates are Megatron's."""
    file = tmp_path / "train.sh"
    file.write_text(MEGATRON)
    found = convert(file)
    assert found.kind == "megatron"
    told = {one.found: one for one in found.findings}
    assert told["--mup-base-hidden-size 32"].line == 11
    assert told["--use-mup"].becomes == "'mup'"
    assert "multiply the embedding's output by 4.0" in told["--mup-embedding-mult 4.0"].becomes
    space = execute(found.code)
    model, by_id, m = space["model"], rates(space), 128 / 32
    config = model.config
    assert (config.num_key_value_heads, config.num_attention_heads) == (4, 8)
    assert (config.intermediate_size, config.vocab_size) == (352, 96)
    for name, p in model.named_parameters():
        group = by_id[id(p)]
        hidden = p.dim() == 2 and "embed" not in name and "lm_head" not in name
        # The readout's logits / m is folded: std / m and lr / m in place of a multiplier.
        scaled = hidden or "lm_head" in name
        assert math.isclose(group["lr"], 0.01 / m if scaled else 0.01), name
        assert group["weight_decay"] == (0.1 if p.dim() == 2 else 0.0), name
        if hidden:
            assert math.isclose(group["eps"], 1e-8 / m), name
            assert math.isclose(p.std().item(), 0.05 / m**0.5, rel_tol=0.1), name
        if "lm_head" in name:
            assert math.isclose(p.std().item(), 0.05 / m, rel_tol=0.1)
        if "embed" in name:
            assert math.isclose(p.std().item(), 0.05, rel_tol=0.1)


def test_a_variable_with_a_default_of_its_own():
    script = (
        'H=${H:-1024}\nexport BASE="${BASE:-256}"\nN=$(nproc)\n'
        "run --use-mup --hidden-size $H --mup-base-hidden-size $BASE --num-layers $N"
    )
    values = read_settings(script, "train.sh").values
    assert (values["hidden"], values["base"], values["layers"]) == (1024, 256, "$N")


@pytest.mark.parametrize("rest", ['"\nrun $ARGS', ' $MORE"', ' >log"', '\n"\nDATA="--a b"'])
def test_what_comes_behind_a_switch_is_not_its_value(rest):
    script = f'ARGS="--use-mup --untie-embeddings-and-output-weights --swiglu{rest}'
    raw = read_settings(script, "train.sh").raw
    assert raw["swiglu"] is raw["use_mup"] is raw["untie_embeddings_and_output_weights"] is True


@pytest.mark.parametrize(
    "script",
    [
        'ARGS="--use-mup --hidden-size 1024 --mup-base-hidden-size 256 --lr 1e-3"\nrun $ARGS',
        "ARGS='--use-mup --hidden-size 1024 \\\n --mup-base-hidden-size 256 --lr 1e-3'\n",
        'ARGS="$ARGS --use-mup \\\n --hidden-size 1024 --mup-base-hidden-size 256 \\\n --lr 1e-3"',
        "--use-mup --mup-base-hidden-size 256 \\\n# --lr 8 \\\n--hidden-size 1024 --lr 1e-3",
        "--use-mup --mup-base-hidden-size 256 --hidden-size 1024 --lr 1e-3 \\\n# --lr 8 \\\n",
    ],
)
def test_flags_in_quotes_and_comments(script):
    values = read_settings(script, "train.sh").values
    assert {n: values[n] for n in ("use", "hidden", "base", "lr")} == {
        "use": True, "hidden": 1024, "base": 256, "lr": 1e-3
    }  # fmt: skip


def test_what_stands_in_the_value_of_a_flag_is_no_flag():
    read = read_settings('--use-mup --notes "as with --lr 8" --lr 1', "train.sh")
    assert read.values["lr"] == 1 and read.raw["notes"] == "as with --lr 8"


def test_heads_that_are_wider_than_the_model():
    flags = (
        "--use-mup --hidden-size 64 --mup-base-hidden-size 32 --num-layers 1 --kv-channels 32 "
        "--num-attention-heads 4 --padded-vocab-size 11"
    )
    code = convert(f"{flags} --swiglu").code
    config = execute(code)["model"].config
    assert (config.num_attention_heads, config.head_dim) == (4, 32)
    plain = convert(flags)
    assert "n_head=width * 4 // 64" in plain.code
    assert any("heads of n_embd / n_head = 16, not of 32" in note for note in plain.notes)


def test_heads_of_keys_that_gpt2_cannot_share_are_told():
    flags = (
        "--use-mup --hidden-size 64 --mup-base-hidden-size 32 --num-layers 1 "
        "--num-attention-heads 4 --num-query-groups "
    )
    said = "for each of its 4 heads of queries, and not 2"
    assert any(said in note for note in convert(flags + "2").notes)
    assert not any("queries" in note for note in convert(flags + "4").notes)
    assert not any("queries" in note for note in convert(flags + "2 --swiglu").notes)


def test_a_learning_rate_in_schedules(tmp_path):
    """The zoo's usual form, under the optimizer or beside it."""
    file = tmp_path / "params.yaml"
    usual = "      AdamW: {learning_rate: 6e-3, weight_decay: 0.1}\n"
    assert usual in ZOO
    rates = "{Linear: {initial_learning_rate: 0.0, end_learning_rate: 6e-3}}"
    for written in (f"      AdamW: {{learning_rate: [{rates}]}}\n", f"    schedulers: [{rates}]\n"):
        file.write_text(
            ZOO.replace("    optimizer:\n" + usual, "    optimizer:\n" + written)
            if "AdamW" in written
            else ZOO.replace("    optimizer:\n" + usual, written)
        )
        found = convert(file)
        assert "    lr=0.006,\n" in found.code
    file.write_text(ZOO.replace(usual, ""))
    assert any("says no learning rate" in note for note in convert(file).notes)


def test_heads_that_grow_and_ratios_that_differ():
    flags = (
        "--use-mup --hidden-size 64 --num-layers 2 --num-attention-heads 4 --padded-vocab-size 11 "
        "--mup-base-hidden-size 32 --mup-base-head-dim 8 --mup-output-mult 0.25 --lr 0.01"
    )
    result = run("--flags", flags)
    assert "n_head=4," in result.stdout
    assert "multiply the logits by 0.5 in forward" in result.stdout
    model = execute(convert(flags).code)["model"]
    assert len(paramz.plan_of(model).attention) == 2  # 1/d_head where the size of a head grows


def test_heads_that_grow_in_number_and_size():
    flags = (
        "--use-mup --hidden-size 128 --num-layers 1 --num-attention-heads 4 --padded-vocab-size 11 "
        "--mup-base-hidden-size 32 --mup-base-head-dim 16 --num-query-groups 2 --swiglu"
    )
    model = execute(convert(flags).code)["model"]
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (4, 2)
    (scale,) = {module.scaling for module in model.modules() if hasattr(module, "scaling")}
    assert math.isclose(scale, 16**0.5 / 32)  # 1/sqrt(16) at the base
    wide = execute(convert(f"{flags} --kv-channels 64").code)["model"]
    (scale,) = {module.scaling for module in wide.modules() if hasattr(module, "scaling")}
    assert math.isclose(scale, 16**0.5 / 64)


def test_a_gate_makes_megatrons_feed_forward_layers_smaller_if_no_size_is_said():
    flags = "--use-mup --hidden-size 1024 --num-layers 1 --num-attention-heads 4 --swiglu"
    assert "intermediate_size=width * 2688 // 1024," in convert(flags).code


def test_depth_recipe():
    flags = (
        "--scaling-recipe depth_mup --scaling-base-hidden-size 32 --scaling-base-num-layers 2 "
        "--num-layers 4 --hidden-size 64 --num-attention-heads 4 --padded-vocab-size 11 "
        "--seq-length 16 --lr 0.01 --mup-base-head-dim 16"
    )
    found = convert(flags)
    assert "'mup+completep'" in found.code
    plan = paramz.plan_of(execute(found.code)["model"])
    assert {row.ratios["depth"] for row in plan.rows if "depth" in row.ratios} == {2.0}


def test_cerebras_keys(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(ZOO)
    found = convert(file)
    assert found.kind == "cerebras"
    told = {one.found.partition(" ")[0]: one for one in found.findings}
    assert told["mup_base_filter_size"].line == 11
    assert "multiply the logits by 2.2" in told["output_logits_alpha"].becomes
    assert "no name patterns" in told["lr_adjustment_groups"].why
    space = execute(found.code)
    model, by_id = space["model"], rates(space)
    for name, p in model.named_parameters():
        ffn_out = "mlp.c_proj.weight" in name
        hidden = ".c_" in name and "weight" in name
        ratio = 384 / 64 if ffn_out else 2 if hidden or "lm_head" in name else 1
        assert math.isclose(by_id[id(p)]["lr"], 6e-3 / ratio), name


def test_configs_of_models_made_by_the_zoo(tmp_path):
    file = tmp_path / "config.json"
    config = {
        "n_embd": 64, "n_inner": 256, "n_layer": 2, "n_head": 4, "vocab_size": 11,
        "n_positions": 16, "mup_width_scale": 0.5, "mup_embeddings_scale": 10,
        "mup_output_alpha": 1.0, "mup_scale_qk_dot_by_d": True, "tie_word_embeddings": True,
    }  # fmt: skip
    file.write_text(json.dumps(config))
    found = convert(file)
    assert "base_width=32" in found.code
    execute(found.code)


# --- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one thing to convert"),
        (["nowhere.bsh"], "nowhere.bsh"),
        (["nowhere"], "nowhere"),
        (["--flags", "--hidden-size 8"], "has no setting of muP: looked for mup_base_hidden_size"),
        (
            ["--flags", "--use-mup --hidden-size 8"],
            "num_layers or num_hidden_layers or n_layer is missing: add --num-layers N to flags",
        ),
        (
            ["--flags", "--use-mup --hidden-size $H --num-layers 2 --num-attention-heads 2"],
            "hidden_size or n_embd is '$H', not a whole number",
        ),
        (
            ["--flags", "--use-mup --hidden-size 96 --num-layers 2 --num-attention-heads 2 "
             "--mup-base-hidden-size 64"],
            "heads of 48 do not divide the base width 64",
        ),
        (
            ["--flags", "--use-mup --hidden-size 96 --num-layers 2 --num-attention-heads 2 "
             "--mup-base-hidden-size 64 --mup-base-head-dim 24"],
            "mup_base_head_dim=24 does not divide the base width 64",
        ),
        (["--flags", "--scaling-recipe none --hidden-size 96"], "turns muP off, by --scaling-rec"),
        (["--flags", "--use-mup=false --hidden-size 96"], "turns muP off, by --use-mup"),
    ],
)  # fmt: skip
def test_errors(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_users_function_that_prints_or_fails(tmp_path):
    (tmp_path / "own.py").write_text(
        "print('loud')\n" + MODEL + "\ndef fails():\n    raise RuntimeError('no luck')\n"
    )
    result = run(f"{tmp_path}/own.py:fails")
    assert result.exit_code == 2 and result.stdout == ""
    assert "error: RuntimeError: no luck (own.py:" in result.stderr


def test_errors_of_files(tmp_path):
    (tmp_path / "nets.py").write_text(MODEL)
    (tmp_path / "bad.py").write_text("def (:\n")
    (tmp_path / "bad.yaml").write_text("a: [")
    for source, message in (
        (f"{tmp_path}/nets.py:bare", "0.weight (32, 6) has neither mup's infshape"),
        (f"{tmp_path}/nets.py:number", "is int, neither a model nor a function that returns one"),
        (f"{tmp_path}/nets.py:nope", "defines no function 'nope'"),
        (tmp_path / "bad.py", "bad.py:1: invalid syntax"),
        (tmp_path / "bad.yaml", "bad.yaml is not valid YAML or JSON"),
    ):
        result = run(source)
        assert result.exit_code == 2 and message in result.output, (source, result.output)
    (tmp_path / "clean").mkdir()
    assert "uses neither mup nor unit_scaling" in run(tmp_path / "clean").output


def test_code_and_settings_are_converted_without_loading_torch(tmp_path):
    (tmp_path / "train.py").write_text("import mup\nimport unit_scaling as uu\nuu.visualiser()\n")
    flags = "--use-mup --hidden-size 8 --num-layers 1 --num-attention-heads 2"
    code = (
        "import sys, paramz\n"
        f"paramz.convert({str(tmp_path)!r}), paramz.convert({flags!r})\n"
        "print([name for name in ('torch', 'pandas', 'numpy') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
