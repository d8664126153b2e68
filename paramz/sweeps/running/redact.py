"""Keeping secrets of the environment out of results."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus, unquote

_NAMES = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|PASSCODE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE|WEBHOOK"
    r"|(?:^|_)(?:KEY|PASS|PWD|PAT|PIN|AUTH|AUTHORIZATION|BEARER|COOKIES?|DSN|SALT)(?:_|$)"
    r"|(?:KEY|PASS|PWD|AUTH)$",
    re.I,
)
# Names that contain such a word and hold no secret.
_PLAIN = re.compile(r"^(?:SSH_AUTH_SOCK|XAUTHORITY|PWD|OLDPWD|.*_PATH|.*_FILE|.*_DIR)$")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://([^/\s:@]*):([^/\s]+)@", re.I)
# A scheme of authorization and what follows it, in a header or where one is printed.
_HEADER = re.compile(
    r"((?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?|\b(?:bearer|basic)\s+(?=\S*[\d=]))"
    r"([\w.~+/=-]{6,})",
    re.I,
)
_SHORTEST = 6  # characters; the value of a shorter variable may occur in ordinary text


def redact(text: str) -> str:
    """Replace secrets of the environment, and whatever looks like one by its place.

    These are the values of variables whose names suggest a secret, passwords inside the URLs of
    any variable, and in the text itself passwords inside URLs and the content of authorization
    headers. Values are also found as ``repr`` or JSON writes them, and encoded for a URL.

    >>> os.environ["LAB_TOKEN"] = "hunter2hunter2"
    >>> redact("GET https://hunter2hunter2@host failed")
    'GET https://[LAB_TOKEN]@host failed'
    >>> del os.environ["LAB_TOKEN"]
    >>> redact("postgres://me:pass word@host: refused")
    'postgres://me:pass word@host: refused'
    >>> redact("postgres://me:hunter@host: refused; Authorization: Bearer abcdefgh")
    'postgres://me:[password]@host: refused; Authorization: Bearer [credentials]'
    """
    forms = {form: name for name, value in _secrets(os.environ) for form in _forms(value)}
    for form in sorted(forms, key=len, reverse=True):  # the longest first: one may contain another
        text = text.replace(form, f"[{forms[form]}]")
    text = _URL.sub(_without_password, text)
    return _HEADER.sub(r"\1[credentials]", text)


def _secrets(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and value of what is secret in an environment."""
    for name, value in environment.items():
        if len(value) >= _SHORTEST and _NAMES.search(name) and not _PLAIN.match(name):
            yield name, value
            if header := _HEADER.search(value):
                yield name, header.group(2)
        for _, password in _URL.findall(value):
            if len(password) >= _SHORTEST:
                yield name, password


def _forms(value: str) -> set[str]:
    """The ways in which a value may be written."""
    plain = {value, value.strip(), unquote(value)}
    written = {
        form for v in plain for form in (v, repr(v)[1:-1], json.dumps(v)[1:-1], ascii(v)[1:-1])
    }
    encoded = {form for v in plain for form in (quote(v), quote(v, safe=""), quote_plus(v))}
    bytes_ = {repr(v.encode())[2:-1] for v in plain}
    return {form for form in written | encoded | bytes_ if len(form) >= _SHORTEST}


def _without_password(match: re.Match[str]) -> str:
    whole, password = match.group(0), match.group(2)
    if password.startswith("[") and password.endswith("]"):
        return whole  # it has the name of its variable already
    return f"{whole[: match.start(2) - match.start(0)]}[password]@"
