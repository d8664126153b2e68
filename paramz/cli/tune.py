"""Verb: tune."""

import json
from pathlib import Path
from typing import Annotated

import typer

from paramz.cli.functions import Set, config_of
from paramz.cli.launchers import launcher_for
from paramz.cli.said import prints_aside, reason, said_at_once
from paramz.cli.sweep import ProfileFile, Workers


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command("tune")(tune)


def tune(
    source: Annotated[
        str,
        typer.Argument(
            help="train.py:train or train.py:task (a function of a sweep and its task, side by "
            "side), or a spec of a function or a command; axes in it need not be given."
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            help="The run to decide: width, and depth, steps or tokens, batch_size if they are not "
            "those of the config. Such as width=4096,depth=32,tokens=20e9."
        ),
    ],
    budget: Annotated[
        str,
        typer.Option(
            help="What tuning may use: 8gpu-hours, 10cpu-minutes, or 2hours of this machine."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the steps and the decision; the same one resumes.")
    ] = Path("runs/tune"),
    settings: Set = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="The function (config) -> paramz.Task, where it is not called task beside the "
            "training function: for the coordinate check and the plan."
        ),
    ] = None,
    hp: Annotated[str, typer.Option(help="The hyperparameter.")] = "lr",
    rule: Annotated[
        str | None,
        typer.Option(
            help="How lr moves with batch size and steps: token-horizon, completed, nanochat, "
            "timescale, constant, sde. What it leaves open is answered by token-horizon under "
            "Adam, constant otherwise, and by sde for the batch size."
        ),
    ] = None,
    profile: ProfileFile = None,
    workers: Workers = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the decision as JSON.")] = False,
) -> None:
    """Find the learning rate and the loss of a large run by small ones.

    For example: paramz tune train.py:train --target width=4096,steps=20000 --budget 8gpu-hours

    The steps are a pilot (what does a trial take?), a coordinate check, a wide range of the
    learning rate, a sweep over proxies, shorter runs where the target trains for longer, and runs
    at the chosen value. Each is a spec in the folder, which may be edited, and its results. The
    same command goes on where it stopped.

    Exits with 0 when it decides, 1 when a step shows that it cannot, 2 for a mistake in what was
    asked, and 3 while a cluster (--profile) is at work.
    """
    from paramz.sweeps.running.launcher import LaunchError, Options
    from paramz.sweeps.running.stopping import stop_on_signals
    from paramz.tuning.page import answer, save
    from paramz.tuning.question import Budget, Target
    from paramz.tuning.stage import Interrupted, Waiting
    from paramz.tuning.tune import decide

    with stop_on_signals() as stop:
        options = Options(workers=workers, profile=profile, stop=stop)
        try:
            asked = {
                "source": source,
                "target": Target.parse(target),
                "budget": Budget.parse(budget),
                "settings": config_of(settings),
                "task": task,
                "hp": hp,
                "rule": rule,
            }
            with prints_aside(), said_at_once():
                found = decide(
                    asked,
                    out,
                    launcher_for(options),
                    options,
                    lambda text: typer.echo(text, err=True),
                )
            page = save(found, out)
        except Waiting as waiting:
            typer.echo(f"{waiting}; the same command goes on when they have run", err=True)
            raise typer.Exit(3) from None
        except Interrupted as interrupted:
            typer.echo(str(interrupted), err=True)
            raise typer.Exit(130) from None
        except (ValueError, TypeError, KeyError, ImportError, LaunchError) as error:
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            typer.echo(f"error: {text}", err=True)
            raise typer.Exit(2) from None
        except OSError as error:
            typer.echo(f"error: {out}: {reason(error)}", err=True)
            raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        for line in answer(found):
            typer.echo(line)
        typer.echo(f"written: {page}")
    raise typer.Exit(1 if found.outcome == "stopped" else 0)
