"""A pool of worker processes: the one place where trials run, on this machine and in a Slurm job.

Only the pool starts attempts, watches limits and writes results; a worker only computes. Therefore
a worker that crashes, hangs or runs out of memory costs no more than its one trial, and the pool
records that trial as failed.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Iterable, Mapping
from multiprocessing.connection import wait

from paramz.sweeps.running.guard import Guard
from paramz.sweeps.running.launcher import LaunchError
from paramz.sweeps.running.messages import STOP, Ending, Order
from paramz.sweeps.running.process import Assignment, Worker, cause, start_worker
from paramz.sweeps.running.recording import (
    REMOVED,
    OnEvent,
    Recorder,
    Tally,
    disk_is_full,
    failed,
)
from paramz.sweeps.running.sign_of_life import SignOfLife
from paramz.sweeps.running.stopping import Stop
from paramz.sweeps.spec.limits import Limits
from paramz.sweeps.store.attempt import HEARTBEAT, claim
from paramz.sweeps.store.store import Store

_TICK = 0.5  # seconds between looks at limits and stop requests
_MAX_FAILED_STARTS = 3  # workers that may die while they import the training function
# When Slurm kills a whole job, the worker may die before the pool, which must not blame the trial.
_AFTER_KILL = 1.0  # seconds before a failure is recorded


class BrokenTarget(LaunchError):
    """The training function cannot be imported; no trial was run or recorded."""


class Pool:
    """Runs trials in worker processes until all have ended or a stop is requested.

    Args:
        store: where results are written.
        target: the training function, ``file.py:function`` or ``module:function``.
        workers: number of worker processes.
        limits: when a trial is stopped early because of its loss.
        environment: variables that are added to the environment of each worker, by its slot; with
            fewer entries than workers they are repeated.
        on_event: called with ("start" | "end", key, status) as trials start and end.
    """

    def __init__(
        self,
        store: Store,
        target: str,
        *,
        workers: int,
        limits: Limits | None = None,
        environment: list[Mapping[str, str]] | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self._store = store
        self._target = target
        self._size = workers
        self._limits = limits or Limits()
        self._environment = environment or [{}]
        self._recorder = Recorder(store, on_event or (lambda *_: None))
        self._workers: list[Worker] = []
        self._guard = Guard()
        self._last_heartbeat = 0.0
        self._restart: list[Assignment] = []
        self._failed_starts = 0

    def run(self, assignments: Iterable[Assignment], stop: Stop, patience: float = 0.0) -> Tally:
        """Run trials; those that have a result already are skipped.

        Args:
            assignments: the trials.
            stop: looked at twice a second.
            patience: how many seconds to wait for trials that another process is running, in case
                it does not finish them.

        Raises:
            BrokenTarget: the training function cannot be imported.
        """
        tally = self._recorder.tally
        queue = deque(assignments)
        busy: deque[Assignment] = deque()
        give_up = time.monotonic() + patience
        last_look = False
        try:
            while not stop.requested:
                queue.extend(self._restart)
                self._restart.clear()
                self._dispatch(queue, busy)
                if not (queue or self._restart or self._running()):
                    if not busy or last_look:
                        break
                    last_look = time.monotonic() > give_up
                    queue, busy = busy, deque()
                    time.sleep(min(5.0, patience))
                self._watch()
            if stop.requested:
                self._interrupt(stop)
        finally:
            self._close()
        self._recorder.write_rest(patience=max(60.0, patience))
        tally.busy |= {assignment.key for assignment in busy}
        tally.waiting = {assignment.key for assignment in (*queue, *self._restart)}
        tally.interrupted -= tally.saved.keys()
        tally.stopped = stop.requested
        return tally

    def _running(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.assignment is not None]

    def _dispatch(self, queue: deque[Assignment], busy: deque[Assignment]) -> None:
        """Give trials to idle workers, and start workers as they are needed."""
        while queue and len(self._running()) < self._size:
            assignment = queue.popleft()
            key = assignment.key
            if self._store.result(key).exists() and self._store.read(key) is not None:
                continue
            try:
                attempt = claim(self._store.trial(key))
            except OSError as error:
                if not disk_is_full(error):
                    raise
                self._recorder.tally.refused.add(key)
                continue
            if attempt is None:
                busy.append(assignment)
                continue
            if self._store.result(key).exists():  # written after the first look, before the claim
                attempt.end("finished by another process")
                continue
            worker = self._idle_worker(assignment.threads)
            worker.assignment, worker.attempt = assignment, attempt
            if worker.ready:
                self._order(worker)

    def _idle_worker(self, threads: int) -> Worker:
        """An idle worker with this number of threads; a new one if there is none."""
        idle = [worker for worker in self._workers if worker.assignment is None]
        for worker in idle:
            if worker.threads == threads:
                return worker
        if len(self._workers) >= self._size:
            self._end(idle[0])
        slot = min(set(range(self._size)) - {worker.slot for worker in self._workers})
        environment = self._environment[slot % len(self._environment)]
        worker = start_worker(self._target, threads, environment, slot)
        self._workers.append(worker)
        self._guard.watch(worker.process.pid)
        return worker

    def _order(self, worker: Worker) -> None:
        """Send a worker that is ready the trial that it was given."""
        assignment, attempt = worker.assignment, worker.attempt
        assert assignment is not None and attempt is not None
        self._recorder.started(assignment.key, attempt)
        worker.sign = SignOfLife()
        directory = self._store.trial(assignment.key).absolute()
        order = Order(assignment.key, assignment.config, directory, attempt.number, self._limits)
        try:
            worker.connection.send(order)
        except OSError:
            pass  # the worker has died; the next look at its connection shows that

    def _watch(self) -> None:
        """Wait a moment for messages from workers, then look at limits and heartbeats."""
        connections = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(connections), timeout=_TICK):
            self._receive(connections[connection])  # type: ignore[index]
        for worker in list(self._workers):
            if worker.exited() and not worker.connection.poll():
                self._on_exit(worker)
        now = time.monotonic()
        if now - self._last_heartbeat >= HEARTBEAT:
            # After a suspension another process may be about to take over: look again soon.
            late = now - self._last_heartbeat > 2 * HEARTBEAT
            self._last_heartbeat = now - (HEARTBEAT - 2 if late else 0)
            for worker in self._running():
                self._beat(worker)
            self._recorder.write_again()
        for worker in self._running():
            assert worker.assignment is not None
            worker.kill_if_overdue(self._store.trial(worker.assignment.key) / "history.jsonl")

    def _beat(self, worker: Worker) -> None:
        """Give the heartbeat of a worker's trial, and end the worker if the trial was lost."""
        attempt = worker.attempt
        assert attempt is not None
        attempt.touch()
        if attempt.superseded():
            self._lose(worker)
        elif attempt.removed() and worker.killed_because is None:
            worker.killed_because = REMOVED
            worker.kill()

    def _lose(self, worker: Worker) -> None:
        """End a worker whose trial another process has taken over, having heard nothing of it."""
        assignment, attempt = worker.assignment, worker.attempt
        assert assignment is not None and attempt is not None
        self._end(worker)
        worker.assignment = worker.attempt = None
        self._recorder.lost(assignment.key, attempt)

    def _receive(self, worker: Worker) -> None:
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            self._on_exit(worker)
            return
        if kind == "broken":
            self._release(worker, "the training function cannot be imported")
            raise BrokenTarget(content)
        if kind == "ready":
            worker.ready = True
            if worker.assignment is not None:
                self._order(worker)
        else:
            self._finish(worker, content)

    def _on_exit(self, worker: Worker) -> None:
        """Record the trial of a worker that has died, or cut itself off, as failed."""
        worker.await_exit()
        code = self._end(worker)
        if code == -signal.SIGKILL and not worker.killed_because:
            time.sleep(_AFTER_KILL)
        if worker.assignment is None or worker.attempt is None:
            return
        if worker.attempt.superseded():
            self._recorder.lost(worker.assignment.key, worker.attempt)
        elif worker.ready:
            self._finish(worker, failed(worker.killed_because or cause(code)))
        else:
            self._on_failed_start(worker, code)

    def _on_failed_start(self, worker: Worker, code: int) -> None:
        """Put the trial of a worker that died while importing the function back in the queue."""
        assert worker.assignment is not None
        self._restart.append(worker.assignment)
        self._release(worker, "the worker died while starting")
        self._failed_starts += 1
        if self._failed_starts >= _MAX_FAILED_STARTS:
            raise BrokenTarget(f"{cause(code)} while importing {self._target}")

    def _finish(self, worker: Worker, outcome: Ending) -> None:
        assignment, attempt = worker.assignment, worker.attempt
        assert assignment is not None and attempt is not None
        worker.assignment = worker.attempt = None
        self._recorder.finished(assignment.key, assignment.config, attempt, outcome)

    def _interrupt(self, stop: Stop) -> None:
        """Let running trials save themselves, then end them; those still running get no result."""
        for worker in self._running():
            if worker.ready:
                worker.process.send_signal(STOP)
            else:
                worker.kill()
        begun = time.monotonic()
        while self._running() and time.monotonic() - begun < stop.grace:
            for worker in list(self._workers):
                if worker.connection.poll() or worker.exited():
                    self._receive_last(worker)
            time.sleep(0.02)
        for worker in self._running():
            self._release(worker, "interrupted")

    def _receive_last(self, worker: Worker) -> None:
        """Receive the outcome of a worker that was asked to stop, or notice that it has ended."""
        try:
            if not worker.connection.poll():
                raise EOFError
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            self._release(worker, "interrupted")
            self._end(worker)
            return
        if kind == "done" and worker.assignment is not None:
            self._finish(worker, content)

    def _release(self, worker: Worker, why: str) -> None:
        """Take a worker's trial away from it; the trial counts as interrupted."""
        if worker.assignment is not None and worker.attempt is not None:
            self._recorder.interrupted(worker.assignment.key, worker.attempt, why)
        worker.assignment = worker.attempt = None

    def _end(self, worker: Worker) -> int:
        self._workers.remove(worker)
        code = worker.end()
        self._guard.forget(worker.process.pid)
        return code

    def _close(self) -> None:
        for worker in list(self._workers):
            self._release(worker, "interrupted")
            self._end(worker)
        self._guard.close()
