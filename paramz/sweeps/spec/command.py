"""A command as the training function of a sweep: its words, and where its metrics are.

A spec gives it in place of ``train``::

    command: [python, train.py, --width, "{width}", --lr, "{lr}", --out, "{trial.directory}"]
    resume: [--resume, "{trial.directory}/ckpt.pt"]
    metrics: {file: "{trial.directory}/log.csv", step: iter, loss: val_loss}

Stores, orders of jobs and workers know a training function by its name. The name of a command is
``command:`` and its JSON.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

PREFIX = "command:"
HISTORY = "history.jsonl"  # what paramz itself writes into the directory of every trial
INTERPRETERS = ("python", "python3")  # the one that runs paramz
OF_TRIAL = ("trial.directory", "trial.key", "trial.attempt")
# Files that decide what a command does, beside those of Python; larger ones are data.
_SETTINGS = frozenset({".sh", ".bash", ".yaml", ".yml", ".json", ".toml", ".cfg", ".ini", ".gin"})
_MOST_BYTES = 2**20
_PARTS = re.compile(r"[\s'\"=;&|()]+")
# A name in braces. Doubled braces stand for themselves, and others, as in JSON, are left alone.
_HOLE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][\w.-]*)\}")


def _words(value: Any) -> Any:
    """The words of a line, as a shell would split it; no shell ever sees them."""
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise ValueError(f"{value!r} cannot be split into words: {error}") from None
    if isinstance(value, list):
        return [word if isinstance(word, (str, list, dict)) else _text(word) for word in value]
    return value


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
"""Words of a command: a list, or a line in the quoting of a shell."""


class Metrics(BaseModel):
    r"""Where a command leaves its metrics; they are read while it runs.

    Attributes:
        file: a file of JSON lines or CSV, or a folder with TensorBoard events or an offline W&B
            run. It may hold ``*``; the newest match counts.
        format: what `file` is; by default told by its name.
        pattern: a regular expression that is searched in every line of the output, in place of a
            file. Its named groups are metrics: ``step (?P<step>\d+): loss (?P<loss>\S+)``.
        step: name of the step.
        loss: name of the loss.
        average: the result is the mean of so many last values of the loss.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str | None = None
    format: Literal["jsonl", "csv", "tensorboard", "wandb"] | None = None
    pattern: str | None = None
    step: str = "step"
    loss: str = "loss"
    average: PositiveInt = 1

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _complete(self) -> Metrics:
        if (self.file is None) == (self.pattern is None):
            raise ValueError("give either file (a log that the command writes) or pattern")
        if self.pattern is not None and self.loss not in re.compile(self.pattern).groupindex:
            raise ValueError(
                f"pattern has no group called {self.loss!r}, which is the loss; write "
                rf"(?P<{self.loss}>\S+)"
            )
        if self.file == f"{{trial.directory}}/{HISTORY}":
            raise ValueError(
                f"{HISTORY} in the trial's directory is written by paramz; let the command write "
                "its log under another name"
            )
        if self.file is not None and self.format is None and not self.kind:
            raise ValueError(
                f"what is {self.file!r}? Name it .jsonl, .json, .csv or .tsv, or give format: "
                "jsonl, csv, tensorboard or wandb"
            )
        return self

    @property
    def kind(self) -> str:
        """What the file is; empty if its name does not tell."""
        if self.format:
            return self.format
        name = Path(self.file or "").name.lower()
        endings = {".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl"}
        endings |= {".csv": "csv", ".tsv": "csv", ".wandb": "wandb"}
        if name.startswith("events.out.tfevents"):
            return "tensorboard"
        return "wandb" if name == "wandb" else endings.get(Path(name).suffix, "")


class Command(BaseModel):
    """A command that trains, with holes such as ``{lr}`` for the values of a config.

    Attributes:
        words: the program and its arguments.
        resume: more arguments for attempts after the first.
        metrics: where its metrics are.
        folder: its working directory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    words: Annotated[tuple[str, ...], Field(min_length=1)]
    resume: tuple[str, ...] = ()
    metrics: Metrics
    folder: str

    @classmethod
    def parse(cls, name: str) -> Command:
        """The command that a training function's name stands for.

        >>> Command.parse('command:{"words": ["a"], "metrics": {"pattern": "(?P<loss>.)"},'
        ...               ' "folder": "/"}').words
        ('a',)
        """
        return cls.model_validate_json(name.removeprefix(PREFIX))

    @property
    def name(self) -> str:
        """The name under which stores and jobs know it."""
        return PREFIX + json.dumps(self.model_dump(exclude_defaults=True), sort_keys=True)

    def scripts(self) -> list[Path]:
        """The Python files that its words name and the module after ``-m``: its sources."""
        names = [name for name in self._names() if name.endswith(".py")]
        if "-m" in self.words[:-1]:
            module = self.words[self.words.index("-m") + 1].replace(".", "/")
            names += [f"{module}.py", f"{module}/__main__.py"]
        places = (Path(self.folder) / name for name in names)
        return [place for place in places if place.is_file()]

    def settings(self) -> dict[str, Path]:
        """The scripts of a shell and the configurations that its words name, by these names."""
        found = {
            name: Path(self.folder) / name
            for name in self._names()
            if Path(name).suffix.lower() in _SETTINGS
        }
        return {
            name: path
            for name, path in found.items()
            if path.is_file() and path.stat().st_size <= _MOST_BYTES
        }

    def _names(self) -> Iterator[str]:
        """What may be a name of a file: words, and those within the line of a ``sh -c``."""
        for word in self.words:
            yield from dict.fromkeys([word, *_PARTS.split(word)])

    def identity(self) -> bytes:
        """What of it decides results, wherever it runs."""
        return json.dumps([self.words, self.metrics.model_dump(mode="json")]).encode()


def is_command(name: str) -> bool:
    """Whether a training function's name is that of a command."""
    return name.startswith(PREFIX)


def shown(name: str) -> str:
    """The name of a training function for people; of a command its line.

    >>> shown("lab.py:train")
    'lab.py:train'
    """
    return shlex.join(Command.parse(name).words) if is_command(name) else name


def holes(words: Iterable[str]) -> Iterator[str]:
    """The names in braces in some words.

    >>> list(holes(["--lr={lr}", "{{lr}}", '{"json": 1}', "{trial.directory}/x"]))
    ['lr', 'trial.directory']
    """
    for word in words:
        yield from (found[1] for found in _HOLE.finditer(word) if found[1])


def filled(word: str, values: Mapping[str, Any]) -> str:
    """A word with values in place of its holes.

    Raises:
        KeyError: there is no such value.

    >>> filled("--lr={lr}", {"lr": 2**-8}), filled("{{x}}", {})
    ('--lr=0.00390625', '{x}')
    """

    def fill(found: re.Match[str]) -> str:
        return _text(values[found[1]]) if found[1] else found[0][0]

    return _HOLE.sub(fill, word)


def _text(value: Any) -> str:
    """A value as an argument: as Python writes it, lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, (list, dict)) else str(value)
