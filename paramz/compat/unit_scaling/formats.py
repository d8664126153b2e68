"""unit_scaling.formats is left out; every name says what to use instead."""

from __future__ import annotations

from typing import NoReturn

from paramz.compat.absent import refuse


def __getattr__(name: str) -> NoReturn:
    refuse(__name__, name)
