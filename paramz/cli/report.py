"""Verbs: report."""

import typer


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
