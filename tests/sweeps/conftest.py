"""Writing specs for the tests."""

from pathlib import Path

import pytest

from paramz.sweeps import Sweep

HERE = Path(__file__).parent


@pytest.fixture
def sweep():
    """Make a sweep of one of the functions in sweep_functions.py."""

    def make(function, **rest):
        return Sweep(train=f"{HERE}/sweep_functions.py:{function}", **rest)

    return make


@pytest.fixture
def spec_file(tmp_path):
    """Write a spec file that trains sweep_functions.py:train unless it says otherwise."""

    def write(text, name="spec.yaml"):
        path = tmp_path / name
        head = "" if "train:" in text else f"train: {HERE}/sweep_functions.py:train\n"
        path.write_text(head + text)
        return path

    return write
