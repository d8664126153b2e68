"""Verb: logs."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paramz.cli.said import said_at_once
from paramz.cli.status import AsJson, Directory, opened

if TYPE_CHECKING:
    from paramz.sweeps.spec.config import Config
    from paramz.sweeps.store.store import Store

_FAILED_SHOWN = 5  # trials whose logs are printed if no key is given


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command("logs")(logs)


def logs(
    directory: Directory,
    key: Annotated[
        str | None,
        typer.Argument(
            help="The key of a trial, or its beginning. Default: the first failed trials."
        ),
    ] = None,
    lines: Annotated[
        int, typer.Option("-n", min=1, help="How many of the last lines of a log to print.")
    ] = 30,
    as_json: AsJson = False,
) -> None:
    """Print the log of a trial and the attempts at it; without a key, those of failed trials."""
    store = opened(directory)
    asked = store.trials()
    if key is None:
        with said_at_once():
            failed = [record["key"] for record in store.records() if record["status"] == "failed"]
        chosen = [name for name in failed if name in asked][:_FAILED_SHOWN]
        total = len(failed)
    else:
        chosen, total = [_one(store, asked, key)], None
    shown = [_trial(store, name, asked[name], lines) for name in chosen]
    if as_json:
        typer.echo(json.dumps({"directory": str(store.root), "failed": total, "trials": shown}))
        return
    if total == 0:
        typer.echo("no failed trials; give a key to see the log of another")
    elif total is not None and total > len(chosen):
        typer.echo(f"{total} trials failed; these are the first {len(chosen)}\n")
    for trial in shown:
        typer.echo(_text(trial))


def _one(store: "Store", asked: "dict[str, Config]", beginning: str) -> str:
    """The key that has this beginning, if there is exactly one."""
    found = [key for key in asked if key.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    has = f"{len(found)} trials of {store.root} have" if found else f"no trial of {store.root} has"
    typer.echo(f"error: {has} a key that begins with {beginning!r}", err=True)
    raise typer.Exit(2)


def _trial(store: "Store", key: str, config: "Config", lines: int) -> dict[str, Any]:
    from paramz.sweeps.store.files import read_json

    paths = sorted(store.trial(key).glob("attempt-*.json"))
    log = store.trial(key) / "log.txt"
    record = store.read(key) or {"status": None, "error": None}
    return {
        "key": key,
        "config": config,
        "status": record["status"],
        "error": record["error"],
        "attempts": [{"name": path.stem} | (read_json(path) or {}) for path in paths],
        "log": log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else [],
    }


def _text(trial: dict[str, Any]) -> str:
    from paramz.sweeps.spec.config import leaves

    named = "  ".join(f"{name}={value}" for name, value in leaves(trial["config"]).items())
    lines = [f"{trial['key']}  {named}"]
    for attempt in trial["attempts"]:
        where = f"job {attempt['job']}" if attempt.get("job") else f"pid {attempt.get('pid')}"
        why = attempt.get("why", "no end recorded")
        lines.append(f"  {attempt['name']}: {attempt.get('host')}, {where}: {why}")
    if trial["error"]:
        lines.append(f"  {trial['status']}: {trial['error']}")
    lines += [f"  | {line}" for line in trial["log"]]
    return "\n".join(lines) + "\n"
