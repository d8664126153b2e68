from pathlib import Path

import pytest
from made_up import made_up_sweep, store_check, store_runs


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs with coordinate checks, and its report."""
    from paramz.analysis.report import write_report

    root = tmp_path_factory.mktemp("runs") / "demo"
    store_runs(made_up_sweep({"sp": -1.2, "mup": -0.05}), root / "lm")
    store_runs(made_up_sweep({"sp": -0.7, "mup": 0.02}), root / "mlp")
    store_check(root / "lm" / "coord", "sp-adamw", 0.5, passed=False)
    store_check(root / "lm" / "coord", "mup-adamw", 0.0, passed=True)
    write_report(root)
    return root
