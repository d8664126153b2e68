"""The file that tells a job what to run; a job may start with another version of paramz."""

import json
from pathlib import Path

from paramz.slurm.order import JobOrder, keys_of
from paramz.sweeps.spec.limits import Limits

BEFORE = Path(__file__).parent / "order_of_before.json"


def test_an_order_of_before_is_read_and_written_as_before(tmp_path):
    order = JobOrder.read(BEFORE)
    assert order.limits == Limits(20.0, {"over": "lr", "min_steps": 50, "reduction": 3})
    assert [a.config for a in order.assignments()] == [{"width": 64}, {"width": 128}]
    assert {(a.threads, a.minutes, a.silent_minutes) for a in order.assignments()} == {(2, 5, 3)}
    order.write(tmp_path / "order.json")
    assert json.loads((tmp_path / "order.json").read_text()) == json.loads(BEFORE.read_text())


def test_the_keys_of_an_order_are_read_alone(tmp_path):
    assert keys_of(BEFORE) == {key for key, _ in JobOrder.read(BEFORE).trials}
    assert keys_of(tmp_path / "missing.json") == set()
