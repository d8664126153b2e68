"""What is wrong with a command, found when its spec is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paramz.sweeps.spec.command import INTERPRETERS, OF_TRIAL, Command, holes
from paramz.sweeps.spec.config import leaves


def check_script(words: Sequence[str], folder: Path) -> None:
    """Refuse a command of Python whose script is not there, before every trial of it fails.

    What another program starts may lie where only that program sees it, such as in a container.

    Args:
        words: the command.
        folder: where it runs.

    Raises:
        ValueError: there is no such file.

    >>> check_script(["python", "{name}.py"], Path())
    >>> check_script(["python", "no_such_file.py"], Path())
    Traceback (most recent call last):
    ValueError: no file no_such_file.py in ., where the command runs; ...
    """
    script = words[1] if len(words) > 1 and words[0] in INTERPRETERS else ""
    if script.endswith(".py") and "{" not in script and not (folder / script).is_file():
        raise ValueError(
            f"no file {script} in {folder}, where the command runs; write its path from there, or "
            "name the folder (cwd in a spec)"
        )


def _check_log(command: Command, varied: Iterable[Sequence[str]]) -> None:
    """Refuse a log that several trials write, so that they read each other's metrics.

    Args:
        command: the command.
        varied: the names that each axis of more than one value sets.

    Raises:
        ValueError: an axis does not reach the name of the log, nor does the trial.
    """
    named = set(holes([command.metrics.file or ""]))
    if command.metrics.file is None or named & {"trial.directory", "trial.key"}:
        return
    for names in varied:
        if not any(hole == name or hole.startswith(f"{name}.") for hole in named for name in names):
            raise ValueError(
                f"metrics: file {command.metrics.file!r} is one for all values of "
                f"{', '.join(names)}, so that trials which run at once would read each other's "
                "losses. Let the command write below {trial.directory}; one that always writes "
                "into the folder it runs in is [sh, -c, 'cd {trial.directory} && exec python "
                f"{command.folder}/train.py ...']"
            )


def check_command(
    command: Command, config: Mapping[str, Any], axes: Sequence[tuple[Sequence[str], bool]]
) -> None:
    """Refuse a command that names unknown values, that an axis does not reach, or without a script.

    Args:
        command: the command.
        config: any config of the sweep.
        axes: of each axis the names that it sets, and whether it has several values.

    Raises:
        ValueError: the message says which name, and what to write.
    """
    titles = [name for names, _ in axes for name in names]
    known = {*leaves(config), *titles, *OF_TRIAL}
    used = set(holes(command.words))
    for name in (*used, *holes(command.resume), *holes([command.metrics.file or ""])):
        if name not in known:
            raise ValueError(
                f"{{{name}}} is no value of a config; known are {', '.join(sorted(known))}. "
                "Double the braces if they are meant as they stand"
            )
    for name in titles:
        if name not in used and not any(hole.startswith(f"{name}.") for hole in used):
            raise ValueError(
                f"the axis {name!r} does not reach the command, so its trials would all be the "
                f'same; add an argument such as --{name.replace(".", "-")} "{{{name}}}"'
            )
    check_script(command.words, Path(command.folder))
    _check_log(command, [names for names, several in axes if several])
