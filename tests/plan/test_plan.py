"""A plan as text: the summary that people read, and the JSON beside a checkpoint."""

import json
from dataclasses import replace

import pytest
import torch
from cases import gpt, llama, mlp, tied_gpt
from torch import nn

import paramz


def planned(build=mlp, width=32, base=8, **options):
    return paramz.parametrize_(build(width), "mup", base=build, base_width=base, **options)


def cells(plan, *arguments, **options):
    """Summary cells by tensor name."""
    table = plan.summary(*arguments, **options)
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.cells}


def test_one_line_per_kind_of_tensor():
    torch.manual_seed(0)
    plan = planned(llama, 64, 32)
    lines = cells(plan)
    assert len(lines) == 12
    line = lines["model.layers.{0..1}.self_attn.q_proj.weight"]
    assert line["shape"] == "64x64"
    assert line["role"] == "hidden"
    assert line["why"] == "Linear: fan_in and fan_out grow"
    assert line["lr"] == "fan_in^-1 = 0.5"
    assert line["eps"] == "fan_out^-1 = 0.5"
    assert line["decay"] == "fan_in = 2"
    assert line["init std"].startswith("fan_in^-1/2 = 0.01")
    assert line["multiplier"] == "1"
    assert lines["model.norm.weight"]["init std"] == "all 1"
    assert len(plan.summary(full=True).cells) == len(plan.rows) == 21


def test_blocks_are_one_line_although_their_measured_stds_differ():
    torch.manual_seed(0)
    lines = cells(planned(gpt, 32, 8))
    bias = lines["blocks.{0..1}.attn.proj.bias"]["init std"]
    low, high = map(float, bias.split(" to "))
    assert 0.1 < low < high < 0.3  # a uniform sample of eight at 1/sqrt(3 * 8) = 0.2
    assert lines["blocks.{0..1}.norm{1..2}.weight"]["init std"] == "all 1"


def test_a_long_name_cuts_no_number_off():
    plan = planned()
    long = "blocks." * 40 + "weight"
    table = plan.summary()
    wide = replace(table, cells=((long, *table.cells[0][1:]), *table.cells[1:]))
    line = next(line for line in str(wide).splitlines() if long in line)
    assert line.split()[1:] == " ".join(table.cells[0][1:]).split()


def test_roles_and_ratios_that_a_reader_may_not_know_are_explained_below_the_table():
    def build(width):
        sizes = [(4, width), (width, 3), (3, width), (width, 2)]
        return torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in sizes))

    (said,) = (note for note in planned(build).summary().notes if note.startswith("roles: "))
    assert said == (
        "roles: inward, from width into a size that stays, inside the network; outward, from a "
        "size that stays back to width; scalar, no axis grows"
    )
    assert "outward" not in "".join(planned().summary().notes)


def test_numbers_that_are_no_range_are_listed():
    names = list(cells(planned()))
    assert names == [
        "0.weight", "{0,4}.bias", "2.weight", "2.bias", "4.weight", "6.weight", "6.bias",
    ]  # fmt: skip


def test_the_columns_follow_the_optimizer():
    plan = planned()
    assert cells(plan, "sgd")["2.weight"]["lr"] == "fan_in^-1 fan_out = 1"
    assert cells(plan, "sgd")["2.weight"]["eps"] == ""
    assert cells(plan, "muon")["{0,4}.bias"]["lr"] == "no rule"
    assert "mup · muon · 8 tensors" in plan.summary("muon").title


def test_what_is_shown_is_what_the_groups_hold():
    model = gpt(32)
    plan = paramz.parametrize_(model, "mup", base=gpt)
    names = {id(p): name for name, p in model.named_parameters()}
    lines = cells(plan, "adamw", full=True)
    for group in plan.param_groups(model, "adamw", lr=1.0, weight_decay=1.0, eps=1.0):
        for parameter in group["params"]:
            line = lines[names[id(parameter)]]
            for column, key in (("lr", "lr"), ("eps", "eps"), ("decay", "weight_decay")):
                assert float(line[column].split(" = ")[-1]) == pytest.approx(group[key], rel=1e-3)


def test_ties_scales_and_multipliers_are_told():
    summary = planned(tied_gpt).summary()
    assert any(row[0] == "tokens.weight = head.weight" for row in summary.cells)
    assert "blocks.{0..1}.attn: attention logits, scale 0.25 -> 0.125" in summary.notes
    assert "head: input times 0.25" in summary.notes


def test_it_prints_as_a_table_of_whole_lines():
    text = str(planned(tied_gpt).summary())
    assert "blocks.{0..1}.attn.qkv.weight" in text
    assert "…" not in text
    assert "head: input times 0.25" in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_html_escapes_what_it_shows():
    html = planned().summary()._repr_html_()
    assert html.count("<tr>") == 8
    assert "<td>2.weight</td><td>64x32</td><td>hidden</td>" in html

    def build(width=8):
        return nn.ModuleDict({"<b>": nn.Linear(2, width, bias=False)})

    assert "&lt;b&gt;.weight" in planned(build).summary()._repr_html_()


@pytest.mark.parametrize("build", [mlp, tied_gpt, gpt])
def test_json_round_trip(build, tmp_path):
    plan = planned(build)
    path = tmp_path / "paramz.json"
    plan.save(path)
    assert paramz.Plan.load(path) == plan
    data = json.loads(path.read_text())
    assert data["format"] == 1
    assert data["parametrization"]["name"] == "mup"


def test_a_plan_does_not_depend_on_the_tables_of_the_version_that_reads_it(tmp_path):
    table = paramz.Parametrization(name="mine", source="", rules=paramz.NTP.rules)
    plan = paramz.parametrize_(mlp(32), table, base=mlp, fold=False)
    plan.save(tmp_path / "plan.json")
    assert paramz.Plan.load(tmp_path / "plan.json").parametrization == table


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not json", "Expecting value"),
        ("[]", "'list' object has no attribute 'get'"),
        ('{"format": 99}', "plan format 99, this version reads 1"),
        ('{"format": 1}', "'parametrization'"),
    ],
)
def test_a_file_that_is_no_plan(tmp_path, text, reason):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        paramz.Plan.load(path)
    assert str(error.value).startswith(f"{path} is no plan that this version reads: {reason}")
