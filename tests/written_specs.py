"""Fixtures that write specs; tests/sweeps and tests/cli share them."""

from pathlib import Path

import pytest

from paramz.sweeps import Sweep

FUNCTIONS = Path(__file__).parent / "sweeps" / "sweep_functions.py"


@pytest.fixture
def sweep():
    """Make a sweep of one of the functions in sweep_functions.py."""

    def make(function, **rest):
        return Sweep(train=f"{FUNCTIONS}:{function}", **rest)

    return make


@pytest.fixture
def spec_file(tmp_path):
    """Write a spec file that trains sweep_functions.py:train unless it says otherwise."""

    def write(text, name="spec.yaml"):
        path = tmp_path / name
        head = "" if "train:" in text else f"train: {FUNCTIONS}:train\n"
        path.write_text(head + text)
        return path

    return write
