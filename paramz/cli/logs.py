"""Verb: logs."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paramz.cli.said import said_at_once
from paramz.cli.status import AsJson, Directory, opened

if TYPE_CHECKING:
    from paramz.sweeps.spec.config import Config
    from paramz.sweeps.store.store import Store

_FAILED_SHOWN = 5  # trials whose logs are printed if no key is given
_RANKS_SHOWN = 2  # processes of a trial beside the first whose logs are printed
_LOOKED_AT = 1000  # last lines of their logs in which an error is looked for
_RAISED = "Traceback (most recent call last):"
_OF_RANK = re.compile(r"log\.(\d+)\.txt")


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
            records = [record for record in store.records() if record["key"] in asked]
        failed = [record["key"] for record in records if record["status"] == "failed"]
        chosen, total = failed[:_FAILED_SHOWN], len(failed)
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
    from paramz.sweeps.store.files import last_lines, read_json

    paths = sorted(store.trial(key).glob("attempt-*.json"))
    ranks = {
        rank: last_lines(store.trial(key) / f"log.{rank}.txt", lines)
        for rank in _ranks_shown(store.trial(key))
    }
    record = store.read(key) or {"status": None, "error": None}
    return {
        "key": key,
        "config": config,
        "status": record["status"],
        "error": record["error"],
        "attempts": [{"name": path.stem} | (read_json(path) or {}) for path in paths],
        "log": last_lines(store.trial(key) / "log.txt", lines),
    } | ({"ranks": ranks} if ranks else {})


def _ranks_shown(folder: Path) -> list[int]:
    """The further ranks of a trial whose logs are shown: those that failed before the others.

    One fails, and the others wait for it until they are ended.
    """
    from paramz.sweeps.store.files import last_lines

    named = ((_OF_RANK.fullmatch(path.name), path) for path in folder.glob("log.*.txt"))
    logs = {int(match[1]): path for match, path in named if match}
    failed = {
        rank
        for rank, path in logs.items()
        if any(_RAISED in line for line in last_lines(path, _LOOKED_AT))
    }
    return sorted(logs, key=lambda rank: (rank not in failed, rank))[:_RANKS_SHOWN]


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
    for rank, log in trial.get("ranks", {}).items():
        lines += [f"  rank {rank}:", *(f"  | {line}" for line in log)]
    return "\n".join(lines) + "\n"
