"""Verbs: sweep."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from paramz.sweeps.spec import Sweep
    from paramz.sweeps.store import Store


class Retry(StrEnum):
    """Which results a rerun throws away first."""

    failed = "failed"
    none = "none"
    diverged = "diverged"
    all = "all"


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command("sweep")(sweep)


def sweep(
    spec: Annotated[Path, typer.Argument(help="The sweep: a YAML file.")],
    out: Annotated[
        Path | None, typer.Option(help="Directory of the results. [default: runs/<name of spec>]")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Trials at once.")] = None,
    retry: Annotated[
        Retry, typer.Option(help="Results to throw away first; diverged includes failed.")
    ] = Retry.failed,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, run nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run every trial of a sweep that has no result yet; rerunning resumes it."""
    from paramz.sweeps.pool import BrokenTarget
    from paramz.sweeps.runner import check_budget, prepare, run_tasks
    from paramz.sweeps.spec import Sweep
    from paramz.sweeps.store import Store

    try:
        wanted = Sweep.from_yaml(spec)
        store = Store(out or Path("runs") / spec.stem)
        if dry_run:
            check_budget(wanted)
            _show_plan(wanted, store, as_json)
            return
        missing = prepare(wanted, store, retry.value)
        tally = run_tasks(wanted, store, missing, workers=workers)
    except (ValueError, BrokenTarget) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    left = len(missing) - len(tally.saved)
    failed = sum(status == "failed" for status in tally.saved.values())
    if as_json:
        statuses = list(tally.saved.values())
        counts = {status: statuses.count(status) for status in sorted(set(statuses))}
        document = {"directory": str(store.root), "trials": len(wanted.trials), "left": left}
        json.dump(document | {"ran": counts}, sys.stdout, indent=2)
        sys.stdout.write("\n")
    if tally.interrupted:
        raise typer.Exit(130)
    if left or failed:
        raise typer.Exit(1)


def _show_plan(wanted: "Sweep", store: "Store", as_json: bool) -> None:
    finished = store.finished() & wanted.trials.keys()
    missing = [config for key, config in wanted.trials.items() if key not in finished]
    if as_json:
        document = {"directory": str(store.root), "train": wanted.train, "done": len(finished)}
        json.dump(document | {"configs": missing}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    typer.echo(
        f"{wanted.train}\n{len(missing)} trials to run, {len(finished)} done, in {store.root}"
    )
    for config in missing[:20]:
        typer.echo("  " + "  ".join(f"{name}={value}" for name, value in config.items()))
    if len(missing) > 20:
        typer.echo(f"  and {len(missing) - 20} more")
