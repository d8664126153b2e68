"""OLMo-core: an ``OptimConfig`` with ``OptimGroupOverride(params=[wildcards], opts={...})``.

After src/olmo_core/optim/config.py, where a wildcard takes the names that no earlier one took and
must find at least one.
"""

from __future__ import annotations

from paramz.plan.export.entries import Contents
from paramz.plan.export.export import (
    Export,
    call,
    group_of,
    heading,
    known_optimizer,
    merged,
    no_start,
    start_patterns,
    starts_code,
    unknown_options,
)
from paramz.plan.export.patterns import globs

_CLASSES = {"adamw": "AdamWConfig", "lion": "LionConfig"}
# Of modules that wrap a block.
_WRAPPERS = r"(?:_\w+\.)*"


def olmo_core(contents: Contents) -> Export:
    """The settings of OLMo-core.

    Raises:
        ValueError: two optimizers, or one that OLMo-core does not have.
    """
    kind = known_optimizer("OLMo-core", contents, _CLASSES)
    settings = contents.settings[0]
    together = merged(contents.entries)
    found = globs([[entry.name for entry in group] for group in together])
    groups = tuple(group_of(p, each) for p, each in zip(found, together, strict=True))
    starts = start_patterns(contents.entries, _WRAPPERS)
    missing = [
        "init: its InitMethod has one std for all; call start_(model) behind model.init_weights()",
        *no_start(contents.entries),
        *unknown_options(contents, ["betas"]),
        *contents.unheld,
    ]
    defaults = {"lr": settings.lr}
    if "betas" in settings.options:
        defaults["betas"] = settings.options["betas"]
    lines = "".join(
        f"        OptimGroupOverride(\n            params={list(group.patterns)!r},\n"
        f"            opts={call('dict', group.values)},\n        ),\n"
        for group in groups
    )
    head = ", ".join(f"{key}={value!r}" for key, value in defaults.items())
    text = (
        heading("OLMo-core", contents, len(groups), missing)
        + "import re\n\nimport torch\n"
        + f"from olmo_core.optim import {kind}, OptimGroupOverride\n\n"
        + f"optim = {kind}(\n    {head},\n    group_overrides=[\n{lines}    ],\n)\n"
        + "\n"
        + starts_code(starts)
    )
    return Export("olmo-core", text, groups, starts, tuple(missing))
