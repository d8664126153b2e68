"""Verbs: sweep."""

import json
import math
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from paramz.slurm import Plan, Profile
    from paramz.sweeps import Store, Sweep


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
        Path | None,
        typer.Option(help="Directory of the results. Default: runs/<spec name>."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Trials at once, locally.")] = None,
    profile: Annotated[Path | None, typer.Option(help="Submit to Slurm with this profile.")] = None,
    retry: Annotated[
        Retry, typer.Option(help="Results to throw away first; diverged includes failed.")
    ] = Retry.failed,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run; run and write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run every trial of a sweep that has no result yet; rerunning resumes it."""
    from paramz.sweeps import Store, Sweep

    store = Store(out or Path("runs") / spec.stem)
    if dry_run:
        _guarded(lambda: _dry_run(Sweep.from_yaml(spec), store, profile, as_json))
    else:
        run_or_submit(lambda: Sweep.from_yaml(spec), store, retry, workers, profile, as_json)


def run_or_submit(
    read: Callable[[], "Sweep"],
    store: "Store",
    retry: Retry,
    workers: int | None,
    profile: Path | None,
    as_json: bool,
) -> None:
    """Run a sweep here, or submit it if a profile is given."""
    if profile is None:
        code = _guarded(lambda: _run(read(), store, retry, workers, as_json))
    else:
        code = _guarded(lambda: _submit(read(), store, retry, profile, as_json))
    if code:
        raise typer.Exit(code)


def _guarded(action: Callable[[], int]) -> int:
    """Turn the errors that a user can mend into one message and exit code 2."""
    from paramz.slurm.queue import SlurmError
    from paramz.slurm.submission import SubmissionError
    from paramz.sweeps.running.pool import BrokenTarget

    try:
        return action()
    except (ValueError, BrokenTarget, SlurmError, SubmissionError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _run(wanted: "Sweep", store: "Store", retry: Retry, workers: int | None, as_json: bool) -> int:
    """Run locally. Exit codes: 0 all done, 1 some failed or are left, 130 stopped."""
    from collections import Counter

    from paramz.sweeps.running.runner import run_missing

    tally = run_missing(wanted, store, retry.value, workers)
    counts = Counter(tally.saved.values())
    if as_json:
        _print_json(
            {
                "directory": str(store.root),
                "trials": len(store.trials()),
                "ran": dict(counts),
                "left": tally.left,
            }
        )
    return 130 if tally.interrupted else int(bool(tally.left or counts["failed"]))


def _submit(wanted: "Sweep", store: "Store", retry: Retry, profile: Path, as_json: bool) -> int:
    from paramz.slurm import submit

    done = submit(wanted, profile, store.root, retry=retry.value)
    if as_json:
        _print_json({"directory": str(done.directory), "jobs": done.jobs} | _numbers(done.plan))
        return 0
    if done.skipped:
        typer.echo(f"{counted(done.skipped, 'trial')} already with jobs that wait or run")
    if done.jobs:
        typer.echo(f"{_sentence(done.plan)}: submitted as {', '.join(done.jobs)}")
        typer.echo(f"paramz watch {store.root}")
    else:
        typer.echo("nothing to submit")
    return 0


def _dry_run(wanted: "Sweep", store: "Store", profile: Path | None, as_json: bool) -> int:
    from paramz.sweeps.running.runner import check_budget

    check_budget(wanted)
    if profile is not None:
        from paramz.slurm import Profile, submit

        site = Profile.from_yaml(profile)
        _show_arrays(submit(wanted, site, store.root, dry_run=True).plan, site, store, as_json)
        return 0
    finished = store.finished() & wanted.trials.keys()
    missing = [config for key, config in wanted.trials.items() if key not in finished]
    if as_json:
        document = {"directory": str(store.root), "train": wanted.train, "done": len(finished)}
        _print_json(document | {"configs": missing})
        return 0
    typer.echo(f"{wanted.train}\n{len(missing)} trials to run, {len(finished)} done: {store.root}")
    for config in missing[:20]:
        typer.echo("  " + "  ".join(f"{name}={value}" for name, value in config.items()))
    if len(missing) > 20:
        typer.echo(f"  and {len(missing) - 20} more")
    return 0


def _show_arrays(plan: "Plan", site: "Profile", store: "Store", as_json: bool) -> None:
    from paramz.slurm.packing import sbatch_text
    from paramz.slurm.submission import job_name

    folder = store.root.absolute() / "slurm" / "logs"
    texts = [sbatch_text(array, site, job_name(store), folder) for array in plan.arrays]
    if as_json:
        arrays = [
            {
                "jobs": len(array.jobs),
                "trials": array.trials,
                "trials_at_once": array.workers,
                "minutes": array.minutes,
                "script": text,
            }
            for array, text in zip(plan.arrays, texts, strict=True)
        ]
        _print_json({"directory": str(store.root), "arrays": arrays} | _numbers(plan))
        return
    for array, text in zip(plan.arrays, texts, strict=True):
        rounds = max(map(len, array.jobs)) / array.workers
        typer.echo(
            f"# array of {counted(len(array.jobs), 'job')}, {counted(array.trials, 'trial')}: "
            f"{array.workers} at once, {counted(math.ceil(rounds), 'round')}, "
            f"{array.minutes} minutes a job\n{text}"
        )
    typer.echo(f"# {_sentence(plan)}; nothing was submitted")


def _numbers(plan: "Plan") -> dict[str, Any]:
    hours = {"gpu_hours": round(plan.gpu_hours, 2), "cpu_hours": round(plan.cpu_hours, 2)}
    return {"trials": plan.trials, "jobs_planned": plan.jobs} | hours


def _sentence(plan: "Plan") -> str:
    trials, jobs = counted(plan.trials, "trial"), counted(plan.jobs, "job")
    return (
        f"{trials} in {jobs} in {counted(len(plan.arrays), 'array')}, at most "
        f"{plan.gpu_hours:.1f} GPU-hours and {plan.cpu_hours:.1f} CPU-hours"
    )


def counted(number: int, noun: str) -> str:
    """A number of things: `1 job`, `2 jobs`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _print_json(document: dict[str, Any]) -> None:
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")
