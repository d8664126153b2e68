"""Verb: merge."""

import json
from pathlib import Path
from typing import Annotated

import typer

from paramz.cli.said import reason, said_at_once
from paramz.cli.status import AsJson, opened


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command("merge")(merge)


def merge(
    target: Annotated[Path, typer.Argument(help="Where everything is brought together.")],
    sources: Annotated[
        list[Path], typer.Argument(help="Directories of the same sweep, such as of its shares.")
    ],
    as_json: AsJson = False,
) -> None:
    """Copy the results of other directories of the same sweep into one.

    Nothing is taken from the others. Exits with 1 if trials have different results, of which the
    target keeps its own.
    """
    from paramz.sweeps.store.merge import merge as join
    from paramz.sweeps.store.store import Store

    stores = [opened(source) for source in sources]
    try:
        with said_at_once():
            done = join(Store(target), stores)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"error: {target}: {reason(error)}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        counts = {"taken": done.taken, "better": done.better, "same": done.same}
        typer.echo(json.dumps({"directory": str(target)} | counts | {"kept": list(done.kept)}))
    else:
        typer.echo(
            f"{target}: {done.taken} results taken, {done.better} in place of failures, "
            f"{done.same} there already"
        )
        if done.kept:
            typer.echo(
                f"{len(done.kept)} trials have different results, and {target} keeps its own: "
                f"{', '.join(done.kept[:5])}"
            )
    if done.kept:
        raise typer.Exit(1)
