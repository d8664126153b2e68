"""A coordinate check of a user's own script: one trial per width, seed and learning rate.

The script is any command with ``paramz.record`` in its training loop. It runs as a trial of a
sweep, here or on a cluster, with two environment variables that ask `paramz.record` to work.
Imports no torch.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paramz.analysis.coordinates import CheckDiverged
from paramz.check.callback import FOLDER, STEPS
from paramz.check.jobs import MODEL, Check, table
from paramz.check.sweep import LINES, ROWS, tell_of_other_code
from paramz.sweeps.spec.command import INTERPRETERS, Command, holes
from paramz.sweeps.spec.command_check import check_script
from paramz.sweeps.spec.spec import Sweep
from paramz.sweeps.store.files import read_json

if TYPE_CHECKING:
    import pandas as pd

    from paramz.sweeps.store.record import Record
    from paramz.sweeps.store.store import Store

UNNAMED = "script"
"""The parametrization or optimizer in the table, where only the script knows it."""

_CALLS = re.compile(r"^\s*(paramz\.)?record\(", re.MULTILINE)
_TWO_LINES = (
    "two lines make it: import paramz, and paramz.record(model, step) in every iteration of the "
    "training loop, before the model is called"
)


def script_sweep(
    words: Sequence[str], check: Check, *, folder: Path, minutes: float, given: Collection[str] = ()
) -> Sweep:
    """The sweep whose trials run a script for a coordinate check.

    Args:
        words: the command, with ``{width}`` and ``{lr}``, ``{seed}`` if there are several, and, as
            far as the script takes them, ``{parametrization}``, ``{optimizer}``, ``{base_width}``,
            ``{steps}`` (as many as the check needs) and names of ``check.config``.
        check: what is varied.
        folder: where the command runs.
        minutes: time limit of one run.
        given: attributes of the check that somebody chose, so that they have to reach the script.

    Raises:
        ValueError: a value that varies or was chosen does not reach the command; or the check is
            over depth or experts, or there is no such script.

    >>> words = ["python", "-m", "lab", "--width={width}", "--lr={lr}", "--seed={seed}"]
    >>> check = Check(widths=[64, 128], seeds=2)
    >>> sweep = script_sweep(words, check, folder=Path(), minutes=5)
    >>> [(config["width"], config["seed"]) for config in sweep.configs()]
    [(128, 0), (128, 1), (64, 0), (64, 1)]
    """
    axis, scales = check.axis()
    if axis != "width":
        raise ValueError(
            f"a check of a command is over widths: over {axis} blocks are compared with those of "
            f"the smallest model, which only a task can build: paramz check file.py:task with the "
            "same option, where task(config) returns paramz.Task(model, batch)"
        )
    used = set(holes(words))
    for name in ("parametrization", "optimizer", "base_width"):
        if name in given and name not in used:
            raise ValueError(
                f"{name} {getattr(check, name)} does not reach the command; add an argument such "
                f'as --{name} "{{{name}}}"'
            )
    seeds = check.all_seeds
    axes: dict[str, Any] = {"width": sorted(set(scales), reverse=True), "lr": list(check.lrs)}
    base: dict[str, Any] = {
        "steps": check.steps + 1,  # the last update is seen when the next iteration begins
        **check.config,
        "base_width": check.base_width or min(scales),
        **{n: str(getattr(check, n)) for n in ("parametrization", "optimizer") if n in used},
    }
    if len(seeds) > 1:
        axes["seed"] = list(seeds)
    else:
        base["seed"] = seeds[0]
    found = [sys.executable if w in INTERPRETERS else w for w in words[:1]] + [*words[1:]]
    asked = ["env", f"{FOLDER}={{trial.directory}}", f"{STEPS}={check.steps}"]
    sweep = Sweep.model_validate(
        {
            "command": [*asked, *found],
            "metrics": {"file": f"{{trial.directory}}/{LINES}", "loss": "size"},
            "base": {name: value for name, value in base.items() if name not in axes},
            "axes": axes,
            "resources": {"minutes": minutes},
        },
        context={"folder": folder},
    )
    check_script(words, folder)
    return sweep


def records_itself(command: Command) -> bool:
    """Whether one of a command's Python files calls `paramz.record`."""
    texts = (script.read_text(encoding="utf-8", errors="replace") for script in command.scripts())
    return any("paramz" in text and _CALLS.search(text) for text in texts)


def first_of(sweep: Sweep) -> Sweep:
    """The smallest run of such a check alone: without a record from it the others are in vain.

    >>> words = ["python", "-m", "lab", "--width={width}", "--lr={lr}", "--seed={seed}"]
    >>> check = Check(widths=[64, 128], seeds=2)
    >>> first = first_of(script_sweep(words, check, folder=Path(), minutes=5))
    >>> [(config["width"], config["seed"]) for config in first.configs()]
    [(64, 0)]
    """
    smallest = min(sweep.configs(), key=lambda config: config["width"])
    axes = {name: [smallest[name]] for name in sweep.axes}
    fields = sweep.model_dump(exclude_defaults=True) | {"axes": axes}
    return Sweep.model_validate(fields, context={"folder": sweep.folder})


