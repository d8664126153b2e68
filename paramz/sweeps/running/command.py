"""Running a command as a training function: its metrics become those of the trial."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from paramz.sweeps.running.parent import die_with_parent
from paramz.sweeps.running.row import Row
from paramz.sweeps.running.tail import Reader, reader_of
from paramz.sweeps.running.trial import Trial
from paramz.sweeps.running.wording import killed_by
from paramz.sweeps.spec.command import INTERPRETERS, Command, filled, holes, is_command
from paramz.sweeps.spec.config import Config, leaves
from paramz.sweeps.spec.target import load_target

_LOOK = 0.2  # seconds between looks at the command and its metrics
_PATIENCE = 10.0  # seconds that a command has to end after SIGTERM, where nobody waits for it
_SOON = 2.0  # seconds after the end of a command by SIGTERM in which the request to stop may come
_TAIL = 3  # lines of output that an error message repeats


class CommandFailed(RuntimeError):
    """A command that ended with an error, or left no loss."""


def load(name: str) -> Callable[[Config, Trial], Any]:
    """The training function of a name, or the one that runs the command of that name.

    Raises:
        ImportError: there is no such function.
    """
    return training_function(Command.parse(name)) if is_command(name) else load_target(name)


def training_function(command: Command) -> Callable[[Config, Trial], dict[str, float]]:
    """The training function that runs a command.

    It logs the command's metrics as they appear, so that a loss that diverges, or that falls behind
    in successive halving, ends the command. A request to stop is handed on as SIGTERM.
    """

    def train(config: Config, trial: Trial) -> dict[str, float]:
        trial.should_stop()  # from now on a request to stop does not end this process at once
        words = words_of(command, config, trial)
        print(f"$ {shlex.join(words)}", flush=True)
        log = trial.directory / (f"log.{trial.rank}.txt" if trial.rank else "log.txt")
        file = str(_path(command, command.metrics.file or "", values_of(config, trial)))
        history = _History(command, reader_of(command.metrics, file, log), trial)
        history.skip()
        child = _start(command, words)
        try:
            while child.poll() is None:
                history.report()
                if trial.should_stop():
                    _end(child, patience=None)
                    history.report()  # what it logged before it ended
                    return {}
                time.sleep(_LOOK)
            history.report(last=True)
        finally:
            _end(child, _PATIENCE)
        if trial.should_stop() or (child.returncode == -signal.SIGTERM and _told_soon(trial)):
            return {}
        if child.returncode:
            raise CommandFailed(f"{_ended(child.returncode)}{_last_lines(log)}")
        return history.result(file)

    return train


def values_of(config: Mapping[str, Any], trial: Trial) -> dict[str, Any]:
    """What the holes of a command stand for in one trial."""
    of_trial = {
        "trial.directory": trial.directory.absolute(),
        "trial.key": trial.key,
        "trial.attempt": trial.attempt,
    }
    return {**leaves(config), **of_trial}


def words_of(command: Command, config: Mapping[str, Any], trial: Trial) -> list[str]:
    """The words of a command in one trial, those for resuming among them.

    These are left out where a file in the trial's directory that they name does not exist, because
    the attempt before was stopped before it saved one.

    Raises:
        KeyError: the config lacks a value.
    """
    values = values_of(config, trial)
    words = [filled(word, values) for word in command.words]
    if words[0] in INTERPRETERS:
        words[0] = sys.executable
    there = (
        Path(filled(word, values)).exists()
        for word in command.resume
        if "trial.directory" in holes([word])
    )
    if trial.resumed and all(there):
        words += [filled(word, values) for word in command.resume]
    return words


class _History:
    """The metrics of a command, as the history of its trial."""

    def __init__(self, command: Command, read: Reader, trial: Trial) -> None:
        self._metrics, self._read, self._trial = command.metrics, read, trial
        self._losses: list[float] = []
        self._last: Row = {}
        self._names: dict[str, None] = {}
        self._steps = 0

    def skip(self) -> None:
        """Pass over what is there before the command starts; only an earlier attempt's counts."""
        rows = self._read(not self._trial.resumed)
        for row in rows if self._trial.resumed else ():
            self._take(row)

    def report(self, *, last: bool = False) -> None:
        """Log what is new.

        Args:
            last: the command has ended, so that a last line without an end is whole.

        Raises:
            paramz.sweeps.running.trial.Diverged: the loss has diverged.
            paramz.sweeps.running.halving.Stopped: the trial has fallen behind.
        """
        for row in self._read(last):
            step, metrics = self._take(row)
            if metrics and self._trial.rank == 0:
                self._trial.log(step, **metrics)

    def _take(self, row: Row) -> tuple[int, Row]:
        self._names |= dict.fromkeys(row)
        self._steps += 1
        step = row.get(self._metrics.step, float(self._steps))
        step = int(step) if step == step and abs(step) < 2**62 else self._steps
        metrics = {}
        for name, value in row.items():
            if name == self._metrics.loss:
                metrics["loss"] = value
                self._losses.append(value)
            elif name != self._metrics.step:
                metrics["file.loss" if name == "loss" else name] = value
        self._last |= metrics
        return step, metrics

    def result(self, file: str) -> Row:
        """The last value of every metric.

        Raises:
            CommandFailed: there was no loss.
        """
        if self._trial.rank > 0:
            return {"loss": 0.0}  # nobody records it
        if not self._losses:
            raise CommandFailed(self._no_loss(file))
        last = self._losses[-self._metrics.average :]
        return {**self._last, "loss": sum(last) / len(last)}

    def _no_loss(self, file: str) -> str:
        metrics = self._metrics
        if metrics.pattern is not None:
            return f"the command ended well, but no line of its output matches {metrics.pattern!r}"
        if self._names:
            found = f"{file}, which has {', '.join(self._names)}"
        else:
            found = f"{file}: {'no rows of numbers' if Path(file).exists() else 'no such file'}"
        return (
            f"the command ended well, but left no metric {metrics.loss!r} in {found}. "
            "metrics.file and metrics.loss of the spec say where the loss is"
        )


