"""Verbs: fit."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from paramz.analysis.prediction import Prediction


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command()(fit)


def fit(
    folder: Annotated[Path, typer.Argument(help="A run (runs/x).")],
    predict: Annotated[
        list[str] | None,
        typer.Option(help="A scale and its value, as in width=4096; may be given again."),
    ] = None,
    law: Annotated[
        str, typer.Option(help="power, pure_power (no floor) or broken (one break).")
    ] = "power",
    value: Annotated[
        float | None,
        typer.Option("--at", help="Value of --hp to compare at. Default: best of the smallest."),
    ] = None,
    hold: Annotated[int, typer.Option(help="How many of the largest to predict as a test.")] = 2,
    hp: Annotated[str, typer.Option(help="The hyperparameter.")] = "lr",
    loss: Annotated[str, typer.Option(help="The metric, smaller is better.")] = "loss",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Fit a scaling law to a sweep and predict the loss of a model not trained."""
    from paramz.analysis.prediction import predict_loss
    from paramz.analysis.runs import baseline_first, choose_scale, group_columns
    from paramz.sweeps import load

    try:
        df = baseline_first(load(folder))
        scale, sizes = parse(predict or [])
        scale = scale or choose_scale(df)
        by = group_columns(df, hp, scale)
        parts = df.groupby(by, sort=False) if by else [("all", df)]
        found, refused = [], []
        for _, part in parts:
            try:
                found += predict_loss(
                    part, sizes, scale=scale, hp=hp, value=value, loss=loss, by=by, law=law,
                    hold=hold,
                )  # fmt: skip
            except ValueError as error:
                refused.append(str(error))
        if not found:
            raise ValueError("; ".join(refused) or "the sweep has no finished trials")
    except (OSError, ValueError, KeyError) as error:
        typer.echo(f"error: {error.args[0] if isinstance(error, KeyError) else error}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        document = {"fits": [_document(p) for p in found], "refused": refused}
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    for prediction in found:
        for line in prediction.sentences(scale, hp):
            typer.echo(line)
    for reason in refused:
        typer.echo(f"not fitted: {reason}")


def parse(given: list[str]) -> tuple[str | None, list[float]]:
    """Scale and values out of `width=4096` and the like.

    Raises:
        ValueError: One is not of that shape, or they name different scales.

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


def _document(prediction: "Prediction") -> dict[str, Any]:
    held = prediction.trial.holdout_error
    return {
        "group": prediction.group,
        "hp": prediction.hp,
        "fit": json.loads(prediction.fit.to_json()),
        "held_out": [
            {"scale": float(s), "actual": float(a), "predicted": float(m), "error": float(e)}
            for s, a, m, e in zip(
                prediction.trial.held_out["scale"], held["actual"], held["mean"], held["error"],
                strict=True,
            )
        ],
        "predicted": prediction.ahead.to_dict("records"),
        "warnings": list(prediction.warnings),
    }  # fmt: skip
