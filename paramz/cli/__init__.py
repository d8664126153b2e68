"""The command line: one file per group of verbs, all hung on one app."""

import importlib
import signal
from typing import Annotated

import typer

from paramz.cli.manners import Program, Verb

app = typer.Typer(
    name="paramz",
    cls=Program,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

# Each module defines `register(app)`. Two habits keep --help fast: imports stay inside the verbs,
# and the modules of verbs do without `from __future__ import annotations`, which would leave typer
# annotations as text to compile.
_VERBS = "init tune sweep status logs runs merge report fit check plan convert"
for _name in _VERBS.split():
    importlib.import_module(f"paramz.cli.{_name}").register(app)
for _verb in app.registered_commands:
    _verb.cls = Verb


def _say_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"paramz {version('torch-paramz')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Hyperparameter transfer for PyTorch: plan, check, sweep, report.

    Exit codes: 0 if all is well; 1 if trials failed or have no result, a check did not pass,
    report could judge nothing, or tune stopped without a value; 2 for a mistake in what was asked;
    3 if check or tune waits for a cluster; 130 after an interruption.
    """


def main() -> None:
    """Entry point of the `paramz` command."""
    try:
        app()
    finally:  # all is done and said: a signal that comes now does not change the exit code
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
