"""Verbs that act on the directory of a sweep: retry, cancel, collect, prune."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from paramz.cli.launchers import launchers
from paramz.cli.said import reason, said_at_once
from paramz.cli.status import AsJson, Directory, opened
from paramz.cli.sweep import (
    RETRY_HELP,
    Accept,
    ProfileFile,
    Rerun,
    RetryChoice,
    Workers,
    changed,
    launch,
)


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command("retry")(retry)
    app.command("cancel")(cancel)
    app.command("collect")(collect)
    app.command("prune")(prune)


def retry(
    directory: Directory,
    which: Annotated[RetryChoice, typer.Option(help=RETRY_HELP)] = RetryChoice.failed,
    workers: Workers = None,
    profile: ProfileFile = None,
    rerun: Rerun = None,
    accept: Accept = False,
    as_json: AsJson = False,
) -> None:
    """Run the failed and missing trials of a sweep, given only its directory."""
    from paramz.sweeps.running.stopping import stop_on_signals

    with stop_on_signals() as stop:
        from paramz.sweeps.running.launcher import Options
        from paramz.sweeps.running.runner import reopen

        store = opened(directory)
        options = Options(which.value, workers, profile, changed(rerun, accept), stop)
        launch(lambda: reopen(store), store, options, as_json=as_json)


def cancel(directory: Directory, as_json: AsJson = False) -> None:
    """Cancel the Slurm jobs of a sweep. Running trials may save themselves first."""
    from paramz.sweeps.running.launcher import LaunchError
    from paramz.sweeps.running.wording import counted

    store = opened(directory)
    try:
        jobs = [job for launcher in launchers() for job in launcher.cancel(store)]
    except LaunchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        json.dump({"cancelled": jobs}, sys.stdout)
        sys.stdout.write("\n")
    else:
        typer.echo(f"{counted(len(jobs), 'job')} cancelled")


def collect(
    directory: Directory,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The table, .csv or .parquet. Default: results.csv in the sweep's directory."
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Include results that the sweep no longer asks for, told by the column asked.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the results of a sweep to one table."""
    from paramz.cli.look import unasked
    from paramz.sweeps.store.table import load

    store = opened(directory)
    target = out or store.root / "results.csv"
    if target.suffix not in (".csv", ".parquet"):
        typer.echo(f"error: {target}: a table is .csv or .parquet", err=True)
        raise typer.Exit(2)
    with said_at_once():
        table = load(store.root, unasked=True)
    left_out = 0 if every else int((~table["asked"]).sum())
    if not every:
        table = table[table["asked"]].drop(columns="asked")
    try:
        if target.suffix == ".csv":
            table.to_csv(target, index=False)
        else:
            table.to_parquet(target, index=False)
    except ImportError:
        typer.echo("error: parquet needs pyarrow: pip install 'torch-paramz[sweeps]'", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"error: {target}: {reason(error)} (--out)", err=True)
        raise typer.Exit(2) from None
    if as_json:
        document = {"table": str(target), "rows": len(table), "left_out": left_out}
        json.dump(document, sys.stdout)
        sys.stdout.write("\n")
    else:
        typer.echo(f"{len(table)} trials in {target}")
        if left_out:
            typer.echo(f"{unasked(left_out)}; --all includes them")


def prune(
    directory: Directory,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Include the files that finished trials saved.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete them instead of listing them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the files in a sweep's directory that it no longer needs; delete them with --yes."""
    from collections import Counter

    from paramz.sweeps.store.prune import prunable

    store = opened(directory)
    try:
        found = list(prunable(store, checkpoints=checkpoints))
        size = sum(item.size() for item in found)
        for item in found if yes else ():
            item.remove()
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"error: {store.root}: {reason(error)}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        items = [{"path": str(item.path), "why": item.why} for item in found]
        json.dump({"items": items, "bytes": size, "deleted": yes}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    for why, number in Counter(item.why for item in found).items():
        typer.echo(f"{number:6d}  {why}")
    verb = "deleted" if yes else "can be deleted; --yes deletes them"
    typer.echo(f"{len(found)} items, {size / 1e6:.1f} MB, {verb}" if found else "nothing to prune")
