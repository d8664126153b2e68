"""The verb ``report``: one page on what a sweep and its coordinate checks say."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from paramz.cli.finished import require_columns, require_finished
from paramz.cli.said import reason, said_at_once, working

if TYPE_CHECKING:
    import pandas as pd

    from paramz.analysis.report import Report


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command()(report)


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            help="The folder of a run, such as runs/x, or one that holds several runs; or a table "
            "of runs: CSV, parquet, JSON lines, an export of W&B or TensorBoard."
        ),
    ],
    hp: Annotated[str, typer.Option(help="The hyperparameter whose transfer is judged.")] = "lr",
    loss: Annotated[str, typer.Option(help="The metric, smaller is better.")] = "loss",
    scale: Annotated[
        str | None,
        typer.Option(
            help="What it should transfer over. Default: width, or depth if width does not vary."
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--map", help="Rename a table's column, as in hidden_size=width; repeat."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the page and its figures go. Default: into the folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write report.html and its figures: did the hyperparameter transfer?

    Exits with 1 where nothing could be judged, of which the page and the text say why.
    """
    from paramz.analysis.columns import wide_columns
    from paramz.analysis.tables import ENDINGS, as_trials, last_rows, parse_names, read_table
    from paramz.sweeps import load

    runs = None
    try:
        if len({hp, loss, scale} - {None}) < 3 - (scale is None):
            raise ValueError(
                f"--hp {hp}, --loss {loss}{f', --scale {scale}' if scale else ''}: one column is "
                "named for two things"
            )
        # What ends like a table is one, and where it is not there, the message says "no file".
        if folder.is_file() or (folder.suffix.lower() in ENDINGS and not folder.exists()):
            runs = last_rows(read_table(folder, parse_names(names or [])))
            needed = [hp, loss, *([scale] if scale else [])]
            if missing := [name for name in needed if name not in runs]:
                raise KeyError(
                    f"{folder} has no column {', '.join(map(repr, missing))}; it has: "
                    f"{', '.join(map(str, runs.columns))}. Name them with --map theirs=ours, or "
                    f"--hp, --loss and --scale{wide_columns(runs, hp, loss)}"
                )
            runs, out = as_trials(runs), out or folder.with_name(f"{folder.stem}-report")
        elif names:
            raise ValueError(
                "--map renames the columns of a table; a run's folder has its own names"
            )
        elif (folder / "results").is_dir():
            with said_at_once():
                df = load(folder)
            if not (folder / "coord").is_dir():
                require_finished(df, folder)
            # The defaults need not be there: the report then says that nothing was judged.
            own = [name for name, usual in ((hp, "lr"), (loss, "loss")) if name != usual]
            require_columns(df, folder, [*own, scale])
        with said_at_once(), working("reading the runs, fitting and drawing"):
            written, refused = _written(folder, runs, out, hp=hp, loss=loss, scale=scale)
    except (OSError, ValueError, KeyError) as error:
        # The text of a KeyError has quotation marks around its message.
        typer.echo(f"error: {error.args[0] if isinstance(error, KeyError) else error}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        document = {
            "report": None if refused else str(written.path),
            "verdicts": written.verdicts,
            "answers": written.answers,
            "figures": [] if refused else [str(f) for f in written.figures],
        }
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for sentence in written.verdicts:
            typer.echo(sentence)
    if refused:
        typer.echo(f"error: {out or folder}: not written: {reason(refused)} (--out)", err=True)
        raise typer.Exit(2)
    if not as_json:
        typer.echo(f"written: {written.path}")
    if not written.judged:
        raise typer.Exit(1)


def _written(
    folder: Path, runs: "pd.DataFrame | None", out: Path | None, **asked: "str | None"
) -> "tuple[Report, OSError | None]":
    """The report, and why the page could not be written if so: what it says is known even then."""
    from paramz.analysis.report import write_report, write_table_report

    def write(place: "Path | str | None") -> "Report":
        if runs is not None and place is not None:
            return write_table_report(runs, place, **asked)  # type: ignore[arg-type]
        return write_report(folder, out=place, **asked)  # type: ignore[arg-type]

    try:
        return write(out), None
    except FileNotFoundError:
        raise
    except OSError as error:
        with TemporaryDirectory() as elsewhere:
            return write(elsewhere), error
