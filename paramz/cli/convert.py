"""Verbs: convert."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from paramz.cli.functions import refused
from paramz.cli.said import prints_aside, said_at_once


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command()(convert)


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder or .py file; a .bsh file (base shapes of mup); a script, YAML or JSON "
            "with muP settings; or a function that returns a model: path/to/file.py:name or "
            "module:name."
        ),
    ] = "",
    flags: Annotated[
        str | None, typer.Option(help="Instead: Megatron's flags, as in '--use-mup ...'.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say what code, settings or a model of mup, unit-scaling, Megatron or Cerebras become.

    Nothing is changed. Source code is parsed, not run.
    """
    from paramz.compat.convert.convert import convert as find

    try:
        if bool(source) == bool(flags):
            raise ValueError("give one thing to convert: a file, folder or model, or --flags")
        with prints_aside(), said_at_once():
            found = find(flags or _model(source) or source)
    except Exception as error:
        raise refused(error) from None
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1))
        return
    for line in found.text():
        typer.echo(line)


def _model(source: str) -> Any:
    """The model that a named function returns; None if the source names no function."""
    module, colon, name = source.rpartition(":")
    if not colon or not name.isidentifier() or Path(source).exists():
        return None
    from torch import nn

    from paramz.sweeps.spec.target import load_object, locate

    found = load_object(locate(source, Path.cwd()))
    made = found() if callable(found) and not isinstance(found, nn.Module) else found
    if not isinstance(made, nn.Module):
        raise TypeError(
            f"{source} is {type(made).__name__}, neither a model nor a function that returns one"
        )
    return made
