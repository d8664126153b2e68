"""The further processes of a trial that has several: ranks 1, 2 ... of its job.

Rank 0 runs a pool as for any other trial, and makes the attempt. The other ranks wait for that
attempt and then each run the training function in one worker process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from paramz.slurm.order import JobOrder
from paramz.sweeps.running.messages import STOP, Order
from paramz.sweeps.running.process import Worker, start_worker
from paramz.sweeps.running.recording import failure
from paramz.sweeps.running.stopping import Stop
from paramz.sweeps.store.attempt import holder, slurm_job
from paramz.sweeps.store.store import Store

_WAIT = 300.0  # seconds to wait for the attempt of rank 0


def follow(store: Store, order: JobOrder, environment: Mapping[str, str], stop: Stop) -> None:
    """Run the trial of a job in this rank, once rank 0 has made an attempt at it.

    A result of this rank is not recorded, only a failure.

    Args:
        store: the directory of the sweep.
        order: the order of the job, with one trial.
        environment: the variables of torchrun for this rank.
        stop: looked at twice a second.

    Raises:
        RuntimeError: the training function fails in this rank, which is recorded as the failure of
            the trial. The exit code makes srun end the other ranks, which may wait for this one.
    """
    ((key, config),) = order.trials
    attempt = _attempt_of_rank_0(store, key, stop)
    if attempt is None:
        return
    rank = int(environment["RANK"])
    address = {"MASTER_ADDR": attempt["host"]}
    worker = start_worker(order.train, order.threads, dict(environment) | address)
    error = _run(
        worker, Order(key, config, store.trial(key), attempt["number"], order.limits, rank), stop
    )
    worker.process.kill()
    worker.process.wait()
    if error is None:
        return
    error = f"rank {rank}: {error}"
    seconds = time.time() - attempt["started"]
    store.save(failure(key, config, error, seconds, attempt["number"]))
    raise RuntimeError(error)


def _run(worker: Worker, order: Order, stop: Stop) -> str | None:
    """Run a trial in a worker; the error if it failed other than by being stopped."""
    stopped = False
    try:
        kind, content = worker.connection.recv()
        if kind == "broken":
            return str(content.splitlines()[-1])
        worker.connection.send(order)
        while not worker.connection.poll(0.5):
            if stop.requested and not stopped:
                worker.process.send_signal(STOP)
                stopped = True
        kind, content = worker.connection.recv()
    except EOFError:
        return None if stopped else "its process died"
    failed = content["status"] == "failed" and not stopped
    return str(content["error"]) if failed else None


def _attempt_of_rank_0(store: Store, key: str, stop: Stop) -> dict[str, Any] | None:
    """The attempt that rank 0 of this job makes; None if it makes none."""
    give_up = time.monotonic() + _WAIT
    while time.monotonic() < give_up and not stop.requested and not store.result(key).exists():
        running = holder(store.trial(key))
        if running is not None and running.get("job") == slurm_job():
            return running
        time.sleep(0.2)
    return None
