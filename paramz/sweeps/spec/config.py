"""The config of a trial, plain JSON: its key, and its values under dotted names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

Config = dict[str, Any]

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
KEY_LENGTH = 16  # hex digits: 64 bits, a collision among 1e5 trials has probability 3e-10
SEED = "seed"  # the config leaf in which repetitions of a trial differ


def canonical(value: Any) -> Any:
    """The same value in the one form that is hashed: 1.0 becomes 1, tuples become lists.

    Raises:
        ValueError: the value contains NaN, an infinity or something that JSON cannot express.

    >>> canonical({"lr": 1.0, "betas": (0.9, 0.95)})
    {'lr': 1, 'betas': [0.9, 0.95]}
    """
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"a config holds finite numbers only, got {value}")
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {str(k): canonical(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in value]
    raise ValueError(f"a config holds JSON values only, got {type(value).__name__}: {value!r}")


def config_key(config: Mapping[str, Any]) -> str:
    """The key of a trial: the first digits of the SHA-256 hash of its config's canonical JSON.

    Raises:
        ValueError: the config is not plain JSON.

    >>> config_key({"width": 64, "lr": 1}) == config_key({"lr": 1.0, "width": 64})
    True
    """
    return hashlib.sha256(encode(config).encode()).hexdigest()[:KEY_LENGTH]


def encode(value: Any) -> str:
    """The canonical JSON of a value: equal for equal values.

    Raises:
        ValueError: the value is not plain JSON.

    >>> encode([1.0, {"b": 2, "a": 1}])
    '[1,{"a":1,"b":2}]'
    """
    return _encode(canonical(value))


def paths(config: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where the leaves of a nested config are: the keys that lead to each of them.

    >>> list(paths({"width": 64, "adam": {"lr": 0.1}}))
    [('width',), ('adam', 'lr')]
    """
    for name, value in config.items():
        if isinstance(value, dict) and value:
            yield from paths(value, (*above, name))
        else:
            yield (*above, name)


def leaves(config: Mapping[str, Any], prefix: str = "") -> Config:
    """The leaves of a nested config under dotted names.

    >>> leaves({"width": 64, "adam": {"lr": 0.1}})
    {'width': 64, 'adam.lr': 0.1}
    """
    flat: Config = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            flat |= leaves(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> Config:
    """A copy of a config in which some leaves, given by their dotted names, are replaced or added.

    >>> merged({"adam": {"lr": 0.1, "eps": 1e-8}}, {"adam.lr": 0.2, "width": 64})
    {'adam': {'lr': 0.2, 'eps': 1e-08}, 'width': 64}
    """
    new = dict(config)
    for name, value in changes.items():
        head, _, rest = name.partition(".")
        if rest:
            inner = new.get(head, {})
            new[head] = merged(inner if isinstance(inner, Mapping) else {}, {rest: value})
        else:
            new[head] = value
    return new
