"""One reader of values for specs and the command line, and a writer that it reads back."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from paramz.cli import app
from paramz.sweeps import Sweep
from paramz.sweeps.spec.config import config_key
from paramz.sweeps.spec.values import ValueTextError, read_value, write_values

WRITTEN = {
    "1e-8": 1e-8,
    "1E3": 1000.0,
    "on": "on",
    "yes": "yes",
    "true": True,
    "TRUE": True,
    "1:30": "1:30",
    "2026-01-01": "2026-01-01",
    "010": 10,
    "0o10": 8,
    "0x1F": 31,
    "1_000": "1_000",
    "~": None,
    "": None,
    "=": "=",
    ".inf": math.inf,
    "[1, 2.]": [1, 2.0],
}


@pytest.mark.parametrize(("text", "value"), WRITTEN.items())
def test_values_are_those_of_yaml_1_2(text, value):
    found = read_value(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", [text for text in WRITTEN if text != ".inf"])
def test_a_spec_and_the_command_line_read_alike(text, spec_file, tmp_path):
    (tmp_path / "task.py").write_text(
        "def task(config):\n    raise ValueError(f'got {config[\"x\"]!r}')\n"
    )
    arguments = ["plan", f"{tmp_path}/task.py:task", "--width", "8", "--base-width", "4"]
    said = CliRunner().invoke(app, [*arguments, "--set", f"x={text}"])
    written = Sweep.from_yaml(spec_file(f"base:\n  x: {text}\n")).base["x"]
    assert f"got {written!r}" in said.stderr and said.exit_code == 2


@pytest.mark.parametrize(
    "value", ["1e-3", "1E3", ".5", "010", "0x1F", "on", "true", "null", "~", "", "=", ".nan", "-1."]
)
def test_a_text_that_looks_like_a_number_stays_a_text(value, tmp_path):
    """Unquoted, it came back as a number at a retry, under another key."""
    sweep = Sweep(train="lab:train", base={"tag": value, "x": [value, {"y": value}]})
    (tmp_path / "spec.yaml").write_text(sweep.to_yaml())
    again = Sweep.from_yaml(tmp_path / "spec.yaml")
    assert again.base == sweep.base
    assert [config_key(c) for c in again.configs()] == [config_key(c) for c in sweep.configs()]


LEAVES = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(value=VALUES)
@example(value={"\x85": "a\u2028b"})  # line breaks of YAML 1.1
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back_as_it_was(value):
    found = read_value(write_values({"value": value}))["value"]
    assert found == value and repr(found) == repr(value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[1,", "not valid YAML"),
        ("a\0b", "not valid YAML"),
        ("[" * 100 + "]" * 100, "nested more than 40 levels deep"),
        ("{[1]: 2}", "a key is a word or a number, not a list"),
        ("&a [*a]", "an alias stands inside what it stands for"),
        ("!!int x", "a value cannot be read"),
        ("9" * 5000, "a value cannot be read"),
    ],
)
def test_a_text_that_is_no_value_is_refused_with_the_reason(text, problem):
    with pytest.raises(ValueTextError, match=problem):
        read_value(text)


def test_laughing_aliases_are_refused_at_once():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    with pytest.raises(ValueTextError, match="more than 1,000,000 values"):
        read_value("\n".join(lines))
