"""The launcher of this machine: a pool of worker processes, which runs until all trials end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from paramz.sweeps.running.launcher import Launcher, LaunchReport, Live, Options
from paramz.sweeps.spec.command import shown

if TYPE_CHECKING:
    from paramz.sweeps.spec.spec import Sweep
    from paramz.sweeps.store.store import Store

# The runner is imported where it is used: `paramz status` also imports this module, and must start
# fast.

_SHOWN = 20  # configs that a preview lists


def _accepts(options: Options) -> bool:
    return options.profile is None


def _submit(sweep: Sweep, store: Store, options: Options) -> LaunchReport:
    """Run what is missing; the progress goes to stderr, so that the report has no lines."""
    from paramz.sweeps.running.runner import run_missing

    tally = run_missing(sweep, store, options)
    counts = Counter(tally.saved.values())
    left = len(store.trials().keys() - store.finished())  # rounds of refinement among them
    document = {
        "directory": str(store.root),
        "trials": len(store.trials()),
        "ran": dict(counts),
        "left": left,
    }
    return LaunchReport(
        document, code=130 if tally.stopped else int(bool(left or counts["failed"]))
    )


def _preview(sweep: Sweep, store: Store, options: Options) -> LaunchReport:
    from paramz.sweeps.running.runner import check_budget

    check_budget(sweep)
    finished = store.finished() & sweep.trials.keys()
    missing = [config for key, config in sweep.trials.items() if key not in finished]
    lines = [
        shown(sweep.target),
        f"{len(missing)} trials to run, {len(finished)} done: {store.root}",
        *(
            "  " + "  ".join(f"{name}={value}" for name, value in config.items())
            for config in missing[:_SHOWN]
        ),
    ]
    if len(missing) > _SHOWN:
        lines.append(f"  and {len(missing) - _SHOWN} more")
    document = {
        "directory": str(store.root),
        "train": sweep.target,
        "done": len(finished),
        "configs": missing,
    }
    return LaunchReport(document, tuple(lines))


def _live(store: Store) -> Live:
    """Nothing: the pool has no queue, and the attempts in the store tell what it is running."""
    return Live()


def _cancel(store: Store) -> list[str]:
    """Nothing: the pool belongs to the command that started it, and Ctrl-C stops that."""
    return []


LOCAL = Launcher(
    accepts=_accepts,
    submit=_submit,
    preview=_preview,
    live=_live,
    cancel=_cancel,
    returns_at_once=False,
)
