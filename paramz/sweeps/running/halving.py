"""Stopping trials early that fall behind, by asynchronous successive halving (ASHA).

The rule and its bookkeeping are Optuna's (`SuccessiveHalvingPruner`; Li et al. 2020, "A System for
Massively Parallel Hyperparameter Tuning", algorithm 2). Trials are compared only with those that
differ in the axis searched over and the seed: a wide model is not measured against a narrow one.
The state is a journal file in the sweep's directory, which many processes may append to.
"""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

from paramz.sweeps.spec.config import Config, leaves

SEED = "seed"


class Stopped(Exception):
    """Raised by `Trial.log` when the trial has fallen behind its competitors."""


class Race:
    """One trial's part in the halving of its group.

    Args:
        root: The directory of the sweep.
        key: The trial's key; an interrupted trial goes on where it was.
        config: The trial's config.
        over: The config leaf that the group's trials differ in.
        min_steps: The step of the first cut.
        reduction: One of so many goes on at each cut, each that many times later than the last.

    Raises:
        ImportError: If Optuna is not installed.
    """

    def __init__(
        self, root: Path, key: str, config: Config, over: str, min_steps: int, reduction: int
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
                study_name=group(config, over),
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
        """Take note of a loss.

        Raises:
            Stopped: If the trial is not among those that go on.
        """
        self._trial.report(loss, step)
        if self._trial.should_prune():
            raise Stopped(f"behind its competitors at step {step} with loss {loss:g}")

    def finish(self, status: str, loss: float) -> None:
        """Take note of the end; an interrupted trial has none."""
        if status == "ok":
            self._study.tell(self._trial, loss)
        elif status == "stopped":
            self._study.tell(self._trial, state=self._states.PRUNED)
        elif status != "interrupted":
            self._study.tell(self._trial, state=self._states.FAIL)


def group(config: Config, over: str) -> str:
    """The name of the trials that a trial competes with."""
    rest: dict[str, Any] = {k: v for k, v in leaves(config).items() if k not in (over, SEED)}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]
