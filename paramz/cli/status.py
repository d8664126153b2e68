"""Verbs that look at a sweep: status, watch."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from paramz.cli.look import Look
    from paramz.sweeps.store.store import Store

Directory = Annotated[Path, typer.Argument(help="The directory of a sweep, runs/<name>.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command("status")(status)
    app.command("watch")(watch)


def opened(directory: Path, *, trials: bool = True) -> "Store":
    """The store in a directory; if there is none, an error message and exit code 2.

    The same if the list of its trials is broken, unless `trials` is False: reading it all takes a
    while for a million of them.
    """
    from paramz.sweeps.store.store import open_store

    try:
        store = open_store(directory)
        if trials:
            store.trials()
        return store
    except (OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _look(store: "Store") -> "Look":
    """A look at a sweep; if what it asks for cannot be read, an error message and exit code 2."""
    from paramz.cli.look import look_at

    try:
        return look_at(store)
    except (OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def status(directory: Directory, as_json: AsJson = False) -> None:
    """Show how far a sweep has come: trials by state, failures by kind, jobs, remaining time."""
    from rich.console import Console

    look = _look(opened(directory, trials=False))
    if as_json:
        typer.echo(look.to_json(indent=2))
    elif sys.stdout.isatty():
        Console().print(look.table())
    else:
        typer.echo("\n".join([look.headline(), *look.details()]))


def watch(
    directory: Directory,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between looks.")] = 10.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document per look, each on one line.")
    ] = False,
) -> None:
    """Show the status of a sweep repeatedly, until nothing of it runs or waits in a queue.

    A queue that does not answer is asked again, as long as trials are missing.
    """
    from rich.live import Live

    store = opened(directory, trials=False)
    live = Live(auto_refresh=False) if sys.stdout.isatty() and not as_json else None
    try:
        if live:
            live.start()
        while True:
            look = _look(store)
            if live:
                live.update(look.table(), refresh=True)
            elif as_json:
                typer.echo(look.to_json())
            else:
                typer.echo(time.strftime("%H:%M:%S ") + look.headline())
                for note in look.notes:
                    typer.echo(f"{note}; asking again in {every:g} s")
            if look.is_over():
                return
            time.sleep(every)
    except KeyboardInterrupt:
        return
    finally:
        if live:
            live.stop()
