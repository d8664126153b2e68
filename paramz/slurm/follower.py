"""The processes beside the first one of a trial that takes several: ranks 1, 2 ... of its job."""

import time
from collections.abc import Mapping
from typing import Any

from paramz.sweeps.attempt import holder, slurm_job
from paramz.sweeps.pool import Stop, start_worker
from paramz.sweeps.store import Store
from paramz.sweeps.trial import STOP
from paramz.sweeps.worker import Order

_WAIT = 300.0  # seconds for the first rank to claim the trial


def follow(store: Store, order: Any, environment: Mapping[str, str], stop: Stop) -> None:
    """Run the trial once the first rank of this job has claimed it; that one records the result.

    Raises:
        RuntimeError: If the training function fails here; the first rank then fails in its next
            collective operation, or at its time limit.
    """
    (task,) = order["tasks"]
    attempt = _claimed(store, task["key"], stop)
    if attempt is None:
        return
    worker = start_worker(order["train"], order["threads"], environment)
    kind, content = worker.connection.recv()
    if kind == "ready":
        directory = store.trial(task["key"])
        rank = int(environment["RANK"])
        limit = order["loss_limit"]
        worker.connection.send(Order(task["key"], task["config"], directory, attempt, limit, rank))
        told = False
        while not worker.connection.poll(0.5):
            if stop.requested and not told:
                worker.process.send_signal(STOP)
                told = True
        try:
            kind, content = worker.connection.recv()
        except EOFError:
            content = {"status": "interrupted" if told else "failed", "error": "the worker died"}
    worker.process.kill()
    worker.process.wait()
    if kind == "broken" or content["status"] == "failed":
        raise RuntimeError(content if kind == "broken" else content["error"])


def _claimed(store: Store, key: str, stop: Stop) -> int | None:
    """The number of the attempt that this job's first rank makes; None if it makes none."""
    give_up = time.monotonic() + _WAIT
    while time.monotonic() < give_up and not stop.requested and not store.result(key).exists():
        running = holder(store.trial(key))
        if running is not None and running.get("job") == slurm_job():
            return int(running["number"])
        time.sleep(0.2)
    return None
