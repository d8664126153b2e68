"""Griffe extension: doctests at the end of a docstring become its Examples section."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Put ``Examples:`` before the first doctest of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring is None:
            return
        found = re.search(r"(?m)^>>> ", obj.docstring.value)
        if found:
            text = obj.docstring.value
            code = "".join(f"    {line}\n" for line in text[found.start() :].splitlines())
            obj.docstring.value = f"{text[: found.start()]}\nExamples:\n{code}"
