"""Verbs: check (coordinate check with an exit code)."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paramz.cli.check_script import ScriptRun, command_of, label_of, table_of_script
from paramz.cli.functions import Scheme, Set, config_of, located, numbers, refused
from paramz.cli.launchers import launcher_for
from paramz.cli.said import prints_aside, said_at_once
from paramz.cli.sweep import launch

if TYPE_CHECKING:
    from paramz.sweeps.running.launcher import Options


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command("check")(check)


_Task = Annotated[
    str | None,
    typer.Argument(
        help="A function (config) -> paramz.Task: path/to/file.py:name or module:name. Or a spec "
        "(.yaml) with a command, whose script calls paramz.record."
    ),
]


# The defaults are those of `paramz.check.jobs.Check`, and a test holds them together: importing it
# here would slow down every verb.
def check(
    context: typer.Context,
    task: _Task = None,
    command: Annotated[
        str | None,
        typer.Option(
            help="In place of a task: your script, with paramz.record(model, step) in its loop. "
            "Such as 'python train.py --width {width} --lr {lr} --seed {seed} --scheme "
            "{parametrization}'; {optimizer}, {base_width} and {steps} are known, too."
        ),
    ] = None,
    widths: Annotated[
        str | None, typer.Option(help="Widths, by commas. Default: 64,128,256,512.")
    ] = None,
    depths: Annotated[
        str | None, typer.Option(help="Instead of widths: numbers of blocks, for +completep.")
    ] = None,
    experts: Annotated[
        str | None, typer.Option(help="Instead of widths: numbers of experts, for +moe.")
    ] = None,
    ranks: Annotated[
        str | None, typer.Option(help="Instead of widths: ranks of adapters, for lora and rslora.")
    ] = None,
    densities: Annotated[
        str | None, typer.Option(help="Instead of widths: densities of masks, for +s-mup.")
    ] = None,
    base_width: Annotated[
        int | None,
        typer.Option(min=1, help="Default: the smallest width; 64 where it does not vary."),
    ] = None,
    parametrization: Scheme = "mup",
    optimizer: Annotated[str, typer.Option(help="Name of an optimizer.")] = "adamw",
    lr: Annotated[str, typer.Option(help="Learning rates, by commas; 2^-8 works.")] = "2^-8",
    steps: Annotated[int, typer.Option(min=1, help="Updates per model.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    tolerance: Annotated[float, typer.Option(help="Largest slope that is taken to be flat.")] = 0.1,
    workers: Annotated[int, typer.Option(min=1, help="Processes with one thread each.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder; writes coord/<label>.csv and .json. On Slurm by default runs/check."
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Name of the files in --out. Default: as in mup-adamw.")
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(help="Measure on Slurm with this profile; the same command again gathers."),
    ] = None,
    minutes: Annotated[
        float,
        typer.Option(min=0, help="Time limit of one model, on Slurm and of a command."),
    ] = 30.0,
    settings: Set = None,
    expect_fail: Annotated[
        bool, typer.Option("--expect-fail", help="Exit with 0 on FAIL: for showing that SP does.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train small models of several sizes and check that activations keep their size.

    Exits with 0 when it passes, 1 when it does not, 2 when it cannot be made, and 3 while a cluster
    (--profile) is measuring.
    """
    from paramz.analysis.coordinates import judge
    from paramz.sweeps.running.launcher import Options

    options = Options(retry="none", profile=profile)
    try:
        script = command_of(task, command)
        usual = f"{parametrization}-{optimizer}"
        if script is not None:
            usual = label_of(script, parametrization=parametrization, optimizer=optimizer)
        label = _label(usual if label is None else label)
        asked: dict[str, Any] = {
            "widths": _whole("--widths", widths),
            "depths": _whole("--depths", depths),
            "experts": _whole("--experts", experts),
            "ranks": _whole("--ranks", ranks),
            "densities": _shares("--densities", densities),
            "base_width": base_width,
            "parametrization": parametrization,
            "optimizer": optimizer,
            "lr": numbers("--lr", lr),
            "steps": steps,
            "seeds": seeds,
            "config": config_of(settings),
        }
        if script is not None:
            chosen = {
                name
                for name in ("parametrization", "optimizer", "base_width")
                if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
            }
            if profile is not None:
                out = out or Path("runs") / "check"
            run = ScriptRun(out, label, minutes, chosen, as_json)
            df = table_of_script(script, replace(options, workers=workers), run, asked)
        elif launcher_for(options).returns_at_once:
            out = out or Path("runs") / "check"
            folder = out / "coord" / label
            place = _from_here(located(str(task)))
            df = _gathered(place, folder, options, as_json, minutes=minutes, **asked)
        else:
            from paramz.check.run import coord_check

            with prints_aside(), said_at_once(), progress_bar() as progress:
                df = coord_check(located(str(task)), workers=workers, progress=progress, **asked)
        judged = judge(df, tolerance=tolerance)
        if out is not None:
            judged.save(df, out / "coord", label)
    except typer.Exit:
        raise
    except Exception as error:
        raise refused(error) from None
    if as_json:
        typer.echo(json.dumps(judged.to_json(), indent=1))
    else:
        _show(judged)
    failed = judged.outcome == "fail"
    raise typer.Exit(0 if (failed if expect_fail else judged.passed) else 1)


