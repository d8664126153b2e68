import re
import subprocess
import sys

import pytest

from paramz.sweeps import Sweep
from paramz.sweeps.spec.config import canonical, config_key
from paramz.sweeps.spec.expression import Expression
from paramz.sweeps.spec.yamlfile import SpecError


def configs(**spec):
    return list(Sweep(train="lab:train", **spec).configs())


def test_product_has_the_last_axis_fastest_and_keeps_the_base():
    found = configs(base={"steps": 5}, axes={"width": [1, 2], "lr": {"log2": [-2, -1]}})
    assert found == [
        {"steps": 5, "width": 1, "lr": 0.25},
        {"steps": 5, "width": 1, "lr": 0.5},
        {"steps": 5, "width": 2, "lr": 0.25},
        {"steps": 5, "width": 2, "lr": 0.5},
    ]


def test_half_octaves():
    found = configs(axes={"lr": {"log2": [-1, 0], "step": 0.5}})
    assert [c["lr"] for c in found] == [0.5, 2**-0.5, 1.0]


def test_zip_moves_names_together_and_dots_reach_inside():
    found = configs(base={"adam": {"eps": 1}}, axes={"width, adam.lr": [[64, 0.1], [128, 0.2]]})
    assert found == [
        {"adam": {"eps": 1, "lr": 0.1}, "width": 64},
        {"adam": {"eps": 1, "lr": 0.2}, "width": 128},
    ]


def test_conditional_axis():
    momentum = {"by": "optimizer", "cases": {"sgd": [0, 0.9]}}
    found = configs(axes={"optimizer": ["sgd", "adam"], "momentum": momentum})
    assert found == [
        {"optimizer": "sgd", "momentum": 0},
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "adam"},
    ]


def test_conditional_axis_by_number_otherwise_and_nested():
    inner = {"by": "depth", "cases": {2: [5], "otherwise": [6]}}
    lr = {"by": "width", "cases": {64: inner, "otherwise": [7]}}
    found = configs(axes={"depth": [2, 4], "width": [64, 128], "lr": lr})
    assert [c["lr"] for c in found] == [5, 7, 6, 7]


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"o": ["sgd", "adam"], "m": {"SGD": [1], "adam": [2]}}, "'SGD' .* o is 'sgd', 'adam';"),
        ({"a, o": [[1, "x"], [2, "y"]], "m": {1: [1]}}, "case 1 never occurs, for o is 'x', 'y';"),
        ({"m": {False: [1]}}, "case False never occurs, for o is 0;"),
        ({"o": list(range(99)), "m": {99: [1]}}, "0, 1, 2, 3, 4, 5, 6, 7 and 91 more;"),
        ({"o": [1], "m": {0: [1]}}, "case 0 never occurs, for o is 1;"),  # in place of base's
        ({"o": [2, 4], "m": {2: [1], "otherwise": [2]}}, ""),
        ({"o": {"log2": [0, 2]}, "m": {4: [1]}}, ""),
        ({"b": [1, 2], "o": {"by": "b", "cases": {2: [3]}}, "m": {0: [1], 3: [2]}}, ""),
        ({"m": {0: {"by": "o", "cases": {1: [1]}}}}, "case 1 never occurs, for o is 0;"),
    ],
)
def test_a_case_that_never_occurs_is_told(axes, said, recwarn):
    """A typing error in it left its values out, and the name as well."""
    cases = axes | {"m": {"by": "o", "cases": axes["m"]}}
    configs(base={"o": 0}, axes=cases)
    told = [str(warning.message) for warning in recwarn]
    assert len(told) == bool(said) and all(map(re.compile(said).search, told)), told


def test_a_case_that_is_a_truth_value_is_no_number_and_a_list_is_no_case():
    five = {"by": "flag", "cases": {True: [5]}}
    assert [c.get("m") for c in configs(axes={"flag": [1, True, 2], "m": five})] == [None, 5, None]
    one = {"by": "betas", "cases": {"x": [1], "otherwise": [2]}}
    assert [c["m"] for c in configs(base={"betas": [0.9, 0.95]}, axes={"m": one})] == [2]


def test_keys_do_not_tell_1_from_1_0_nor_depend_on_order():
    assert config_key({"a": 1, "b": [2.0]}) == config_key({"b": [2], "a": 1.0})
    assert config_key({"a": 1}) != config_key({"a": "1"})
    assert config_key({"a": True}) != config_key({"a": "true"})


def test_key_is_stable_across_versions():
    """A change here would make every earlier run directory start afresh."""
    assert config_key({"width": 64, "lr": 0.125, "adam": {"eps": 1e-8}}) == "37e8f05a74f9fed2"


def test_canonical_refuses_what_json_cannot_hold():
    with pytest.raises(ValueError, match="finite numbers only, got nan"):
        canonical({"lr": float("nan")})
    with pytest.raises(ValueError, match="JSON values only, got set"):
        canonical({"lr": {1}})


