"""What runs inside a Slurm job: the same pool as on one machine, and what signals mean here."""

import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from submitit.core.utils import DelayedSubmission
from submitit.helpers import TorchDistributedEnvironment
from submitit.slurm.slurm import SlurmJobEnvironment

from paramz.slurm.follower import follow
from paramz.sweeps.running.pool import Pool, Stop, Tally
from paramz.sweeps.running.process import Task
from paramz.sweeps.running.trial import Rules
from paramz.sweeps.store.attempt import STALE
from paramz.sweeps.store.store import Store

_RESERVE = 20.0  # seconds of the warning kept for requeueing


@dataclass(frozen=True)
class Job:
    """One job. This is what submitit pickles, so it holds a path and nothing else."""

    order: str

    def __call__(self) -> dict[str, int]:
        """Run the job's trials; those that have a result, or run elsewhere, are passed over."""
        order = json.loads(Path(self.order).read_text(encoding="utf-8"))
        store = Store(Path(self.order).parents[3])
        stop = _Signals(grace=max(5.0, order["signal_seconds"] - _RESERVE))
        environment = SlurmJobEnvironment()
        if environment.num_tasks > 1:
            ranks = _ranks()
            if environment.global_rank > 0:
                follow(store, order, ranks, stop)
                stop.finish()
                return {}
            tally = self._lead(store, order, stop, [ranks])
        else:
            tally = self._lead(store, order, stop, _gpu_shares(order["gpus"], order["workers"]))
        stop.finish(idle=bool(tally.interrupted))
        if tally.unsaved:
            raise OSError(f"{len(tally.unsaved)} results could not be written: {store.results}")
        return {"ran": len(tally.saved), "left to others": len(tally.busy)}

    def checkpoint(self) -> DelayedSubmission:
        """What submitit runs after a requeue: the same again. The state of trials is on disk."""
        return DelayedSubmission(self)

    def _lead(
        self, store: Store, order: Any, stop: Stop, environment: list[Mapping[str, str]]
    ) -> Tally:
        limits = (order["threads"], order["minutes"], order["silent_minutes"])
        tasks = [Task(task["key"], task["config"], *limits) for task in order["tasks"]]
        pool = Pool(
            store,
            order["train"],
            workers=order["workers"],
            rules=Rules(**order["rules"]),
            environment=environment,
            on_event=_say,
        )
        return pool.run(tasks, stop, patience=STALE + 30)


class _Signals(Stop):
    """USR2: trials save themselves, then submitit requeues. TERM: they save themselves.

    TERM comes with a cancellation and with preemption, which Slurm follows with its own requeue;
    the job cannot tell them apart, so having saved it waits for the end it is promised.
    """

    def __init__(self, grace: float) -> None:
        super().__init__(grace=grace)
        self.received: int | None = None
        self.requeue = signal.getsignal(signal.SIGUSR2)  # submitit's
        signal.signal(signal.SIGUSR2, self._receive)
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received = self.received or signum
        self.request()

    def finish(self, idle: bool = True) -> None:
        """After the pool: requeue if warned, wait for the end if terminated."""
        if self.received == signal.SIGUSR2 and idle and callable(self.requeue):
            self.requeue(signal.SIGUSR2, None)
        while self.received == signal.SIGTERM and idle:
            time.sleep(60)


def _say(kind: str, key: str, status: str) -> None:
    """A line in the job's log, if the disk has room for it."""
    with suppress(OSError):
        print(kind, key, status, flush=True)


def _ranks() -> dict[str, str]:
    """The variables of torchrun for this process of several."""
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    os.environ["MASTER_ADDR"] = socket.gethostname()  # followers take it from the claim
    names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return {name: os.environ[name] for name in names}


def _gpu_shares(gpus: float, workers: int) -> list[Mapping[str, str]]:
    """Which of the job's GPUs each worker sees; a fraction of a GPU means sharing it."""
    visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    if not gpus or not visible:
        return [{}]
    return [{"CUDA_VISIBLE_DEVICES": visible[int(i * gpus) % len(visible)]} for i in range(workers)]