def _gathered(task: str, folder: Path, options: "Options", as_json: bool, **asked: Any) -> Any:
    """The table if the cluster has measured all of it; else submit the rest and exit with 3."""
    from paramz.check.sweep import batch_concerns, check_sweep, gather
    from paramz.sweeps import Store

    wanted, store = check_sweep(task, **asked), Store(folder)
    with prints_aside(), said_at_once():
        found = gather(wanted, store)
        for concern in batch_concerns(wanted) if found is None else ():
            typer.echo(f"warning: {concern}", err=True)
    if found is None:
        launch(lambda: wanted, store, options, as_json=as_json)
        typer.echo("not measured yet; the same command judges it when it is", err=True)
        raise typer.Exit(3)
    return found


@contextmanager
def progress_bar() -> "Iterator[Callable[[float], None] | None]":
    """On a terminal a bar with an estimate of the time left, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    from paramz.sweeps.running.wording import duration

    columns = BarColumn(), TaskProgressColumn(), TextColumn("{task.description}")
    begun = time.monotonic()
    with Progress("measuring", *columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def show(share: float) -> None:
            left = (time.monotonic() - begun) * (1 / share - 1)
            bar.update(task, completed=share, description=f"about {duration(left)} left")

        yield show


def _show(judged: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    # Narrow, so that names of modules fit beside it on 80 columns.
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("module", overflow="fold")
    # Two sizes and one seed have slopes without intervals.
    known = any(math.isfinite(s.hi - s.lo) for s in judged.slopes)
    for column in ("role", "step", "quantity", "slope", *["95 % interval"] * known, ""):
        table.add_column(column, no_wrap=True)
    last = max(s.step for s in judged.slopes)
    for s in judged.slopes:
        if s.passed is not None and (s.step == last or (not s.passed and known)):
            mark = "ok" if s.passed else "FAIL" if s.proved else "?"
            interval = [f"[{s.lo:+.2f}, {s.hi:+.2f}]"] * known
            table.add_row(
                s.module, s.role, str(s.step), s.quantity, f"{s.slope:+.3f}", *interval, mark
            )
    console = Console(markup=False, emoji=False)
    console.print(table)
    console.print(judged.sentence, highlight=False)


def _from_here(target: str) -> str:
    """A function's name relative to the working directory, so that a project may be moved.

    The trials of a check have the name in their configs, and start in this directory.
    """
    path, _, name = target.rpartition(":")
    here = Path.cwd().resolve()
    if not path.endswith(".py") or not Path(path).is_relative_to(here):
        return target
    return f"{Path(path).relative_to(here)}:{name}"


def _whole(option: str, text: str | None) -> list[int] | None:
    try:
        numbers = None if text is None else [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} {text}: write whole numbers with commas between") from None
    if numbers is not None and min(numbers) < 1:
        raise ValueError(f"{option} {text}: {min(numbers)} is no size; write numbers above zero")
    return numbers


def _shares(option: str, text: str | None) -> list[float] | None:
    return None if text is None else numbers(option, text, "density")


def _label(label: str) -> str:
    """A label, which names the files of a check."""
    if not label.strip(".") or not label.isprintable() or "/" in label or len(label) > 100:
        raise ValueError(
            f"--label {label[:100]!r}: it names files; write up to 100 characters without /"
        )
    return label
