"""The interface to every place where the trials of a sweep can run.

There are two: a pool of processes on this machine (`paramz.sweeps.running.local`), and jobs on a
Slurm cluster (`paramz.slurm.launcher`). The command line lists them in `paramz.cli.launchers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paramz.sweeps.running.stopping import Stop

if TYPE_CHECKING:  # these take a while to import, and `paramz status` needs neither
    from paramz.sweeps.spec.spec import Sweep
    from paramz.sweeps.store.store import Store

Retry = Literal["failed", "none", "diverged", "all"]
"""Which results are put aside before a rerun, so that their trials are run again."""


class LaunchError(RuntimeError):
    """A launcher cannot do what it was asked to; the message says what the user can change."""


@dataclass(frozen=True)
class Options:
    """How the trials of a sweep are to be run.

    Attributes:
        retry: which results are put aside first: those of failed trials ("failed"), of failed and
            diverged ones ("diverged"), "all" or "none".
        workers: how many trials run at once on this machine; None: as many as its CPUs, memory
            and GPUs allow.
        profile: the file that describes a cluster.
        changed: what happens to results of other code than the training function has now: they are
            told of ("tell"), put aside to run again ("rerun") or accepted ("accept").
        stop: looked at by whatever takes a while.
    """

    retry: Retry = "failed"
    workers: int | None = None
    profile: Path | None = None
    changed: Literal["tell", "rerun", "accept"] = "tell"
    stop: Stop = field(default_factory=Stop)


@dataclass(frozen=True)
class LaunchReport:
    """What a launcher did, or would do.

    Attributes:
        document: the report for programs.
        lines: the report for people.
        code: the exit code: 0 if all is well, 1 if trials failed or have no result, 130 if the
            user stopped them.
    """

    document: Mapping[str, Any]
    lines: tuple[str, ...] = ()
    code: int = 0


@dataclass(frozen=True)
class Live:
    """What a launcher has queued or started of a sweep.

    Attributes:
        jobs: number of its jobs in each state.
        reasons: why jobs wait, in the words of the launcher, and how many wait for each reason.
        trials: keys of the trials that these jobs were given, finished ones among them.
    """

    jobs: Mapping[str, int] = field(default_factory=dict)
    trials: frozenset[str] = frozenset()
    reasons: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Launcher:
    """A place where the trials of a sweep can run.

    All functions raise `LaunchError` if the launcher cannot do its part, and ``ValueError`` if the
    sweep or the options are wrong.

    Attributes:
        accepts: whether the options ask for this launcher.
        submit: run what a sweep is missing, or hand it to a queue.
        preview: report what `submit` would do, without writing or running anything.
        live: what is queued or started of a sweep; it is asked for every sweep, also for those
            that other launchers run.
        cancel: cancel what is queued or started of a sweep; returns the ids of the jobs.
        returns_at_once: whether `submit` returns before the trials have run.
    """

    accepts: Callable[[Options], bool]
    submit: Callable[[Sweep, Store, Options], LaunchReport]
    preview: Callable[[Sweep, Store, Options], LaunchReport]
    live: Callable[[Store], Live]
    cancel: Callable[[Store], list[str]]
    returns_at_once: bool
