"""The part of the verb check on a user's own script: a command, or a spec that has one."""

import shlex
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from paramz.cli.launchers import launcher_for
from paramz.cli.said import said_at_once
from paramz.cli.sweep import launch

if TYPE_CHECKING:
    import pandas as pd

    from paramz.sweeps.running.launcher import Options

Given = tuple[list[str], Path, dict[str, Any]]
"""The words of a command, the folder that it runs in, and the values that its spec gives."""


def command_of(task: str | None, command: str | None) -> Given | None:
    """The command that a check is of; None for a task.

    Raises:
        ValueError: there is neither a task nor a command, or both; or the spec has no command.
    """
    if (task is None) == (command is None):
        raise ValueError(
            "give a task (file.py:task), a spec with a command, or --command 'python train.py "
            "--width {width} --lr {lr} --seed {seed}'" + (", not both" if task else "")
        )
    if command is not None:
        try:
            return shlex.split(command), Path.cwd(), {}
        except ValueError as error:
            raise ValueError(f"--command {command}: cannot be split into words: {error}") from None
    assert task is not None
    if not task.endswith((".yaml", ".yml")):
        return None
    from paramz.sweeps import Sweep

    sweep = Sweep.from_yaml(task)
    if sweep.command is None:
        raise ValueError(
            f"{task} trains {sweep.train}, and a check needs the model that it builds: name the "
            "task beside it (file.py:task)"
        )
    first = next(sweep.configs())
    return list(sweep.command), Path(sweep.as_command.folder), first


@dataclass(frozen=True)
class ScriptRun:
    """How the runs of a script are made.

    Attributes:
        out: the run's folder; None to keep nothing.
        label: name of the check in it.
        minutes: time limit of one run.
        chosen: options that the user gave, so that they have to reach the script.
        as_json: whether what a queue says is printed as JSON.
    """

    out: Path | None
    label: str
    minutes: float
    chosen: set[str]
    as_json: bool


def label_of(given: Given, **named: str) -> str:
    """The usual label of a check: what the script decides by itself is called script in it."""
    from paramz.check.script import UNNAMED
    from paramz.sweeps.spec.command import holes

    used = set(holes(given[0]))
    return "-".join(value if name in used else UNNAMED for name, value in named.items())


def table_of_script(
    given: Given, options: "Options", run: ScriptRun, asked: Mapping[str, Any]
) -> "pd.DataFrame":
    """The table of a check of a command, which is run where it was not yet.

    Raises:
        typer.Exit: with 3 if a cluster is still at it, with 130 if it was stopped.
        ValueError: it cannot be made.
    """
    from paramz.check.jobs import Check
    from paramz.check.script import first_of, gather_script, records_itself, script_sweep
    from paramz.sweeps import Store
    from paramz.sweeps.running.stopping import stop_on_signals

    words, folder, of_spec = given
    taken = {"width", "lr", "seed", "parametrization", "optimizer", "base_width"}
    own: Mapping[str, Any] = {k: v for k, v in of_spec.items() if k not in taken}
    check = Check(**{**asked, "config": {**own, **asked["config"]}})
    wanted = script_sweep(words, check, folder=folder, minutes=run.minutes, given=run.chosen)
    launcher = launcher_for(options)
    with ExitStack() as stack:
        out = run.out
        if out is None:
            out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="paramz-check-")))
        store = Store(out / "coord" / run.label)
        if launcher.returns_at_once:
            with said_at_once():
                found = gather_script(wanted, store)
            if found is None:
                launch(lambda: wanted, store, options, as_json=run.as_json)
                typer.echo("not measured yet; the same command judges it when it is", err=True)
                raise typer.Exit(3)
            return found
        with said_at_once():
            stop = stack.enter_context(stop_on_signals())
            # A script that was edited since is measured again: this is what checks are for.
            again = replace(options, retry="failed", changed="rerun", stop=stop)
            found = None
            # One whose model is recorded nowhere would train to its end at every width, in vain.
            steps = [] if records_itself(wanted.as_command) else [first_of(wanted)]
            for part in (*steps, wanted):
                launcher.submit(part, store, again)
                if stop.requested:
                    raise typer.Exit(130)
                found = gather_script(part, store)
        if found is None:
            raise ValueError("some runs have no result; the same command runs them")
        return found
