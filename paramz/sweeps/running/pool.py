"""A bounded pool of worker processes: the one place where trials run, locally and in a Slurm job.

The pool alone claims trials, watches over workers and writes results; a worker only computes. So a
worker that is killed, hangs or runs out of memory costs its one trial, which is recorded.
"""

import errno
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from paramz.sweeps.running.process import Task, Worker, cause, start_worker
from paramz.sweeps.running.trial import STOP, Rules
from paramz.sweeps.running.worker import Order, Outcome
from paramz.sweeps.spec.config import Config
from paramz.sweeps.store.attempt import HEARTBEAT, Attempt, claim
from paramz.sweeps.store.store import Record, Store

_TICK = 0.5  # seconds between looks at limits and signals
_STILLBIRTHS = 3  # workers that may die while importing before the sweep is given up
_AFTER_KILL = 1.0  # seconds in which who killed the worker may kill the pool too: no failure then
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)


class BrokenTarget(RuntimeError):
    """The training function cannot be imported; no trial was run or recorded."""


@dataclass
class Stop:
    """A request to stop, set from a signal handler or another thread."""

    requested: bool = False
    grace: float = 30.0

    def request(self, grace: float | None = None) -> None:
        """Ask the pool to let trials save themselves, and to end them after `grace` seconds."""
        self.requested = True
        self.grace = self.grace if grace is None else grace


@dataclass
class Tally:
    """What became of the tasks of a pool."""

    saved: dict[str, str] = field(default_factory=dict)  # key -> status
    busy: set[str] = field(default_factory=set)  # run by somebody else
    interrupted: set[str] = field(default_factory=set)
    unsaved: set[str] = field(default_factory=set)  # finished, but the disk took no result

    @property
    def complete(self) -> bool:
        """Whether every task got a result."""
        return not (self.busy or self.interrupted or self.unsaved)

    @property
    def left(self) -> int:
        """Tasks without a result."""
        return len(self.busy | self.interrupted | self.unsaved)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.saved | other.saved,
            self.busy | other.busy,
            self.interrupted | other.interrupted,
            self.unsaved | other.unsaved,
        )


