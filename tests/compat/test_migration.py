"""docs/migration.md: every block runs, and the ones that should do the same do."""

import importlib
import inspect
import math
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from paramz.compat.convert import convert

mup = pytest.importorskip("mup", reason="pip install --no-deps mup==1.0.0")
pytest.importorskip("unit_scaling", reason="pip install --no-deps unit-scaling==0.3.5")
pytest.importorskip("transformers")

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
BLOCKS = {
    title: (kind, text)
    for kind, title, text in re.findall(r"```(\w+)\n# (.*?)\n(.*?)```", PAGE, re.DOTALL)
}


def run(*titles):
    """Execute blocks one after the other, as one program."""
    space = {"__name__": "page"}
    for title in titles:
        kind, text = BLOCKS[title]
        assert kind == "python"
        exec(compile(text, f"docs/migration.md: {title}", "exec"), space)
    return space


def losses(space, dtype=torch.float64, steps=5):
    model, optimizer = space["model"].to(dtype), space["optimizer"]
    x = torch.linspace(-1, 1, 12 * 16, dtype=dtype).reshape(12, 16)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), torch.arange(12) % 4)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_every_block_of_code_is_run_here():
    every = len(re.findall(r"```python\n", PAGE))
    source = Path(__file__).read_text(encoding="utf-8")
    assert [title for title in BLOCKS if f'"{title}"' not in source] == []
    assert sum(kind == "python" for kind, _ in BLOCKS.values()) == every


def test_mup_drop_in():
    before, after = (losses(run(f"mup, {how}")) for how in ("before", "drop-in"))
    assert before[0] > before[-1] and after[0] == before[0]
    assert after == pytest.approx(before, rel=1e-12)  # epsilon included
    assert run("mup, before")["model"].head.width_mult() == 4


def test_mup_plain_trains_like_the_drop_in():
    """From the same weights, with the readout's 1/4 in its weight, and a plan's epsilon."""
    drop, plain = run("mup, drop-in"), run("mup, plain")
    weights = drop["model"].state_dict()
    mup_eps = {group["eps"] for group in drop["optimizer"].param_groups}
    drop["optimizer"] = drop["MuAdamW"](
        drop["model"].parameters(), lr=2**-6, weight_decay=0.1, as_mup=False
    )
    assert mup_eps == {1e-8} and {g["eps"] for g in drop["optimizer"].param_groups} != mup_eps
    plain["model"].load_state_dict({**weights, "head.weight": weights["head.weight"] / 4})
    assert losses(plain) == pytest.approx(losses(drop), rel=1e-12)


def test_mup_plain_has_the_same_rates_and_sizes():
    """Form A and form B: the readout's multiplier is folded, so its rate and std carry it."""
    drop, plain = run("mup, drop-in"), run("mup, plain")
    rates = [
        {id(p): g["lr"] for g in space["optimizer"].param_groups for p in g["params"]}
        for space in (drop, plain)
    ]
    named = zip(drop["model"].named_parameters(), plain["model"].named_parameters(), strict=True)
    for (name, p), (_, q) in named:
        factor = 4 if name == "head.weight" else 1
        assert math.isclose(rates[0][id(p)], factor * rates[1][id(q)]), name
        if p.numel() > 100:
            assert p.std().item() == pytest.approx(factor * q.std().item(), rel=0.15), name


def test_the_other_blocks_about_mup(capsys):
    space = run("mup, drop-in", "mup, drop-in: the plan")
    assert {group["lr"] for group in space["groups"]} == {2**-9, 2**-11}
    run("mup, plain", "mup, infshape", "mup, export")
    space = run("mup, plain", "mup, drop-in", "mup, plain", "mup, coordinate check")
    assert "PASS" in capsys.readouterr().out
    assert set(space["table"].width) == {32, 64, 128}


def test_unit_scaling():
    ids = torch.arange(64).view(2, 32)
    before, after = run("unit-scaling, before"), run("unit-scaling, drop-in")
    values = []
    for space in (before, after):
        for _ in range(3):
            space["optimizer"].zero_grad()
            loss = space["model"].loss(ids)
            loss.backward()
            space["optimizer"].step()
        values.append(loss.item())
    assert values[1] == pytest.approx(values[0], rel=1e-4)
    assert run("unit-scaling, plain")["plan"].parametrization.name == "u-mup"


@pytest.mark.parametrize("name", ["megatron", "cerebras"])
def test_settings(name, tmp_path):
    """The page shows what `paramz convert` prints, and it runs."""
    kind, text = BLOCKS[f"{name}, before"]
    file = tmp_path / f"settings.{'sh' if kind == 'bash' else 'yaml'}"
    file.write_text(text)
    found = convert(file)
    assert found.kind == name
    assert BLOCKS[f"{name}, plain"][1] == found.code
    space = run(f"{name}, plain")
    assert space["optimizer"].param_groups
    assert BLOCKS["megatron, before"] and BLOCKS["cerebras, before"]
    assert BLOCKS["megatron, plain"] and BLOCKS["cerebras, plain"]


def test_the_lines_shown_are_those_that_convert_prints(tmp_path):
    shown = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL).group(1)
    for line in shown.splitlines():
        if match := re.match(r"(\w+\.py):\d+: (.*)", line):
            file = tmp_path / match.group(1)
            file.write_text(f"from mup import MuReadout, MuAdamW\n{match.group(2)}\n")
            *_, one = convert(file).findings
            assert f"    -> {one.becomes}\n    {one.why}\n" in shown


def test_names_that_are_left_out_are_listed():
    """Every public name of mup's modules exists here, or is in the table."""
    table = PAGE.split("### Names")[1].split("## From unit-scaling")[0]
    listed = set(re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE))
    assert "mup.coord_check.example_plot_coord_check" in listed
    for part in ("shape", "infshape", "layer", "init", "optim", "coord_check"):
        theirs = importlib.import_module(f"mup.{part}")
        mine = importlib.import_module(f"paramz.compat.mup.{part}")
        for name, value in vars(theirs).items():
            own = getattr(value, "__module__", theirs.__name__) == theirs.__name__
            if name.startswith("_") or inspect.ismodule(value) or not own:
                continue
            assert hasattr(mine, name) != (f"mup.{part}.{name}" in listed), name
