"""One step of tuning: a spec on disk, which the user may edit, and the sweep that it describes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from paramz.sweeps.running.changed import of_other_code
from paramz.sweeps.running.launcher import Launcher, Options
from paramz.sweeps.running.refine import next_round
from paramz.sweeps.spec.spec import Sweep
from paramz.sweeps.spec.values import write_values
from paramz.sweeps.store.files import read_json, write_over
from paramz.sweeps.store.store import Store
from paramz.sweeps.store.table import load

if TYPE_CHECKING:
    import pandas as pd

MEMORY = "tune.json"  # what was asked, what the specs were when they were written, the design


class Waiting(Exception):
    """Trials of a step are still to run elsewhere; the same command goes on once they have."""


class Interrupted(Exception):
    """The user stopped tuning; the same command goes on."""


@dataclass(frozen=True)
class Stages:
    """Where the steps of one tuning are, and how their trials are run.

    Attributes:
        out: the folder; step ``x`` has the spec ``x.yaml`` and the results ``x/``.
        launcher: where trials run.
        options: how.
        say: tells the user what happens.
        question: what is asked.
    """

    out: Path
    launcher: Launcher
    options: Options
    say: Callable[[str], None]
    question: Mapping[str, Any]

    def path(self, name: str) -> Path:
        """The spec of a step."""
        return self.out / f"{name}.yaml"

    def store(self, name: str) -> Store:
        """The results of a step."""
        return Store(self.out / name)

    def spec(self, name: str, content: Mapping[str, Any], what: str) -> Sweep:
        """The sweep of a step, by its file, which is written unless the user has edited it.

        Args:
            name: of the step.
            content: of the file.
            what: a sentence for its first line.

        Raises:
            ValueError: the spec, written here or edited by the user, is not valid.
        """
        path = self.path(name)
        text = f"# {what}\n{write_values(_plain(content))}"
        there = path.read_text(encoding="utf-8") if path.exists() else None
        if there is not None and _hash(there) != self._recall("written").get(name):
            self.say(f"{path} was edited; it is used as it is")
        elif there != text:
            try:
                Sweep.model_validate(dict(content), context={"folder": self.out})
            except ValidationError as error:
                raise ValueError(
                    "; ".join(str(e["msg"]).removeprefix("Value error, ") for e in error.errors())
                ) from None
            self.out.mkdir(parents=True, exist_ok=True)
            write_over(path, text)
            self._keep("written", name, _hash(text))
        return Sweep.from_yaml(path)

    def run(self, name: str, sweep: Sweep) -> pd.DataFrame:
        """The results of a step; what is missing is run first.

        Returns:
            the table of `paramz.sweeps.load` without failed trials.

        Raises:
            Waiting: trials were handed to a queue, or are still there.
            Interrupted: a stop was requested.
            ValueError: every trial failed.
        """
        store = self.store(name)
        # A queue would be handed a trial that always fails again and again.
        queued = self.launcher.returns_at_once
        if not _finished(sweep, store, failed_too=queued):
            options = replace(self.options, retry="none") if queued else self.options
            report = self.launcher.submit(sweep, store, options)
            for line in report.lines:
                self.say(line)
            if self.options.stop.requested:
                raise Interrupted(f"stopped in the step {name}; the same command goes on from here")
            if queued and store.trials().keys() - store.finished():
                raise Waiting(f"the step {name} waits for its trials (paramz watch {store.root})")
        runs = load(store.root)
        good = runs[runs["status"] != "failed"]
        if good.empty:
            first = runs["error"].iloc[0] if len(runs) else "no trial has a result"
            raise ValueError(
                f"the step {name} has no result: {first}. paramz logs {store.root} tells more"
            )
        if failed := len(runs) - len(good):
            self.say(f"{failed} failed and are left out: paramz logs {store.root}, paramz retry")
        return good

    def failed(self, name: str) -> str:
        """Which trials of a step failed, in words; empty if none did, or there is no such step."""
        if not (self.path(name).exists() and self.store(name).results.is_dir()):
            return ""
        runs = load(self.store(name).root)
        bad = runs[runs["status"] == "failed"]
        if bad.empty:
            return ""
        ended = set(runs.loc[runs["status"] != "failed", "width"])
        where = ", ".join(
            f"{width}" + ("" if width in ended else " (all of it)")
            for width in sorted(set(bad["width"]))
        )
        return f"{len(bad)} of {len(runs)} trials of the step {name} failed, at width {where}"

    def seconds(self) -> float:
        """What all trials so far have taken, one after the other."""
        total = 0.0
        for results in sorted(self.out.glob("**/results")):
            if results.is_dir() and (results.parent / "trials.jsonl").exists():
                total += sum(record["seconds"] for record in Store(results.parent).records())
        return total

    def remembered(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Plain data that was worked out for this question, worked out now if it was not before."""
        known = self._recall("results").get(name, {})
        if known.get("question") != self._number:
            known = {"question": self._number, "value": make()}
            self._keep("results", name, known)
        return known["value"]  # type: ignore[no-any-return]

    @property
    def _number(self) -> str:
        return _hash(json.dumps(self.question, sort_keys=True))

    def _recall(self, what: str) -> dict[str, Any]:
        return (read_json(self.out / MEMORY) or {}).get(what, {})  # type: ignore[no-any-return]

    def _keep(self, what: str, name: str, value: Any) -> None:
        memory = read_json(self.out / MEMORY) or {}
        changed = {**memory, "question": dict(self.question)}
        changed[what] = {**memory.get(what, {}), name: value}
        write_over(self.out / MEMORY, json.dumps(changed, indent=2) + "\n")


def _finished(sweep: Sweep, store: Store, *, failed_too: bool) -> bool:
    """Whether every trial has ended, of the code that there is now, and no round is left.

    Args:
        sweep: the sweep.
        store: its results.
        failed_too: failed trials have ended; otherwise they are to run again.
    """
    if not (store.root / "trials.jsonl").exists():
        return False
    if store.trials_of("trials").keys() != sweep.trials.keys():  # the spec was edited
        return False
    asked = store.trials()
    records = [record for record in store.records() if record["key"] in asked]
    failed = any(record["status"] == "failed" for record in records)
    if len(records) < len(asked) or (failed and not failed_too):
        return False
    return not of_other_code(store, sweep.target, records) and not next_round(sweep, store)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """The same with lists for tuples, which YAML has no word for."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
