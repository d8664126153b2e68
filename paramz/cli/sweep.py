"""Verb: sweep."""

import json
import sys
from collections.abc import Callable
from enum import StrEnum
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from paramz.cli.launchers import launcher_for
from paramz.cli.said import reason, said_at_once

if TYPE_CHECKING:
    from paramz.sweeps import Store, Sweep
    from paramz.sweeps.running.launcher import LaunchReport, Options
    from paramz.sweeps.spec.shard import Shard


class RetryChoice(StrEnum):
    """The values of ``--retry``; those of `paramz.sweeps.running.launcher.Retry`."""

    failed = "failed"
    none = "none"
    diverged = "diverged"
    all = "all"


class RerunChoice(StrEnum):
    """The values of ``--rerun``."""

    changed = "changed"


RETRY_HELP = (
    "Which results to put aside first, so that their trials run again; diverged includes failed."
)
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="On this machine: trials at once. Default: what CPUs, memory and GPUs allow.",
    ),
]
Rerun = Annotated[
    RerunChoice | None,
    typer.Option(help="Run again the trials whose results are of other code than there is now."),
]
Accept = Annotated[
    bool,
    typer.Option("--accept", help="Let results of other code count as those of the present code."),
]
ProfileFile = Annotated[
    Path | None, typer.Option(help="Submit to Slurm with this cluster profile, a YAML file.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command("sweep")(sweep)


def sweep(
    spec: Annotated[Path, typer.Argument(help="The spec of the sweep, a YAML file.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Directory of the results. Default: runs/<name of the spec>."),
    ] = None,
    workers: Workers = None,
    profile: ProfileFile = None,
    retry: Annotated[RetryChoice, typer.Option(help=RETRY_HELP)] = RetryChoice.failed,
    rerun: Rerun = None,
    accept: Accept = False,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Run one share of the trials, such as 2/4; paramz merge joins the directories. "
            "Default of --out then: runs/<name of the spec>-2of4."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run, without running it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run the trials of a sweep that have no result yet. The same command resumes a sweep."""
    from paramz.sweeps.running.stopping import stop_on_signals

    with stop_on_signals() as stop:
        from paramz.sweeps import Store, Sweep
        from paramz.sweeps.running.launcher import Options

        part = _shard(shard)
        name = f"{spec.stem}-{part.number}of{part.of}" if part else spec.stem
        store = Store(out or Path("runs") / name)
        options = Options(retry.value, workers, profile, changed(rerun, accept), stop)

        def read() -> Sweep:
            _require_spec(spec)
            whole = Sweep.from_yaml(spec)
            return whole.share(part) if part else whole

        launch(read, store, options, as_json=as_json, dry_run=dry_run)


def _require_spec(spec: Path) -> None:
    """Refuse what people give in place of a spec.

    Raises:
        ValueError: it is a script or a function, or the directory of results.
    """
    script, colon, function = str(spec).partition(":")
    if script.endswith(".py") and not spec.is_dir():
        raise ValueError(
            f"{spec} is Python, and a sweep is described in a YAML file, which names it: train: "
            f"{script}:{function if colon else 'train'}, or command: [python, {script}, ...], and "
            "axes, what to vary. paramz init writes one"
        )
    if (spec / "results").is_dir():
        raise ValueError(
            f"{spec} holds the results of a sweep, and this needs its spec, a YAML file; paramz "
            f"retry {spec} goes on with what is missing or failed"
        )


def _shard(text: str | None) -> "Shard | None":
    """The share that ``--shard`` names; if it names none, exit code 2."""
    from paramz.sweeps.spec.shard import Shard

    try:
        return None if text is None else Shard.parse(text)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def changed(rerun: RerunChoice | None, accept: bool) -> 'Literal["tell", "rerun", "accept"]':
    """What ``--rerun`` and ``--accept`` ask for; if they contradict each other, exit code 2."""
    if rerun and accept:
        typer.echo("error: --rerun changed and --accept contradict each other", err=True)
        raise typer.Exit(2)
    return "rerun" if rerun else "accept" if accept else "tell"


def launch(
    read: "Callable[[], Sweep]",
    store: "Store",
    options: "Options",
    *,
    as_json: bool,
    dry_run: bool = False,
) -> None:
    """Run a sweep, or show what would run, with the launcher that the options ask for.

    The exit code is 130 if a stop was requested, else that of the report. Errors that the user can
    correct become one message and exit code 2.
    """
    from paramz.sweeps.running.launcher import LaunchError

    launcher = launcher_for(options)
    act = launcher.preview if dry_run else launcher.submit
    try:
        with said_at_once():
            wanted = read()
            _refuse_early(wanted)
            report = act(wanted, store, options)
    except (ValueError, LaunchError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"error: {store.root}: {reason(error)}", err=True)
        raise typer.Exit(2) from None
    _print(report, as_json)
    code = 130 if options.stop.requested else report.code
    if code:
        raise typer.Exit(code)


def _refuse_early(sweep: "Sweep") -> None:
    """What every trial would fail of, said before the first one starts.

    Raises:
        ValueError: the spec asks for a package that is not installed, or for a function of a module
            that there is not.
    """
    if sweep.halving and find_spec("optuna") is None:
        raise ValueError("halving needs optuna: pip install 'torch-paramz[sweeps]'")
    module = sweep.train.partition(":")[0] if sweep.train else ""
    top = module.partition(".")[0]
    if module and not module.endswith(".py") and top not in sys.modules:
        here = [str(Path.cwd()), *sys.path]
        if PathFinder.find_spec(top, here) is None and find_spec(top) is None:
            raise ValueError(
                f"train: {sweep.train}: there is no module {top!r}, neither in {Path.cwd()} nor "
                "installed. A function of a file is written path/to/file.py:function"
            )


def _print(report: "LaunchReport", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.document, indent=2))
        return
    for line in report.lines:
        typer.echo(line)