def gather_script(sweep: Sweep, store: Store) -> pd.DataFrame | None:
    """The table of such a check; None if trials have no result yet.

    Raises:
        ValueError: a script failed, ended too early, or never called `paramz.record`.
        CheckDiverged: activations were not finite.

    Warns:
        UserWarning: results are of another version of the script.
    """
    records: list[Record] = []
    found: dict[str, Mapping[str, Any]] = {}
    for key, config in sweep.trials.items():
        record = store.read(key)
        if record is None:
            return None
        data = read_json(store.trial(key) / ROWS)
        if record["status"] != "ok" or data is None:
            where = f"width {config['width']}, seed {config['seed']}, lr {config['lr']:g}"
            said = f"{where}: {_what_went_wrong(record, store.trial(key))}"
            too_fast = record["status"] == "diverged" and _updates(store.trial(key)) > 0
            raise CheckDiverged(said) if too_fast else ValueError(said)
        records.append(record)
        found[key] = data
    tell_of_other_code(sweep, store, records, sweep.target)
    _require_scheme(sweep, found)
    return table("width", _rows(sweep, found))


def _what_went_wrong(record: Record, folder: Path) -> str:
    error = str(record.get("error"))
    if record["status"] == "diverged":
        cure = "lower lr" if _updates(folder) else "before any update, so that no lr would help"
        return f"activations are not finite ({error}); {cure}"
    if record["status"] == "failed" and "left no metric" not in error:
        return error
    if not (folder / LINES).is_file():
        return f"the script ended without a call of paramz.record; {_TWO_LINES}"
    return (
        f"the script ended after {_updates(folder)} updates with paramz.record: let it train for "
        'more iterations (--steps "{steps}" gives it as many as the check needs)'
    )


def _updates(folder: Path) -> int:
    """The updates that a script made, by the lines of `paramz.record`, one of them before any."""
    lines = folder / LINES
    return len(lines.read_text(encoding="utf-8").splitlines()) - 1 if lines.is_file() else 0


def _require_scheme(sweep: Sweep, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a table under the name of a scheme that the model is not under."""
    asked = sweep.base.get("parametrization")
    plans = {data["plan"] for data in found.values()}
    if len(plans) > 1:
        raise ValueError(f"the script applied several parametrizations: {sorted(map(str, plans))}")
    (plan,) = plans
    if asked is None or plan is None:
        return
    from paramz.theory.tables import parametrization

    if parametrization(str(asked)).name != plan:
        raise ValueError(
            f"{asked} was asked for, and the script's model is under {plan}: hand the argument on "
            "to parametrize_"
        )


def _rows(sweep: Sweep, found: Mapping[str, Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """The rows of all trials, with what only several widths tell: roles, and what reads out."""
    widths = {key: sweep.trials[key]["width"] for key in found}
    small, large = (found[pick(widths, key=lambda key: widths[key])] for pick in (min, max))
    growing = {
        name: [a != b for a, b in zip(shape, large["shapes"].get(name, shape), strict=False)]
        for name, shape in small["shapes"].items()
    }
    roles = _roles(growing, small["shapes"], set(small["turned"]))
    reads_out = small["features"] == large["features"]
    rows = []
    for key, data in found.items():
        config = sweep.trials[key]
        scheme = config.get("parametrization") or data["plan"] or UNNAMED
        head = (scheme, config.get("optimizer") or UNNAMED, config["width"], config["seed"])
        for _, step, module, role, quantity, rms, _ in data["rows"]:
            after = data["after"].get(module)
            last = after is not None and not any(any(growing.get(name, ())) for name in after)
            if not data["plan"] and "(input)" not in module:
                role = roles.get(module.partition("#")[0], "")
            if module.startswith(MODEL):
                role = "output" if reads_out else ""
            rows.append((*head, config["lr"], step, module, role, quantity, rms, last))
    return rows


def _roles(
    growing: Mapping[str, Sequence[bool]], shapes: Mapping[str, Sequence[int]], turned: set[str]
) -> dict[str, str]:
    """Module -> role of its largest tensor, by the axes that grow."""
    roles: dict[str, str] = {}
    largest: dict[str, int] = {}
    for name, grows in growing.items():
        module = name.rpartition(".")[0]
        size = 1
        for length in shapes[name]:
            size *= length
        if size <= largest.get(module, 0):
            continue
        largest[module] = size
        if len(grows) < 2:
            roles[module] = "vector" if any(grows) else ""
            continue
        outwards, inwards = (grows[1], grows[0]) if name in turned else (grows[0], grows[1])
        both = {(True, True): "hidden", (True, False): "input", (False, True): "output"}
        roles[module] = both.get((outwards, inwards), "")
    return roles
