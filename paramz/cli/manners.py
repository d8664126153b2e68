"""How --help reads: text that flows with the terminal, and types in words."""

from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

# What typer calls the types of options and arguments.
_WORDS = {
    "<str>": "text",
    "<path>": "path",
    "<int>": "number",
    "<int range>": "number",
    "<float>": "number",
    "<float range>": "number",
    "<list[str]>": "text ...",
    "<list[float]>": "number ...",
    "<list[Path]>": "path ...",
}


class Verb(TyperCommand):
    """A command whose help flows, with options told in words."""

    def __init__(self, *args: Any, help: str | None = None, **more: Any) -> None:
        super().__init__(*args, help=flowing(help or ""), **more)

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters; of flags no type is shown, because they take no value."""
        return _in_words_(super().get_params(ctx), ctx)


class Program(TyperGroup):
    """All commands; its help flows, with options told in words."""

    def __init__(self, *args: Any, help: str | None = None, **more: Any) -> None:
        super().__init__(*args, help=flowing(help or ""), **more)

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters; of flags no type is shown, because they take no value."""
        return _in_words_(super().get_params(ctx), ctx)


def _in_words_(params: list[Any], ctx: Any) -> list[Any]:
    if not hasattr(TyperOption, "display_type"):
        return params  # an older typer, which writes TEXT and INTEGER
    for param in params:
        if isinstance(param, TyperOption) and param.metavar is None:
            shown = param.display_type(ctx)
            param.metavar = "" if param.is_flag else _WORDS.get(shown, shown)
        elif isinstance(param, TyperArgument):  # its metavar is its name
            shown = param.display_type(ctx)
            word = _WORDS.get(shown, shown)
            param.display_type_rich = lambda ctx, word=word: word  # type: ignore[misc, method-assign]
    return params


def flowing(text: str) -> str:
    r"""Paragraphs of one line each.

    >>> flowing("One\ntwo.\n\nThree.")
    'One two.\n\nThree.'
    """
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
