"""Asynchronous successive halving (ASHA): stopping trials that fall behind others.

The rule and its bookkeeping are Optuna's ``SuccessiveHalvingPruner`` (Li et al. 2020, "A System for
Massively Parallel Hyperparameter Tuning", algorithm 2). A trial is compared only with trials that
differ from it in the searched axis and the seed, so that a wide model is never compared with a
narrow one, and only with those of the same code, of each with the last time that it ran. The state
is a journal file in the sweep's directory; many processes may append to it.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramz.sweeps.spec.config import SEED, Config, leaves


class Stopped(Exception):
    """Raised by `paramz.sweeps.Trial.log` when the trial has fallen behind its competitors."""


class Race:
    """The part of one trial in the successive halving of its group.

    Args:
        root: the directory of the sweep.
        key: the key of the trial; a trial that was interrupted keeps its earlier losses.
        config: the config of the trial.
        over: the config leaf in which the trials of the group differ, apart from the seed.
        min_steps: the step of the first cut.
        reduction: the best 1 / ``reduction`` of the trials continue at each cut, and each cut
            comes at ``reduction`` times the step of the one before.
        code: the hash of the code that the trial runs.

    Raises:
        ImportError: Optuna is not installed.
    """

    def __init__(
        self,
        root: Path,
        key: str,
        config: Config,
        over: str,
        min_steps: int,
        reduction: int,
        *,
        code: str | None = None,
    ) -> None:
        try:
            import optuna
        except ImportError:
            raise ImportError("halving needs optuna: pip install 'torch-paramz[sweeps]'") from None
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = str(root / "halving.journal")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            backend = JournalFileBackend(path, lock_obj=JournalFileOpenLock(path))
            self._study = optuna.create_study(
                study_name=group(config, over, code),
                storage=JournalStorage(backend),
                pruner=optuna.pruners.SuccessiveHalvingPruner(min_steps, reduction),
                sampler=optuna.samplers.RandomSampler(),
                load_if_exists=True,
            )
        running = (optuna.trial.TrialState.RUNNING,)
        mine = [
            trial
            for trial in self._study.get_trials(deepcopy=False, states=running)
            if trial.user_attrs.get("key") == key
        ]
        if mine:
            self._trial = optuna.trial.Trial(self._study, mine[0]._trial_id)
        else:
            self._trial = self._study.ask()
            self._trial.set_user_attr("key", key)
        self._states = optuna.trial.TrialState

    def report(self, step: int, loss: float) -> None:
        """Record the loss at a step.

        Raises:
            Stopped: the trial is not among those that continue.
        """
        self._trial.report(loss, step)
        mine = self._study._storage.get_trial(self._trial._trial_id)
        if self._study.pruner.prune(_LastRuns(self._study), mine):  # type: ignore[arg-type]
            raise Stopped(f"behind its competitors at step {step} with loss {loss:g}")

    def finish(self, status: str, loss: float) -> None:
        """Record the end of the trial, unless it was interrupted and will be resumed."""
        if status == "ok":
            self._study.tell(self._trial, loss)
        elif status == "stopped":
            self._study.tell(self._trial, state=self._states.PRUNED)
        elif status != "interrupted":
            self._study.tell(self._trial, state=self._states.FAIL)


@dataclass(frozen=True)
class _LastRuns:
    """A study as a pruner sees it, without what a trial that runs again has left there before.

    A trial that failed, and is tried again, would compete with itself: a loss that differs in the
    last digit would end the best one.
    """

    study: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.study, name)

    def get_trials(self, deepcopy: bool = False) -> list[Any]:
        """The last one of each key; in the order of their numbers, as all are."""
        found = self.study.get_trials(deepcopy=deepcopy)
        last = {_key(trial): trial.number for trial in found}
        return [trial for trial in found if last[_key(trial)] == trial.number]


def _key(trial: Any) -> Any:
    return trial.user_attrs.get("key", trial.number)  # it gets its key after it was made


def group(config: Config, over: str, code: str | None = None) -> str:
    """The name of the group of trials that a trial competes with."""
    rest: dict[str, Any] = {k: v for k, v in leaves(config).items() if k not in (over, SEED)}
    rest = {"config": rest, "code": code} if code else rest
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]
