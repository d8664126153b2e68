"""Functions that users name on the command line, the config that they get, and what they raise."""

import sysconfig
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value for the task's config; repeat for more."),
]
Scheme = Annotated[
    str,
    typer.Option("--parametrization", "--scheme", "-p", help="Name, such as mup or mup+completep."),
]


def located(name: str) -> str:
    """The place of a function, independent of the working directory.

    Raises:
        ValueError: the name has no such form, or the file defines no such function.
    """
    from paramz.sweeps.spec.target import locate

    return locate(name, Path.cwd())


def config_of(settings: list[str] | None) -> dict[str, Any]:
    """The config that ``--set`` gives, with values that are read as in a spec.

    Raises:
        ValueError: a setting is not ``key=value``, or its value cannot be read.
    """
    from paramz.sweeps.spec.config import canonical
    from paramz.sweeps.spec.values import ValueTextError, read_value

    config = {}
    for setting in settings or []:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {setting}: write key=value")
        try:
            canonical(value := read_value(text))
        except ValueTextError as error:
            raise ValueError(f"--set {setting}: {error.problem}") from None
        except ValueError as error:
            raise ValueError(f"--set {setting}: {error}") from None
        if key in config:
            raise ValueError(f"--set {setting}: {key!r} is given twice")
        config[key] = value
    return config


def numbers(option: str, text: str, what: str = "learning rate") -> list[float]:
    """Positive numbers with commas between; ``2^-8`` works.

    Args:
        option: the option's name.
        text: what stands behind it.
        what: what one of them is.

    Raises:
        ValueError: they are none.
    """
    try:
        found = [_power(part) for part in text.split(",")]
    except (ValueError, ArithmeticError, TypeError):
        raise ValueError(
            f"{option} {text}: write numbers with commas between, such as 0.01 or 2^-8"
        ) from None
    for number in found:
        if not 0 < number < float("inf"):
            raise ValueError(f"{option} {text}: {number:g} is no {what}")
    return found


def _power(text: str) -> float:
    base, _, exponent = text.strip().partition("^")
    return float(float(base) ** float(exponent)) if exponent else float(base)


def refused(error: Exception) -> typer.Exit:
    """Say in one line what is wrong, and exit with 2.

    What paramz says of a mistake stands by itself. What a user's own code raised is named with its
    type and the line that raised it.
    """
    typer.echo(f"error: {said(error)}", err=True)
    return typer.Exit(2)


def said(error: Exception) -> str:
    """An exception as one line; a KeyError puts quotation marks around its text, which go."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    frames = traceback.extract_tb(error.__traceback__)
    raised = frames[-1].filename if frames else ""
    ours = str(Path(__file__).parents[1])
    libraries = (ours, "<", str(Path(traceback.__file__).parent), sysconfig.get_path("purelib"))
    mine = [frame for frame in frames if not frame.filename.startswith(libraries)]
    expected = isinstance(error, ValueError | TypeError | KeyError | ImportError | OSError)
    if not mine or (expected and raised.startswith(libraries)):
        return str(text) if expected else f"{type(error).__name__}: {text}"
    where = mine[-1]
    place = f"{Path(where.filename).name}:{where.lineno}, in {where.name}"
    return f"{type(error).__name__}: {text} ({place})"
