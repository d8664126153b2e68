"""The further processes of a trial that has several: ranks 1, 2 ... of its job.

Rank 0 runs a pool as for any other trial, and makes the attempt. The other ranks, on whatever node,
wait for the attempt that this run of the job makes, and then each run the training function in one
worker process. They end with the attempt: when rank 0 has recorded its end, when another process
has taken over the trial, or when rank 0 gives no heartbeat.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from paramz.slurm.order import JobOrder
from paramz.sweeps.running.messages import STOP, Order
from paramz.sweeps.running.process import Worker, cause, start_worker
from paramz.sweeps.running.recording import failure
from paramz.sweeps.running.stopping import Stop
from paramz.sweeps.store.attempt import attempt_of, heard_from, slurm_job, slurm_restart
from paramz.sweeps.store.clock import Clock
from paramz.sweeps.store.store import Store

_WAIT = 300.0  # seconds to wait for the attempt of rank 0
_LOOK = 5.0  # seconds between looks at the attempt of rank 0 while the trial runs


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
    clock = Clock()
    address = {"MASTER_ADDR": attempt["host"]}
    worker = start_worker(order.train, order.threads, dict(environment) | address)
    sent = Order(key, config, store.trial(key).absolute(), attempt["number"], order.limits, rank)
    try:
        error = _run(worker, sent, stop, clock)
    finally:
        worker.end()
    if error is not None and _goes_on(sent):
        error = f"rank {rank}: {error}"
        store.save(failure(key, config, error, clock.seconds(), attempt["number"]))
        raise RuntimeError(error)
    while _goes_on(sent):  # srun takes the end of the first rank for the end of all
        time.sleep(1)


def _run(worker: Worker, order: Order, stop: Stop, clock: Clock) -> str | None:
    """Run a trial in a worker; the error if it failed other than by being stopped."""
    stopped, last_look = False, 0.0
    try:
        while True:
            if worker.connection.poll(0.5):
                kind, content = worker.connection.recv()
                if kind == "broken":
                    return str(content.splitlines()[-1])
                if kind == "done":
                    break
                worker.connection.send(order)
            elif worker.exited():
                raise EOFError
            if stop.requested and not stopped:
                worker.process.send_signal(STOP)
                stopped = True
            if clock.seconds() - last_look > _LOOK:
                last_look = clock.seconds()
                if not _goes_on(order):
                    return None
    except (EOFError, OSError):
        worker.await_exit()
        return None if stopped else worker.killed_because or cause(worker.end())
    failed = content["status"] == "failed" and not stopped
    return str(content["error"]) if failed else None


def _goes_on(order: Order) -> bool:
    """Whether rank 0 still makes the attempt that this rank takes part in."""
    now = attempt_of(order.directory, slurm_job(), slurm_restart())
    same = now is not None and now["number"] == order.attempt
    return same and heard_from(order.directory, order.attempt)


def _attempt_of_rank_0(store: Store, key: str, stop: Stop) -> dict[str, Any] | None:
    """The attempt that rank 0 of this job makes; None if it makes none."""
    give_up = time.monotonic() + _WAIT
    while time.monotonic() < give_up and not stop.requested and not store.result(key).exists():
        running = attempt_of(store.trial(key), slurm_job(), slurm_restart())
        if running is not None:
            return running
        time.sleep(0.2)
    return None
