"""What runs inside a Slurm job: the same pool as on one machine, with Slurm's signals."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from submitit.core.utils import DelayedSubmission
from submitit.helpers import TorchDistributedEnvironment
from submitit.slurm.slurm import SlurmJobEnvironment

from paramz.slurm.follower import follow
from paramz.slurm.order import JobOrder
from paramz.sweeps.running.capacity import shares
from paramz.sweeps.running.pool import Pool
from paramz.sweeps.running.recording import Tally
from paramz.sweeps.running.stopping import Stop
from paramz.sweeps.store.attempt import STALE
from paramz.sweeps.store.store import Store

_RESERVE = 20.0  # seconds between the warning and the time limit that are kept for requeueing


@dataclass(frozen=True)
class Job:
    """One job, as submitit pickles it; a change of paramz before its start does no harm.

    Attributes:
        order: the path of its order.
    """

    order: str

    def __call__(self) -> dict[str, int]:
        """Run the trials of the job, except those that have a result or are run elsewhere."""
        order = JobOrder.read(Path(self.order))
        store = Store(Path(self.order).parents[3])
        stop = _SlurmStop(grace=max(5.0, order.signal_seconds - _RESERVE))
        environment = SlurmJobEnvironment()
        if environment.num_tasks > 1:
            ranks = _torchrun_variables()
            if environment.global_rank > 0:
                follow(store, order, ranks, stop)
                stop.finish()
                return {}
            tally = _run_pool(store, order, stop, [ranks])
        else:
            tally = _run_pool(store, order, stop, _gpu_shares(order))
        stop.finish(interrupted=bool(tally.interrupted))
        if tally.unsaved or tally.refused:
            raise OSError(
                f"{len(tally.unsaved)} results could not be written, and {len(tally.refused)} "
                f"trials could not be begun; is the disk full? {store.root}"
            )
        return {"ran": len(tally.saved), "left to others": len(tally.busy)}

    def checkpoint(self) -> DelayedSubmission:
        """What submitit runs after a requeue: the same job, as the state of trials is on disk."""
        return DelayedSubmission(self)


class _SlurmStop(Stop):
    """A request to stop that SIGUSR2 and SIGTERM make; both let running trials save themselves.

    Slurm sends SIGUSR2 before the time limit; submitit then requeues the job. It sends SIGTERM
    when the job is cancelled, and when it is preempted, in which case Slurm requeues it itself.
    The job cannot tell these two apart. Having saved its trials, it waits for Slurm to end it.
    """

    def __init__(self, grace: float) -> None:
        super().__init__(grace=grace)
        self._received: int | None = None
        self._requeue = signal.getsignal(signal.SIGUSR2)  # submitit's handler
        signal.signal(signal.SIGUSR2, self._receive)
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self._received = self._received or signum
        self.request()

    def finish(self, interrupted: bool = True) -> None:
        """Once the pool has ended with trials interrupted: requeue the job or wait for its end."""
        if self._received == signal.SIGUSR2 and interrupted and callable(self._requeue):
            self._requeue(signal.SIGUSR2, None)
        while self._received == signal.SIGTERM and interrupted:
            time.sleep(60)


def _run_pool(
    store: Store, order: JobOrder, stop: Stop, environment: list[Mapping[str, str]]
) -> Tally:
    pool = Pool(
        store,
        order.train,
        workers=order.workers,
        limits=order.limits,
        environment=environment,
        on_event=_say,
    )
    return pool.run(order.assignments(), stop, patience=STALE + 30)


def _say(kind: str, key: str, status: str) -> None:
    """Write a line to the log of the job, if the disk has room for it."""
    with suppress(OSError):
        print(kind, key, status, flush=True)


def _torchrun_variables() -> dict[str, str]:
    """The environment variables that torchrun would set for this process."""
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    os.environ["MASTER_ADDR"] = socket.gethostname()  # of rank 0; others read it from its attempt
    names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return {name: os.environ[name] for name in names}


def _gpu_shares(order: JobOrder) -> list[Mapping[str, str]]:
    """Which of the GPUs that Slurm gave to the job each worker sees."""
    visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    return shares(visible, order.gpus, order.workers) if order.gpus else [{}]
