"""The launchers that the command line knows, and which of them runs a sweep.

To add a launcher, write one file that defines a `Launcher` and add it to `launchers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paramz.sweeps.running.launcher import Launcher, Options


def launchers() -> tuple[Launcher, ...]:
    """Every launcher; the first that accepts the options of a sweep runs it."""
    # The command line imports this module whatever the verb is, and must start fast.
    from paramz.slurm.launcher import SLURM
    from paramz.sweeps.running.local import LOCAL

    return SLURM, LOCAL


def launcher_for(options: Options) -> Launcher:
    """The launcher that the options ask for."""
    return next(launcher for launcher in launchers() if launcher.accepts(options))
