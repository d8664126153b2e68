"""`paramz tune` on a real Slurm, with an argparse script that does not import paramz."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from paramz.sweeps import Store

pytestmark = pytest.mark.slurm

SCRIPT = Path(__file__).parents[1] / "sweeps" / "train_script.py"


def test_a_script_is_tuned_by_calling_the_same_command_until_it_decides(lab_in, tmp_path):
    """Its best learning rate is 2^-6 at every width (tests/sweeps/train_script.py)."""
    spec, profile, out = tmp_path / "script.yaml", tmp_path / "site.yaml", tmp_path / "tune"
    spec.write_text(
        f"command: [python, {SCRIPT}, --n-embd, '{{width}}', --lr, '{{lr}}', "
        "--out, '{trial.directory}']\n"
        "metrics: {file: '{trial.directory}/log.csv', step: iter, loss: val loss}\n"
        "resources: {memory_gb: 0.1}\n"
    )
    profile.write_text("pack: {workers: 8, minutes: 400}\n")
    asked = [sys.executable, "-c", "from paramz.cli import main; main()", "tune", str(spec)]
    asked += ["--target", "width=256", "--budget", "20cpu-minutes", "--profile", str(profile)]
    codes, steps = [], []
    while not codes or codes[-1] == 3:
        done = subprocess.run([*asked, "--out", str(out)], capture_output=True, text=True)
        codes.append(done.returncode)
        assert done.returncode in (0, 3) and len(codes) < 15, done.stderr
        waiting = [path.parent for path in out.glob("*/trials.jsonl")]
        for root in sorted(waiting, key=lambda path: path.stat().st_mtime):
            lab, store = lab_in(root), Store(root)
            lab.finish(len(store.trials()))
            steps += [root.name] if root.name not in steps else []
    assert steps == ["pilot", "range", "sweep", "repeats"]
    found = json.loads((out / "decision.json").read_text())
    assert abs(math.log2(found["value"]) + 6) < 0.3, found
    assert found["forecast"]["mean"] is None or found["forecast"]["lo"] < found["forecast"]["hi"]
