"""The verb ``fit``: a scaling law through a sweep or a table, and the loss it predicts."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from paramz.cli.finished import require_finished
from paramz.cli.said import said_at_once, working


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command()(fit)


def fit(
    source: Annotated[
        Path,
        typer.Argument(
            help="The folder of a run, such as runs/x, or a table: CSV, parquet, JSON lines, an "
            "export of W&B or TensorBoard."
        ),
    ],
    predict: Annotated[
        list[str] | None,
        typer.Option(help="Where to predict, as in width=4096 or N=7e9,D=1.4e11; repeat for more."),
    ] = None,
    law: Annotated[
        str,
        typer.Option(
            help="Over one scale: power, pure_power (no floor), broken (one break). Over N and D: "
            "chinchilla, tied, kaplan, hp; with batch: batch; with U different tokens: repeated."
        ),
    ] = "power",
    value: Annotated[
        float | None,
        typer.Option(
            "--at", help="Value of --hp to compare at. Default: the best of the smallest scale."
        ),
    ] = None,
    hold: Annotated[
        int | None,
        typer.Option(
            help="How many of the largest scales to predict as a test. Default: two, or as many "
            "as their number allows.",
            min=0,
        ),
    ] = None,
    hp: Annotated[str, typer.Option(help="The hyperparameter.")] = "lr",
    loss: Annotated[str, typer.Option(help="The metric, smaller is better.")] = "loss",
    names: Annotated[
        list[str] | None,
        typer.Option("--map", help="Rename a column, as in hidden_size=width; repeat for more."),
    ] = None,
    compute: Annotated[
        list[float] | None,
        typer.Option(help="FLOP to divide between N and D; repeat for more."),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(help="Where the Huber loss turns linear. Default: what suits the response."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Fit a scaling law and predict the loss of a model that was not trained."""
    from paramz.analysis.tablefit import Sizes, inputs_of

    try:
        with said_at_once():
            df = read(source, names or [])
        points = [parse_point(text) for text in predict or []]
        asked = Sizes(
            law,
            points=tuple(points),
            compute=tuple(compute or ()),
            loss=loss,
            hold=hold,
            delta=delta,
        )
        if inputs_of(law) == ("x",):
            lines, document = _over_a_scale(df, points, asked, hp, value)
        else:
            lines, document = _over_sizes(df, asked)
    except (OSError, ValueError, KeyError) as error:
        # The text of a KeyError has quotation marks around its message.
        typer.echo(f"error: {error.args[0] if isinstance(error, KeyError) else error}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    for line in lines:
        typer.echo(line)


def read(source: Path, names: list[str]) -> Any:
    """The runs of a sweep's folder or of a table.

    Args:
        source: the folder or the file.
        names: columns to rename, as ``theirs=ours``.

    Returns:
        a DataFrame, one row per run; those that did not end well are in it.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it holds no table, or a text has another form.
        KeyError: a column to rename is not there.
    """
    from paramz.analysis.runs import baseline_first
    from paramz.analysis.tables import last_rows, parse_names, read_table
    from paramz.sweeps import load

    if source.is_dir() and ((source / "results").is_dir() or not any(source.glob("*.csv"))):
        df = load(source)
        require_finished(df, source)
        renamed = parse_names(names)
        if missing := [name for name in renamed if name not in df]:
            raise KeyError(
                f"{source} has no column {', '.join(map(repr, missing))}; it has: "
                f"{', '.join(map(str, df.columns))}"
            )
        df = df.rename(columns=renamed)
    else:
        df = last_rows(read_table(source, parse_names(names)))
    return baseline_first(df)


def parse_point(text: str) -> dict[str, float]:
    """The names and sizes in a text such as ``N=7e9,D=1.4e11``.

    Args:
        text: the text.

    Returns:
        the sizes by name.

    Raises:
        ValueError: it has another form, or a size is not above zero.

    >>> parse_point("N=7e9,D=1.4e11")
    {'N': 7000000000.0, 'D': 140000000000.0}
    """
    point = {}
    for pair in text.split(","):
        name, _, number = pair.strip().partition("=")
        try:
            size = float(number)
        except ValueError:
            raise ValueError(
                f"--predict wants name=number, as in width=4096; got {text!r}"
            ) from None
        if not name or not 0 < size < float("inf"):
            raise ValueError(f"--predict wants a name and a size above zero; got {text!r}")
        point[name] = size
    return point


def one_scale(points: list[dict[str, float]]) -> tuple[str | None, list[float]]:
    """The scale that points name, None where there are none, and their sizes.

    Raises:
        ValueError: they name different scales.

    >>> one_scale([{"width": 512.0}, {"width": 1024.0}])
    ('width', [512.0, 1024.0])
    """
    found = sorted({name for point in points for name in point})
    if len(found) > 1:
        raise ValueError(
            f"--predict takes one scale, got {', '.join(found)}; for a law of N and D add --law "
            "chinchilla"
        )
    return (found[0] if found else None), [size for point in points for size in point.values()]


def _over_a_scale(
    df: Any, points: list[dict[str, float]], asked: Any, hp: str, value: float | None
) -> tuple[list[str], dict[str, Any]]:
    """A law of one input: at one value of the hyperparameter, a fit for each group."""
    from dataclasses import replace

    from paramz.analysis.prediction import Question, predict_each
    from paramz.analysis.runs import choose_scale, group_columns

    named, sizes = one_scale(points)
    scale = named or choose_scale(
        df,
        "name the scale where to predict, as in --predict hidden_size=512, or call its column so, "
        "as in --map hidden_size=width",
    )
    if hp not in df.columns and value is None:
        return _over_sizes(df, replace(asked, inputs={scale: scale}))
    question = Question(
        scale, tuple(sizes), hp, value, asked.loss, asked.law, asked.hold, asked.delta
    )
    with working("fitting, and refitting resamples for the intervals"):
        found, refused = predict_each(df, group_columns(df, hp, scale), question)
    if not found:
        raise ValueError("; ".join(refused) or "there are no finished trials")
    lines = [line for prediction in found for line in prediction.sentences(scale, hp)]
    lines += [f"not fitted: {reason}" for reason in refused]
    return lines, {"fits": [p.to_json() for p in found], "refused": refused}


def _over_sizes(df: Any, asked: Any) -> tuple[list[str], dict[str, Any]]:
    """A law through all runs of a table."""
    from paramz.analysis.tablefit import fit_table

    with working("fitting, and refitting resamples for the intervals"):
        found = fit_table(df, asked)
        return found.sentences(), found.to_json()
