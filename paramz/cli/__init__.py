"""The command line: one file per group of verbs, all hung on one app."""

import importlib

import typer

app = typer.Typer(
    name="paramz",
    help="Hyperparameter transfer for PyTorch: plan, check, sweep, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Each module defines `register(app)`; imports stay inside the verbs so that --help is fast.
for _name in ("sweep", "status", "logs", "runs", "report", "fit", "check", "convert"):
    importlib.import_module(f"paramz.cli.{_name}").register(app)


def main() -> None:
    """Entry point of the `paramz` command."""
    app()
