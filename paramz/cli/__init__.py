"""The command line: one file per group of verbs, all hung on one app."""

import importlib
import signal

import typer

app = typer.Typer(
    name="paramz",
    help="Hyperparameter transfer for PyTorch: plan, check, sweep, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Each module defines `register(app)`. Two habits keep --help fast: imports stay inside the verbs,
# and the modules of verbs do without `from __future__ import annotations`, which would leave typer
# annotations as text to compile.
for _name in ("sweep", "status", "logs", "runs", "merge", "report", "fit", "check", "convert"):
    importlib.import_module(f"paramz.cli.{_name}").register(app)


def main() -> None:
    """Entry point of the `paramz` command."""
    try:
        app()
    finally:  # all is done and said: a signal that comes now does not change the exit code
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
