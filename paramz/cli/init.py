"""Verb: init."""

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from paramz.cli.said import reason

# Files of a new project, and those of the examples that they are copies of.
COPIES = {
    "train_lm.py": "train_lm.py",
    "train_loop.py": "train_loop.py",
    "sweep.yaml": "demo_lm.yaml",
}
PROFILE = "slurm.yaml"
NOTEBOOK = "analysis.ipynb"
NEXT = {
    "paramz plan train_lm.py:task --target width=256 --base width=32": "what does each tensor get?",
    "paramz check train_lm.py:task": "do activations keep their size?",
    "paramz sweep sweep.yaml": "train the models: about four minutes on two cores",
    "paramz report runs/sweep": "did the learning rate transfer?",
    "jupyter lab analysis.ipynb": "the same in a notebook, after pip install jupyterlab",
}
CELLS = (
    "# Did the learning rate transfer?\n\n"
    "Run `paramz sweep sweep.yaml` first; the cells read what it has written to `runs/sweep`.",
    "import paramz\nfrom paramz import analysis as pa\n\n"
    'runs = paramz.sweeps.load("runs/sweep")\nruns.tail()',
    'found = pa.transfer(runs, hp="lr", scale="width", by="parametrization")\n'
    'for verdict in found.verdicts.values():\n    print(verdict, end="\\n\\n")',
    "pa.plots.transfer(found);",
    "found.optima.round(3)",
    "## The loss of a model that was not trained\n\n"
    "A power law through the losses at one learning rate, with the interval of its prediction.",
    "mup = runs.query(\"parametrization == 'mup'\")\n"
    "for prediction in pa.predict_loss(mup, [512]):\n"
    '    print(*prediction.sentences("width", "lr"), sep="\\n")',
)


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command("init")(init)


def init(
    folder: Annotated[
        Path, typer.Argument(help="The folder of the project; made if it is not there.")
    ] = Path("."),
) -> None:
    """Write a small project that runs: a model and its training function, a sweep, a notebook.

    Files that exist are never overwritten.
    """
    names = (*COPIES, PROFILE, NOTEBOOK)
    there = [name for name in names if (folder / name).exists()]
    if there:
        typer.echo(
            f"error: {folder / there[0]} exists already; choose another folder: paramz init my-lab",
            err=True,
        )
        raise typer.Exit(2)
    source = examples()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, original in COPIES.items():
            shutil.copyfile(source / original, folder / name)
        shutil.copyfile(profile(), folder / PROFILE)
        text = json.dumps(notebook(), indent=1) + "\n"
        (folder / NOTEBOOK).write_text(text, encoding="utf-8")
    except OSError as error:
        typer.echo(f"error: {folder}: {reason(error)}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"Written: {', '.join(names)}\n\nNext:\n")
    if folder.resolve() != Path.cwd():
        typer.echo(f"cd {folder}\n")
    for command, what in NEXT.items():
        typer.echo(f"# {what}\n{command}\n")
    typer.echo(
        "Then put a model of your own into train_lm.py, and your cluster into slurm.yaml\n"
        "(paramz sweep sweep.yaml --profile slurm.yaml)."
    )


def examples() -> Path:
    """Where specs and training functions are: in the installed package, or in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "examples"
    return installed if installed.is_dir() else package.parent / "sweeps"


def profile() -> Path:
    """Where the profile of a cluster is that a project begins with."""
    inside = examples() / "slurm" / "h100.yaml"
    return inside if inside.is_file() else examples().parent / "slurm" / "h100.yaml"


def notebook() -> dict[str, Any]:
    """The notebook of a new project; cells that begin with # are text."""
    cells: list[dict[str, Any]] = []
    for number, source in enumerate(CELLS):
        cell = {"id": f"cell{number}", "metadata": {}, "source": source.splitlines(keepends=True)}
        if source.startswith("#"):
            cells.append({"cell_type": "markdown", **cell})
        else:
            cells.append({"cell_type": "code", "execution_count": None, "outputs": [], **cell})
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