def test_numbers_are_those_of_yaml_1_2(spec_file):
    sweep = Sweep.from_yaml(spec_file("base: {lr: 1e-3, a: .5, b: 2., c: on, d: 010, e: true}\n"))
    assert sweep.base == {"lr": 0.001, "a": 0.5, "b": 2.0, "c": "on", "d": 10, "e": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "axis: {width: [1]}",
            "2: unknown key 'axis'; known keys: train, command, resume, metrics",
        ),
        ("axes:\n  lr: {log: [-5, -1]}", "3: axes.lr: an axis is a list [a, b], a range {log2:"),
        ("axes:\n  lr: {log2: [-1, -5]}", "3: axes.lr.log2: the range [-1, -5] falls"),
        ("axes:\n  lr: {log2: [-1]}", "3: axes.lr.log2: value 2 of the list is missing"),
        ("axes: {lr: {log2: [-1, 0], step: 0.3}}", "0 is not a whole number of steps of 0.3"),
        ("axes:\n  w: []", "3: axes.w: List should have at least 1 item"),
        ("axes:\n  a, b: [[1, 2], [3]]", "axis 'a, b' sets 2 names, but has the row [3]"),
        ("axes: {a: [1], 'b, a': [[1, 2]]}", "the name 'a' is set twice"),
        ("axes:\n  a: {by: b, cases: {1: [2]}}\n  b: [1]", "depends on 'b', which is neither in"),
        ("axes:\n  a: [1]\n  a: [2]", "4: key 'a' is given twice"),
        ("axes: [a", "not valid YAML: expected ',' or ']'"),
        (
            "resources:\n  cpu: 1",
            "3: unknown key 'resources.cpu'; known keys: cpus",
        ),
        ("resources: {minutes: 3 * width}", "'3 * width' uses 'width'; a config has"),
        ("resources: {minutes: '__import__(\"os\")'}", "is not allowed; use numbers, names"),
        ("axes: {w: [1]}\nresources: {minutes: w - 1}", "'w - 1' comes to 0: Input should be gr"),
        ("budget: {trials: many}", "2: budget.trials: Input should be a valid integer"),
        ("train: missing.py:train", "1: train: no file missing.py in"),
        ("train: functions", "1: train: 'functions' names no function; write path/to/file.py:f"),
    ],
)
def test_errors_name_file_line_and_cure(spec_file, text, message):
    path = spec_file(text)
    with pytest.raises(SpecError) as caught:
        Sweep.from_yaml(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}:")


def test_all_errors_come_at_once(spec_file):
    with pytest.raises(SpecError) as caught:
        Sweep.from_yaml(spec_file("axis: 1\nbudget: {trials: -1}\nseeds: 3\n"))
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["2", "3", "4"]


def test_missing_function_lists_those_there_are(spec_file, tmp_path):
    (tmp_path / "lab.py").write_text("def fit(c): ...\n")
    with pytest.raises(SpecError, match="defines no function 'train'; it has: fit"):
        Sweep.from_yaml(spec_file("train: lab.py:train\n"))


def test_loading_a_spec_runs_no_code(spec_file, tmp_path):
    mark = tmp_path / "mark"
    path = spec_file(f"base: {{a: !!python/object/apply:os.system ['touch {mark}']}}\n")
    with pytest.raises(SpecError, match="could not determine a constructor"):
        Sweep.from_yaml(path)
    (tmp_path / "lab.py").write_text(f"open({str(mark)!r}, 'w')\ndef train(c): ...\n")
    Sweep.from_yaml(spec_file("train: lab.py:train\n"))
    assert not mark.exists()


def test_resources_follow_the_config():
    resources = {"minutes": "2 + 3 * (width / 64) ** 2", "gpus": "max(1, width // 1024)"}
    sweep = Sweep(train="lab:train", axes={"width": [64, 4096]}, resources=resources)
    needs = [sweep.need(config) for config in sweep.configs()]
    assert [(need.minutes, need.gpus, need.cpus) for need in needs] == [(5, 1, 1), (12290, 4, 1)]


def test_expressions_overflow_instead_of_computing_for_ever():
    with pytest.raises(ValueError, match="cannot be computed"):
        Expression("9 ** 9 ** 9 ** 9")({})


def test_yaml_round_trip(tmp_path):
    axes = {"width": [1, 2], "lr": {"log2": [-2, -1]}}
    sweep = Sweep(train="lab:train", axes=axes, resources={"minutes": "width / 2"})
    (tmp_path / "again.yaml").write_text(sweep.to_yaml())
    assert Sweep.from_yaml(tmp_path / "again.yaml").model_dump() == sweep.model_dump()


def test_import_is_light():
    code = (
        "import sys, paramz.sweeps; paramz.sweeps.Sweep, paramz.sweeps.run;"
        "print([m for m in ('torch', 'pandas', 'submitit', 'numpy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
