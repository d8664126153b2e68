"""Verbs that look at a sweep: status, watch."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paramz.cli.launchers import launchers
from paramz.sweeps.running.launcher import LaunchError
from paramz.sweeps.running.wording import duration

if TYPE_CHECKING:
    from rich.table import Table

    from paramz.sweeps.store.status import Status
    from paramz.sweeps.store.store import Store

Directory = Annotated[Path, typer.Argument(help="The directory of a sweep, runs/<name>.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command("status")(status)
    app.command("watch")(watch)


def opened(directory: Path) -> Store:
    """The store in a directory; if there is none, an error message and exit code 2."""
    from paramz.sweeps.store.store import open_store

    try:
        return open_store(directory)
    except FileNotFoundError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def status(directory: Directory, as_json: AsJson = False) -> None:
    """Show how far a sweep has come: trials by state, failures by kind, jobs, remaining time."""
    from rich.console import Console

    store = opened(directory)
    look = _look(store)
    if as_json:
        typer.echo(look.to_json(indent=2))
    elif sys.stdout.isatty():
        Console().print(_table(look))
    else:
        typer.echo("\n".join([look.headline(), *look.details()]))


def watch(
    directory: Directory,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between looks.")] = 10.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document per look, each on one line.")
    ] = False,
) -> None:
    """Show the status of a sweep repeatedly, until nothing of it runs or waits in a queue."""
    from rich.live import Live

    store = opened(directory)
    live = Live(auto_refresh=False) if sys.stdout.isatty() and not as_json else None
    try:
        if live:
            live.start()
        while True:
            look = _look(store)
            if live:
                live.update(_table(look), refresh=True)
            elif as_json:
                typer.echo(look.to_json())
            else:
                typer.echo(time.strftime("%H:%M:%S ") + look.headline())
            if look.is_over():
                return
            time.sleep(every)
    except KeyboardInterrupt:
        return
    finally:
        if live:
            live.stop()


@dataclass(frozen=True)
class _Look:
    """What one look at a sweep shows.

    Attributes:
        status: the status of the sweep.
        jobs: number of queued and running jobs in each state.
        notes: why a queue could not be asked.
    """

    status: Status
    jobs: dict[str, int]
    notes: tuple[str, ...]

    def to_json(self, indent: int | None = None) -> str:
        note = "\n".join(self.notes) or None
        return json.dumps(self.status.to_dict() | {"jobs": self.jobs, "note": note}, indent=indent)

    def headline(self) -> str:
        counts = ", ".join(f"{n} {name}" for name, n in self.status.counts.items() if n)
        return f"{self.status.directory}: {self.status.trials} trials: {counts}{self.eta()}"

    def eta(self) -> str:
        return "" if self.status.eta is None else f", ETA {duration(self.status.eta)}"

    def details(self) -> list[str]:
        lines = []
        if self.jobs:
            lines.append("jobs: " + ", ".join(f"{n} {state}" for state, n in self.jobs.items()))
        for kind in self.status.failures:
            lines.append(f"{kind.count} failed: {kind.error} (e.g. {kind.example})")
        if self.status.quarantined:
            lines.append(f"{self.status.quarantined} broken files in quarantine/")
        return [*lines, *self.notes]

    def is_over(self) -> bool:
        """Whether no trial runs and no job waits or runs."""
        counts = self.status.counts
        return not (counts["running"] or counts["queued"] or self.jobs)


def _look(store: Store) -> _Look:
    """Read the status of a sweep; warnings about broken files go to stderr."""
    import warnings

    from paramz.sweeps.store.status import status

    jobs: Counter[str] = Counter()
    queued: set[str] = set()
    notes = []
    for launcher in launchers():
        try:
            live = launcher.live(store)
        except LaunchError as error:
            notes.append(f"the queue could not be asked: {error}")
        else:
            jobs.update(live.jobs)
            queued |= live.trials
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = status(store, queued)
    for warning in caught:
        typer.echo(f"warning: {warning.message}", err=True)
    return _Look(found, dict(jobs), tuple(notes))


def _table(look: _Look) -> Table:
    from rich.table import Table

    status = look.status
    table = Table(title=status.directory, title_justify="left", box=None)
    table.add_column("state")
    table.add_column("trials", justify="right")
    table.add_column("")
    for name, number in status.counts.items():
        share = "█" * round(40 * number / max(1, status.trials))
        table.add_row(name, str(number), f"[{_COLOURS[name]}]{share}[/]")
    for line in look.details():
        table.add_row("", "", line)
    if status.eta is not None:
        table.add_row("", "", look.eta().removeprefix(", "))
    return table


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
