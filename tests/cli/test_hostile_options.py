"""Options and files that are broken, or made to be: one message and exit code 2, without a hang."""

import os

import pytest
from typer.testing import CliRunner

from paramz.cli import app

TASK = "import paramz\n\ndef task(config):\n    raise ValueError(f'no model for {config}')\n"


def refused(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def task(tmp_path):
    (tmp_path / "task.py").write_text(TASK)
    return f"{tmp_path}/task.py:task"


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--widths", "-1,2", "-1 is no size"),
        ("--widths", "0,2", "0 is no size"),
        ("--widths", "64,", "write whole numbers"),
        ("--depths", "2,-4", "-4 is no size"),
        ("--experts", "0,2", "0 is no size"),
        ("--densities", "1,0", "0 is no density"),
        ("--densities", "", "write numbers with commas"),
        ("--base-width", "0", "greater than or equal to 1"),
        ("--lr", "2^99999", "write numbers with commas"),
        ("--lr", "-2^0.5", "write numbers with commas"),
        ("--lr", "0^-1", "write numbers with commas"),
        ("--lr", "nan", "nan is no learning rate"),
        ("--lr", "-0.1", "-0.1 is no learning rate"),
        ("--set", "x=[1,", "--set x=[1,: not valid YAML"),
        ("--set", "x=.nan", "finite numbers only"),
        ("--set", "x", "write key=value"),
        ("--set", "x=" + "[" * 100, "nested more than 40 levels deep"),
        ("--label", "a/b", "write up to 100 characters without /"),
        ("--label", "..", "write up to 100 characters without /"),
        ("--label", "a\0b", "write up to 100 characters without /"),
        ("--label", "x" * 300, "write up to 100 characters without /"),
        ("--label", "", "write up to 100 characters without /"),
    ],
)
def test_a_check_refuses_a_bad_option(task, option, value, said):
    assert said in refused("check", task, option, value)


def test_a_setting_given_twice_is_refused(task):
    assert "'x' is given twice" in refused("check", task, "--set", "x=1", "--set", "x=2")


LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("laughs.yaml", LAUGHS, "more than 1,000,000 values"),
        ("deep.yaml", "[" * 3000, "nested more than 40 levels deep"),
        ("deep.json", "[" * 100_000, "not valid YAML or JSON"),
        ("deep2.json", '{"a": ' * 450 + "1" + "}" * 450, "has no setting of muP"),
        ("deep.py", "x = " + "(" * 500 + ")" * 500, "deep.py"),
        ("minus.py", "import mup\nx = " + "-" * 50_000 + "1", "minus.py"),
        ("book.ipynb", "[]", "no notebook that can be read"),
        ("book2.ipynb", '{"cells": [1]}', "no notebook that can be read"),
        ("shapes.bsh", "w: [a, b]", "holds no base shapes"),
        ("shapes2.bsh", LAUGHS, "holds no base shapes"),
        ("huge.yaml", "use_mup: true\nhidden_size: 1e999\nmup_base_hidden_size: 4", "hidden_size"),
    ],
)
def test_convert_refuses_a_bad_file(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    assert said in refused("convert", tmp_path / name)


def test_convert_does_not_wait_for_a_pipe(tmp_path):
    for name in ("pipe.yaml", "pipe.py", "pipe.bsh", "pipe.ipynb"):
        os.mkfifo(tmp_path / name)
        assert "not a plain file" in refused("convert", tmp_path / name)
    (tmp_path / "model.py").write_text("import mup\n")
    found = CliRunner().invoke(app, ["convert", str(tmp_path)])
    assert found.exit_code == 0 and found.stdout.count("not a plain file") == 3
