"""The verb ``fit``: a scaling law through a sweep, and the loss it predicts."""

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command()(fit)


def fit(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, such as runs/x.")],
    predict: Annotated[
        list[str] | None,
        typer.Option(help="A scale and its value, as in width=4096; repeat for more."),
    ] = None,
    law: Annotated[
        str, typer.Option(help="power, pure_power (no floor) or broken (one break).")
    ] = "power",
    value: Annotated[
        float | None,
        typer.Option(
            "--at", help="Value of --hp to compare at. Default: the best of the smallest scale."
        ),
    ] = None,
    hold: Annotated[
        int, typer.Option(help="How many of the largest scales to predict as a test.")
    ] = 2,
    hp: Annotated[str, typer.Option(help="The hyperparameter.")] = "lr",
    loss: Annotated[str, typer.Option(help="The metric, smaller is better.")] = "loss",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Fit a scaling law to a sweep and predict the loss of a model that was not trained."""
    from paramz.analysis.prediction import Question, predict_each
    from paramz.analysis.runs import baseline_first, choose_scale, group_columns
    from paramz.sweeps import load

    try:
        df = baseline_first(load(folder))
        named, sizes = parse(predict or [])
        scale = named or choose_scale(df)
        question = Question(scale, tuple(sizes), hp=hp, value=value, loss=loss, law=law, hold=hold)
        found, refused = predict_each(df, group_columns(df, hp, scale), question)
        if not found:
            raise ValueError("; ".join(refused) or "the sweep has no finished trials")
    except (OSError, ValueError, KeyError) as error:
        # The text of a KeyError has quotation marks around its message.
        typer.echo(f"error: {error.args[0] if isinstance(error, KeyError) else error}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        document = {"fits": [p.to_json() for p in found], "refused": refused}
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    for prediction in found:
        for line in prediction.sentences(scale, hp):
            typer.echo(line)
    for reason in refused:
        typer.echo(f"not fitted: {reason}")


def parse(given: list[str]) -> tuple[str | None, list[float]]:
    """The scale and its values in texts such as ``width=4096``.

    Args:
        given: the texts.

    Returns:
        the scale, None where there are no texts, and the values.

    Raises:
        ValueError: a text has another form or a value that is not above zero, or they name
            different scales.

    >>> parse(["width=512", "width=1024"])
    ('width', [512.0, 1024.0])
    """
    names, values = [], []
    for text in given:
        name, _, number = text.partition("=")
        try:
            values.append(float(number))
        except ValueError:
            raise ValueError(
                f"--predict wants name=number, as in width=4096; got {text!r}"
            ) from None
        if not name or values[-1] <= 0:
            raise ValueError(f"--predict wants a name and a size above zero; got {text!r}")
        names.append(name)
    if len(set(names)) > 1:
        raise ValueError(f"--predict takes one scale, got {', '.join(sorted(set(names)))}")
    return (names[0] if names else None), values