class Pool:
    """Runs tasks in worker processes until they are done or a stop is requested.

    Args:
        store: Where results go.
        target: The training function, `file.py:function` or `module:function`.
        workers: Processes at once.
        rules: When a trial is ended before its time.
        environment: Added to the workers' environment; per slot if a list.
        on_event: Called with ("start" | "end", key, status) as trials start and end.
    """

    def __init__(
        self,
        store: Store,
        target: str,
        *,
        workers: int,
        rules: Rules | None = None,
        environment: list[Mapping[str, str]] | None = None,
        on_event: Callable[[str, str, str], None] | None = None,
    ) -> None:
        self.store = store
        self.target = target
        self.size = workers
        self.rules = rules or Rules()
        self.environment = environment or [{}]
        self.on_event = on_event or (lambda *_: None)
        self.workers: list[Worker] = []
        self.tally = Tally()
        self.pending: list[tuple[Attempt, Record]] = []
        self._last_beat = 0.0
        self._again: list[Task] = []
        self._stillbirths = 0

    def run(self, tasks: Iterable[Task], stop: Stop, patience: float = 0.0) -> Tally:
        """Run the tasks.

        Args:
            tasks: What to run; a trial that has a result is passed over.
            stop: Looked at twice a second.
            patience: Seconds to keep asking for trials that another process holds.

        Raises:
            BrokenTarget: If the training function cannot be imported.
        """
        queue = deque(tasks)
        busy: deque[Task] = deque()
        give_up = time.monotonic() + patience
        try:
            while not stop.requested:
                queue.extend(self._again)
                self._again.clear()
                self._dispatch(queue, busy)
                if not (queue or self._again or self._running()):
                    if not busy or time.monotonic() > give_up:
                        break
                    queue, busy = busy, deque()
                    time.sleep(min(5.0, patience))
                self._turn()
            if stop.requested:
                self._interrupt(stop)
        finally:
            self._close()
        self._save_rest(patience=max(60.0, patience))
        self.tally.busy = {task.key for task in busy}
        self.tally.interrupted -= self.tally.saved.keys()
        return self.tally

    def _running(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.task is not None]

    def _dispatch(self, queue: deque[Task], busy: deque[Task]) -> None:
        """Give tasks to idle workers, starting workers as they are needed."""
        while queue and len(self._running()) < self.size:
            task = queue.popleft()
            if self.store.result(task.key).exists() and self.store.read(task.key) is not None:
                continue
            try:
                attempt = claim(self.store.trial(task.key))
            except OSError as error:
                if error.errno not in _FULL_DISK:
                    raise
                self.tally.unsaved.add(task.key)
                continue
            if attempt is None:
                busy.append(task)
                continue
            if self.store.result(task.key).exists():  # finished between the look and the claim
                attempt.end("finished by another process")
                continue
            worker = self._idle_worker(task.threads)
            worker.task, worker.attempt = task, attempt
            if worker.ready:
                self._order(worker)

    def _idle_worker(self, threads: int) -> Worker:
        idle = [worker for worker in self.workers if worker.task is None]
        for worker in idle:
            if worker.threads == threads:
                return worker
        if len(self.workers) >= self.size:
            self._dismiss(idle[0])
        return self._start(threads)

    def _start(self, threads: int) -> Worker:
        slot = min(set(range(self.size)) - {worker.slot for worker in self.workers})
        environment = self.environment[slot % len(self.environment)]
        worker = start_worker(self.target, threads, environment, slot)
        self.workers.append(worker)
        return worker

    def _order(self, worker: Worker) -> None:
        assert worker.task is not None and worker.attempt is not None
        task = worker.task
        worker.attempt.begin()
        self.on_event("start", task.key, "")
        order = Order(
            task.key,
            task.config,
            self.store.trial(task.key).absolute(),
            worker.attempt.number,
            self.rules,
        )
        try:
            worker.connection.send(order)
        except OSError:
            pass  # it died meanwhile: the next turn sees that

    def _turn(self) -> None:
        """Wait for news from workers, but not for long; then look at limits and heartbeats."""
        connections = {worker.connection: worker for worker in self.workers}
        for connection in wait(list(connections), timeout=_TICK):
            self._receive(connections[connection])  # type: ignore[index]
        now = time.monotonic()
        if now - self._last_beat >= HEARTBEAT:
            self._last_beat = now
            for worker in self._running():
                assert worker.attempt is not None
                worker.attempt.touch()
            self._save_pending()
        for worker in self._running():
            self._check_limits(worker)

    def _receive(self, worker: Worker) -> None:
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if kind == "broken":
            self._release(worker, "the training function cannot be imported")
            raise BrokenTarget(content)
        if kind == "ready":
            worker.ready = True
            if worker.task is not None:
                self._order(worker)
        else:
            self._finish(worker, content)

    def _check_limits(self, worker: Worker) -> None:
        task, attempt = worker.task, worker.attempt
        assert task is not None and attempt is not None
        if worker.condemned or not worker.ready:
            return
        if task.minutes is not None and attempt.seconds() > 60 * task.minutes:
            worker.condemned = f"over its time limit of {task.minutes:g} minutes"
        elif task.silent_minutes is not None:
            last = max(attempt.started, _modified(self.store.trial(task.key) / "history.jsonl"))
            if time.time() - last > 60 * task.silent_minutes:
                worker.condemned = f"logged nothing for {task.silent_minutes:g} minutes (a hang?)"
        if worker.condemned:
            worker.process.kill()

    def _bury(self, worker: Worker) -> None:
        """A worker is dead: record its trial as failed."""
        code = worker.process.wait()
        if code == -signal.SIGKILL and not worker.condemned:
            time.sleep(_AFTER_KILL)
        self.workers.remove(worker)
        worker.connection.close()
        if not worker.ready and worker.task is not None:
            self._stillborn(worker, code)
            return
        if worker.task is not None:
            error = worker.condemned or cause(code)
            self._finish(
                worker, {"status": "failed", "error": error, "traceback": None, "metrics": {}}
            )

    def _stillborn(self, worker: Worker, code: int) -> None:
        """A worker died while importing the training function; its trial goes back in the queue."""
        assert worker.task is not None
        self._again.append(worker.task)
        self._release(worker, "the worker died while starting")
        self._stillbirths += 1
        if self._stillbirths >= _STILLBIRTHS:
            raise BrokenTarget(f"{cause(code)} while importing {self.target}")

    def _finish(self, worker: Worker, outcome: Outcome) -> None:
        task, attempt = worker.task, worker.attempt
        assert task is not None and attempt is not None
        worker.task = worker.attempt = None
        if outcome["status"] == "interrupted":
            attempt.end("interrupted")
            self.tally.interrupted.add(task.key)
            self.on_event("end", task.key, "interrupted")
            return
        record = _record(task.key, task.config, outcome, attempt.seconds(), attempt.number)
        self._save(attempt, record)

    def _save(self, attempt: Attempt, record: Record) -> None:
        """Write a result; on a full disk keep it and try again with every heartbeat."""
        key, status = record["key"], record["status"]
        try:
            if not attempt.superseded() and self.store.save(record):
                self.tally.saved[key] = status
                self.on_event("end", key, status)
            attempt.end(status)
        except OSError as error:
            if error.errno not in _FULL_DISK:
                raise
            self.pending.append((attempt, record))

    def _save_pending(self) -> None:
        pending, self.pending = self.pending, []
        for attempt, record in pending:
            attempt.touch()
            self._save(attempt, record)

    def _save_rest(self, patience: float) -> None:
        give_up = time.monotonic() + patience
        while self.pending:
            self._save_pending()
            if not self.pending or time.monotonic() > give_up:
                break
            time.sleep(2.0)
        self.tally.unsaved |= {record["key"] for _, record in self.pending}

    def _interrupt(self, stop: Stop) -> None:
        """Let running trials save themselves, then end them; none of them gets a result."""
        for worker in self._running():
            if worker.ready:
                worker.process.send_signal(STOP)
            else:
                worker.process.kill()
        begun = time.monotonic()
        while self._running() and time.monotonic() - begun < stop.grace:
            for worker in list(self.workers):
                if worker.connection.poll():
                    self._settle(worker)
            time.sleep(0.02)
        for worker in self._running():
            self._release(worker, "interrupted")

    def _settle(self, worker: Worker) -> None:
        """Hear what a worker that was told to stop has to say: its result, or its end."""
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            self._release(worker, "interrupted")
            self.workers.remove(worker)
            return
        if kind == "done" and worker.task is not None:
            self._finish(worker, content)

    def _release(self, worker: Worker, why: str) -> None:
        if worker.task is not None and worker.attempt is not None:
            worker.attempt.end(why)
            self.tally.interrupted.add(worker.task.key)
            self.on_event("end", worker.task.key, "interrupted")
        worker.task = worker.attempt = None

    def _dismiss(self, worker: Worker) -> None:
        self.workers.remove(worker)
        worker.connection.close()
        worker.process.kill()
        worker.process.wait()

    def _close(self) -> None:
        for worker in list(self.workers):
            self._release(worker, "interrupted")
            self._dismiss(worker)


def failure(key: str, config: Config, error: str, seconds: float, attempts: int) -> Record:
    """The result of a trial that failed for a reason that its function cannot tell."""
    outcome: Outcome = {"status": "failed", "error": error, "traceback": None, "metrics": {}}
    return _record(key, config, outcome, seconds, attempts)


def _record(key: str, config: Config, outcome: Outcome, seconds: float, attempts: int) -> Record:
    return {
        "format": 1,
        "key": key,
        **outcome,
        "config": config,
        "seconds": round(seconds, 3),
        "attempts": attempts,
        "finished": time.time(),
    }


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
