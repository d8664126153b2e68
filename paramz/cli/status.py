"""Verbs that look at a sweep: status, watch."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from paramz.sweeps.store.status import Status
    from paramz.sweeps.store.store import Store

Directory = Annotated[Path, typer.Argument(help="Directory of a sweep, runs/<name>.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command("status")(status)
    app.command("watch")(watch)


def opened(directory: Path) -> "Store":
    """The sweep in a directory, or an error message and exit code 2."""
    from paramz.sweeps.store.store import open_store

    try:
        return open_store(directory)
    except FileNotFoundError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def status(directory: Directory, as_json: AsJson = False) -> None:
    """Show how a sweep stands: trials by state, failures by kind, jobs, ETA."""
    from rich.console import Console

    store = opened(directory)
    found, jobs, note = _look(store)
    if as_json:
        typer.echo(_json(found, jobs, note, indent=2))
    elif sys.stdout.isatty():
        Console().print(_table(found, jobs, note))
    else:
        typer.echo("\n".join(_lines(found, jobs, note)))


def watch(
    directory: Directory,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between looks.")] = 10.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document a line, one per look.")
    ] = False,
) -> None:
    """Show a sweep's status until nothing of it runs or waits in a queue."""
    from rich.live import Live

    store = opened(directory)
    live = Live(auto_refresh=False) if sys.stdout.isatty() and not as_json else None
    try:
        if live:
            live.start()
        while True:
            found, jobs, note = _look(store)
            if live:
                live.update(_table(found, jobs, note), refresh=True)
            elif as_json:
                typer.echo(_json(found, jobs, note))
            else:
                typer.echo(time.strftime("%H:%M:%S ") + _headline(found))
            if not found.counts["running"] and not found.counts["queued"] and not jobs:
                return
            time.sleep(every)
    except KeyboardInterrupt:
        return
    finally:
        if live:
            live.stop()


def _look(store: "Store") -> tuple["Status", dict[str, int], str | None]:
    """The status, Slurm's jobs by state, and a remark if the queue could not be asked."""
    import warnings
    from collections import Counter

    from paramz.sweeps.store.status import status

    jobs: Counter[str] = Counter()
    live: set[str] = set()
    note = None
    if (store.root / "slurm").is_dir():
        from paramz.slurm.queue import SlurmError, queued
        from paramz.slurm.submission import job_name, trials_of

        try:
            waiting = queued(job_name(store))
            jobs.update(job.state.lower() for job in waiting)
            live = trials_of(store, waiting)
        except SlurmError as error:
            note = f"the queue could not be asked: {error}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = status(store, live)
    for warning in caught:
        typer.echo(f"warning: {warning.message}", err=True)
    return found, dict(jobs), note


def _json(
    found: "Status", jobs: dict[str, int], note: str | None, indent: int | None = None
) -> str:
    return json.dumps(found.to_dict() | {"jobs": jobs, "note": note}, indent=indent)


def _headline(found: "Status") -> str:
    from paramz.sweeps.running.progress import duration

    counts = ", ".join(f"{number} {name}" for name, number in found.counts.items() if number)
    eta = f", ETA {duration(found.eta)}" if found.eta is not None else ""
    return f"{found.directory}: {found.trials} trials: {counts}{eta}"


def _lines(found: "Status", jobs: dict[str, int], note: str | None) -> list[str]:
    lines = [_headline(found)]
    if jobs:
        lines.append("jobs: " + ", ".join(f"{number} {state}" for state, number in jobs.items()))
    lines += [f"{kind.count} failed: {kind.error} (e.g. {kind.example})" for kind in found.failures]
    if found.quarantined:
        lines.append(f"{found.quarantined} broken files in quarantine/")
    return lines + ([note] if note else [])


def _table(found: "Status", jobs: dict[str, int], note: str | None) -> "Table":
    from rich.table import Table

    table = Table(title=_headline(found).partition(": ")[0], title_justify="left", box=None)
    table.add_column("state")
    table.add_column("trials", justify="right")
    table.add_column("")
    for name, number in found.counts.items():
        share = "█" * round(40 * number / max(1, found.trials))
        table.add_row(name, str(number), f"[{_COLOURS[name]}]{share}[/]")
    for line in _lines(found, jobs, note)[1:]:
        table.add_row("", "", line)
    if found.eta is not None:
        table.add_row("", "", _headline(found).rpartition(", ")[2])
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
