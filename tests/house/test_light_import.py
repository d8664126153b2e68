"""Importing paramz is cheap, and everything that it names is there."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import paramz

ANALYSIS = Path(__file__).parents[1] / "analysis"
HEAVY = ("torch", "pandas", "seaborn", "submitit", "transformers", "matplotlib", "scipy")


def loaded_by(statement):
    """Which heavy packages a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*[m for m in {HEAVY} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_import_paramz_loads_nothing_heavy():
    assert loaded_by("import paramz; dir(paramz); paramz.__version__") == []


def test_help_loads_nothing_heavy():
    help_ = "from paramz.cli import app\ntry: app(['--help'])\nexcept SystemExit: print()"
    assert not set(loaded_by(help_)) & set(HEAVY)


def test_judging_a_saved_table_draws_nothing_and_needs_no_model():
    statement = (
        f"sys.path.insert(0, {str(ANALYSIS)!r})\n"
        "import paramz, test_judge as made\n"
        "assert paramz.judge(made.table(*made.flat_layer())).passed"
    )
    assert set(loaded_by(statement)) == {"pandas", "scipy"}


def test_judging_loads_one_part_of_scipy():
    statement = (
        f"sys.path.insert(0, {str(ANALYSIS)!r})\n"
        "import paramz, test_judge as made\n"
        "paramz.judge(made.table(*made.flat_layer()))\n"
        "assert not {'scipy.stats', 'scipy.optimize'} & set(sys.modules)"
    )
    loaded_by(statement)


@pytest.mark.parametrize("module", ["rules", "tables", "families", "sweeps", "slurm"])
def test_modules_that_know_nothing_of_torch(module):
    assert "torch" not in loaded_by(f"from paramz import {module}")


def test_tables_are_data():
    assert loaded_by("import paramz; paramz.MUP.rule('adam', 'hidden')") == []


def test_planning_does_not_load_transformers():
    statement = (
        "import paramz, torch\n"
        "net = lambda w=8: torch.nn.Linear(4, w)\n"
        "paramz.parametrize_(net(16), 'mup', base=net)"
    )
    assert loaded_by(statement) == ["torch"]


@pytest.mark.parametrize("name", paramz.__all__)
def test_every_public_name_resolves(name):
    assert getattr(paramz, name) is not None
    assert name in dir(paramz)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'paramz' has no attribute 'MUPP'"):
        _ = paramz.MUPP


def test_type_checkers_see_the_same_names():
    source = importlib.import_module("paramz").__file__
    assert source is not None
    with open(source, encoding="utf-8") as file:
        declared = {line.split(" as ")[-1].strip() for line in file if " as " in line}
    assert declared == set(paramz._HOME)
