"""The conditions under which a running trial is stopped before its training function returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """When a running trial is stopped early because of its loss.

    Attributes:
        loss_limit: the trial has diverged once its loss exceeds this value; None sets no limit.
        halving: settings of `paramz.sweeps.running.halving.Race` that are the same for all trials
            of a sweep; None turns successive halving off.
    """

    loss_limit: float | None = None
    halving: dict[str, str | int] | None = None
