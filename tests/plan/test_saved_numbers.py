"""A saved plan with a number that no plan can have is refused when it is read."""

import json

import pytest
from torch import nn

import paramz


def net(width=8):
    return nn.Sequential(nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 2))


@pytest.fixture(scope="module")
def saved():
    return json.dumps(paramz.parametrize_(net(32), "mup", base=net).to_json())


def set_ratio(value):
    def change(plan):
        row = next(row for row in plan["rows"] if row["ratios"])
        row["ratios"][next(iter(row["ratios"]))] = value

    return change


def change_row(**fields):
    return lambda plan: plan["rows"][0].update(fields)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_ratio(float("nan")), "NaN is no number that JSON or a plan can hold"),
        (set_ratio(float("-inf")), "-Infinity is no number"),
        (set_ratio(-2.0), "-2.0, and should be a finite number above 0"),
        (set_ratio(0), "0, and should be a finite number above 0"),
        (set_ratio("4"), "'4', and should be a finite number above 0"),
        (set_ratio(True), "True, and should be a finite number above 0"),
        (change_row(ratios={"wide": 2.0}), "unknown scale 'wide'"),
        (change_row(role="hiden"), "unknown role 'hiden'"),
        (change_row(shape=[-1, 4]), "shape is -1"),
        (change_row(shape=[4]), "differ in length"),
        (change_row(factor=float("inf")), "Infinity is no number"),
        (lambda plan: plan["rows"][0]["base_init"].update(std=-1.0), "base_init.std is -1.0"),
        (lambda plan: plan["rows"][0]["base_init"].update(kind="cauchy"), "kind 'cauchy' is none"),
        (lambda plan: plan["rows"].append(plan["rows"][0]), "rows: '0.weight' is there twice"),
        (lambda plan: plan.update(folded="no"), "folded is 'no', and should be true or false"),
        (change_row(growing=[2]), "growing names the axes (2,) of 2"),
        (
            lambda plan: plan["attention"].append(
                {"module": "a", "attribute": "scale", "plain": 1.0, "value": 1.0, "kind": "logit"}
            ),
            "attention 'a': kind 'logit' is none of",
        ),
        (lambda plan: plan["multipliers"].update(x="2"), "multipliers 'x' is '2'"),
        (lambda plan: plan["parametrization"]["attention"].update(head="1e9999999"), "no fraction"),
        (lambda plan: plan["parametrization"]["attention"].update(head="1/0"), "no fraction"),
    ],
)
def test_a_number_that_no_plan_can_have_is_refused_with_its_place(saved, tmp_path, change, said):
    plan = json.loads(saved)
    change(plan)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    with pytest.raises(ValueError, match="is no plan that this version reads: ") as error:
        paramz.Plan.load(path)
    assert said in str(error.value) and str(path) in str(error.value)


def test_a_number_that_overflows_and_a_deep_file_are_refused(saved, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(saved.replace('"ratios": {"fan_in": 4.0', '"ratios": {"fan_in": 1e999', 1))
    assert "1e999" in path.read_text()
    with pytest.raises(ValueError, match="ratios.fan_in is inf"):
        paramz.Plan.load(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        paramz.Plan.load(path)
