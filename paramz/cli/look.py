"""One look at a sweep: its status, its jobs, and how ``status`` and ``watch`` show them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from paramz.cli.launchers import launchers
from paramz.cli.said import said_at_once
from paramz.sweeps.running.launcher import LaunchError
from paramz.sweeps.running.wording import duration
from paramz.sweeps.store.status import Status, status
from paramz.sweeps.store.store import Store

_BAR = 40  # characters of the bar that stands for all trials
_COLOURS = {
    "ok": "green",
    "diverged": "yellow",
    "stopped": "bright_black",
    "failed": "red",
    "running": "cyan",
    "queued": "blue",
    "interrupted": "magenta",
    "waiting": "white",
}


@dataclass(frozen=True)
class Look:
    """What one look at a sweep shows.

    Attributes:
        status: the status of the sweep.
        jobs: number of queued and running jobs in each state.
        reasons: why jobs wait, and how many wait for each reason.
        notes: why a queue could not be asked.
    """

    status: Status
    jobs: dict[str, int]
    reasons: dict[str, int]
    notes: tuple[str, ...]

    def is_over(self) -> bool:
        """Whether no trial runs and no job waits or runs, as far as the queue could be asked."""
        counts = self.status.counts
        if self.notes and self.status.left:  # nobody knows what waits in the queue
            return False
        return not (counts["running"] or counts["queued"] or self.jobs)

    def to_json(self, indent: int | None = None) -> str:
        """The look as a JSON document."""
        note = "\n".join(self.notes) or None
        found = {"jobs": self.jobs, "reasons": self.reasons, "note": note}
        return json.dumps(self.status.to_dict() | found, indent=indent)

    def headline(self) -> str:
        """The trials by state, in one line."""
        counts = ", ".join(f"{n} {name}" for name, n in self.status.counts.items() if n)
        eta = f", {self._eta()}" if self._eta() else ""
        return f"{self.status.directory}: {self.status.trials} trials: {counts}{eta}"

    def details(self) -> list[str]:
        """Jobs, failures, broken files and notes, one per line."""
        lines = []
        if self.jobs:
            lines.append("jobs: " + ", ".join(f"{n} {state}" for state, n in self.jobs.items()))
        if self.reasons:
            waits = ", ".join(f"{n} {reason}" for reason, n in self.reasons.items())
            lines.append(f"jobs wait because of: {waits}")
        for kind in self.status.failures:
            lines.append(f"{kind.count} failed: {kind.error} (e.g. {kind.example})")
        if self.status.quarantined:
            lines.append(f"{self.status.quarantined} broken files in quarantine/")
        if self.status.unasked:
            lines.append(unasked(self.status.unasked))
        if not self.status.known:
            lines.append("trials.jsonl is missing: which trials the sweep asks for is not known")
        if len(self.status.codes) > 1:
            numbers = ", ".join(map(str, sorted(self.status.codes.values(), reverse=True)))
            lines.append(f"results of {len(self.status.codes)} versions of the code: {numbers}")
        return [*lines, *self.notes]

    def table(self) -> Table:
        """All of it as a table with bars, for a terminal.

        Brackets in the text of an error are no styles of rich, such as those of [/INST].
        """
        table = Table(title=Text(self.status.directory), title_justify="left", box=None)
        table.add_column("state")
        table.add_column("trials", justify="right")
        table.add_column("")
        for name, number in self.status.counts.items():
            bar = "█" * round(_BAR * number / max(1, self.status.trials))
            table.add_row(name, str(number), Text(bar, _COLOURS[name]))
        for line in [*self.details(), self._eta()]:
            if line:
                table.add_row("", "", Text(line))
        return table

    def _eta(self) -> str:
        return "" if self.status.eta is None else f"ETA {duration(self.status.eta)}"


def unasked(number: int) -> str:
    """What is said of results that the sweep no longer asks for."""
    are = "result is" if number == 1 else "results are"
    return f"{number} {are} of values that the sweep no longer asks for, and left out"


def look_at(store: Store) -> Look:
    """Look at a sweep; warnings about broken files go to stderr."""
    jobs: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    queued: set[str] = set()
    notes = []
    for launcher in launchers():
        try:
            live = launcher.live(store)
        except LaunchError as error:
            notes.append(f"the queue could not be asked: {error}")
        else:
            jobs.update(live.jobs)
            reasons.update(live.reasons)
            queued |= live.trials
    with said_at_once():
        found = status(store, queued)
    return Look(found, dict(jobs), dict(reasons), tuple(notes))
