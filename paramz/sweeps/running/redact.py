"""Keeping secrets of the environment out of results."""

from __future__ import annotations

import os
import re

_NAMES = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE|_KEY$", re.I)
_SHORTEST = 6  # characters; the value of a shorter variable may occur in ordinary text


def redact(text: str) -> str:
    """Replace the values of environment variables whose names suggest a secret.

    >>> os.environ["LAB_TOKEN"] = "hunter2hunter2"
    >>> redact("GET https://hunter2hunter2@host failed")
    'GET https://[LAB_TOKEN]@host failed'
    >>> del os.environ["LAB_TOKEN"]
    """
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _NAMES.search(name):
            text = text.replace(value, f"[{name}]")
    return text
