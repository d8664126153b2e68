"""unit_scaling.formats is left out; every name says what to use instead."""

from typing import NoReturn

from paramz.compat.unit_scaling._absent import refuse


def __getattr__(name: str) -> NoReturn:
    refuse(__name__, name)