def _path(command: Command, file: str, values: Mapping[str, Any]) -> Path:
    """The file of metrics, as the command sees it from its folder."""
    return Path(command.folder) / filled(file, values)


def _start(command: Command, words: list[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            words,
            cwd=command.folder,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            preexec_fn=_before_the_command,
        )
    except OSError as error:
        raise CommandFailed(f"{words[0]} cannot be run in {command.folder}: {error}") from None


def _before_the_command() -> None:
    # Slurm's warning goes to every process of a job, and would end a command that does not know it.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    die_with_parent()


def _told_soon(trial: Trial) -> bool:
    """Whether a request to stop comes now: Slurm's SIGTERM reaches the command at the same time."""
    give_up = time.monotonic() + _SOON
    while not trial.should_stop() and time.monotonic() < give_up:
        time.sleep(_LOOK / 10)
    return trial.should_stop()


def _end(child: subprocess.Popen[bytes], patience: float | None) -> None:
    """End a command and what it has started, which share the process group of this worker.

    Args:
        child: the command.
        patience: seconds between SIGTERM and SIGKILL; None to wait until the pool's own patience
            ends, which kills the whole group.
    """
    if child.poll() is None:
        _signal_others(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(patience)
    _signal_others(signal.SIGKILL)
    if child.poll() is None:
        child.kill()
        child.wait()


def _signal_others(signum: int) -> None:
    """Send a signal to every other process of this one's group."""
    group = os.getpgid(0)
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        with suppress(ProcessLookupError, PermissionError):
            if pid != os.getpid() and os.getpgid(pid) == group:
                os.kill(pid, signum)


def _ended(code: int) -> str:
    if code > 0:
        return f"the command ended with exit code {code}"
    return f"the command was {killed_by(-code)}"


def _last_lines(log: Path) -> str:
    """The end of the output, where the reason usually is."""
    with suppress(OSError), open(log, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
        lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line]
        if len(lines) > 1:
            return ": " + " | ".join(lines[-_TAIL:])
    return ""
