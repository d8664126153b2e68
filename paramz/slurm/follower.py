"""The processes beside the first one of a trial that takes several: ranks 1, 2 ... of its job."""

import time
from collections.abc import Mapping
from typing import Any

from paramz.sweeps.running.pool import Stop, failure
from paramz.sweeps.running.process import start_worker
from paramz.sweeps.running.trial import STOP, Rules
from paramz.sweeps.running.worker import Order
from paramz.sweeps.store.attempt import holder, slurm_job
from paramz.sweeps.store.store import Store

_WAIT = 300.0  # seconds for the first rank to claim the trial


def follow(store: Store, order: Any, environment: Mapping[str, str], stop: Stop) -> None:
    """Run the trial once the first rank of this job has claimed it; that one records a success.

    Raises:
        RuntimeError: If the training function fails here, which is recorded as the trial's
            failure. The exit code makes srun end the other ranks, which may wait for this one.
    """
    (task,) = order["tasks"]
    attempt = _claimed(store, task["key"], stop)
    if attempt is None:
        return
    address = {"MASTER_ADDR": attempt["host"]}
    worker = start_worker(order["train"], order["threads"], dict(environment) | address)
    rank = int(environment["RANK"])
    told = False
    try:
        kind, content = worker.connection.recv()
        if kind == "ready":
            directory, rules = store.trial(task["key"]), Rules(**order["rules"])
            worker.connection.send(
                Order(task["key"], task["config"], directory, attempt["number"], rules, rank)
            )
            while not worker.connection.poll(0.5):
                if stop.requested and not told:
                    worker.process.send_signal(STOP)
                    told = True
            kind, content = worker.connection.recv()
    except EOFError:
        kind, content = "died", {"status": "failed", "error": "its process died"}
    worker.process.kill()
    worker.process.wait()
    if kind == "done" and content["status"] != "failed" or told:
        return
    error = f"rank {rank}: {content['error'] if kind != 'broken' else content.splitlines()[-1]}"
    seconds = time.time() - attempt["started"]
    store.save(failure(task["key"], task["config"], error, seconds, attempt["number"]))
    raise RuntimeError(error)


def _claimed(store: Store, key: str, stop: Stop) -> dict[str, Any] | None:
    """The attempt that this job's first rank makes; None if it makes none."""
    give_up = time.monotonic() + _WAIT
    while time.monotonic() < give_up and not stop.requested and not store.result(key).exists():
        running = holder(store.trial(key))
        if running is not None and running.get("job") == slurm_job():
            return running
        time.sleep(0.2)
    return None
