"""Verbs that act on a sweep's directory: retry, cancel, collect, prune."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from paramz.cli.status import AsJson, Directory, opened
from paramz.cli.sweep import Retry, counted, run_or_submit


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command("retry")(retry)
    app.command("cancel")(cancel)
    app.command("collect")(collect)
    app.command("prune")(prune)


def retry(
    directory: Directory,
    which: Annotated[
        Retry, typer.Option(help="Results to throw away first; diverged includes failed.")
    ] = Retry.failed,
    workers: Annotated[int | None, typer.Option(min=1, help="Trials at once, locally.")] = None,
    profile: Annotated[Path | None, typer.Option(help="Submit to Slurm with this profile.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run again what failed in a sweep, and what it is missing, from its directory alone."""
    from paramz.sweeps.running.runner import reopen

    store = opened(directory)
    run_or_submit(lambda: reopen(store), store, which, workers, profile, as_json)


def cancel(directory: Directory, as_json: AsJson = False) -> None:
    """Cancel the Slurm jobs of a sweep; running trials get the chance to save themselves."""
    from paramz.slurm.queue import SlurmError, queued
    from paramz.slurm.queue import cancel as scancel
    from paramz.slurm.submission import job_name

    store = opened(directory)
    try:
        jobs = [job.job for job in queued(job_name(store))]
        if jobs:
            scancel(jobs)
    except SlurmError as error:
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
        typer.Option(help="Table to write, .csv or .parquet. Default: results.csv there."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write all results of a sweep into one table."""
    from paramz.sweeps.store.store import load

    store = opened(directory)
    target = out or store.root / "results.csv"
    if target.suffix not in (".csv", ".parquet"):
        typer.echo(f"error: {target}: a table is .csv or .parquet", err=True)
        raise typer.Exit(2)
    table = load(store.root)
    try:
        if target.suffix == ".csv":
            table.to_csv(target, index=False)
        else:
            table.to_parquet(target, index=False)
    except ImportError:
        typer.echo("error: parquet needs pyarrow: pip install 'torch-paramz[sweeps]'", err=True)
        raise typer.Exit(2) from None
    if as_json:
        json.dump({"table": str(target), "rows": len(table)}, sys.stdout)
        sys.stdout.write("\n")
    else:
        typer.echo(f"{len(table)} trials in {target}")


def prune(
    directory: Directory,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Also what finished trials saved.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it only list.")] = False,
    as_json: AsJson = False,
) -> None:
    """List, and with --yes delete, what a sweep's directory holds beyond need."""
    from collections import Counter

    from paramz.sweeps.store.prune import prunable

    store = opened(directory)
    found = list(prunable(store, checkpoints=checkpoints))
    size = sum(item.size() for item in found)
    for item in found if yes else ():
        item.remove()
    if as_json:
        items = [{"path": str(item.path), "why": item.why} for item in found]
        json.dump({"items": items, "bytes": size, "deleted": yes}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    for why, number in Counter(item.why for item in found).items():
        typer.echo(f"{number:6d}  {why}")
    verb = "deleted" if yes else "can go; --yes deletes them"
    typer.echo(f"{len(found)} items, {size / 1e6:.1f} MB, {verb}" if found else "nothing to prune")
