"""torchtitan: ``OptimizersContainer.Config`` with a ``ParamGroupConfig`` per group.

After torchtitan/components/optimizer.py of 2026, which takes the first pattern that ``re.search``
finds in a name, and refuses patterns that find none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paramz.plan.export.entries import Contents
from paramz.plan.export.export import (
    Export,
    by_pattern,
    call,
    heading,
    no_start,
    start_patterns,
    starts_code,
    written,
)

_CLASSES = {"adamw": "AdamW", "adam": "Adam", "muon": "Muon"}
# Activation checkpointing and compilation put a module around a block.
_WRAPPERS = r"(?:_\w+\.)*"


def torchtitan(contents: Contents) -> Export:
    """The settings of torchtitan.

    Raises:
        ValueError: an optimizer that torchtitan does not have.
    """
    for settings in contents.settings:
        if settings.family.name not in _CLASSES:
            raise ValueError(
                f"torchtitan has {', '.join(_CLASSES.values())} and no {settings.family.name}"
            )
    groups = by_pattern(contents.entries, _WRAPPERS)
    starts = start_patterns(contents.entries, _WRAPPERS)
    missing = [
        "init: call start_(model) behind model.init_weights(...)",
        "with pipeline parallelism: every part must hold a tensor of every pattern, or torchtitan "
        "refuses the pattern",
        *no_start(contents.entries),
        *contents.unheld,
    ]
    options = {each.family.name: _options(each.options) for each in contents.settings}
    lines = ""
    for group in groups:
        values = {**group.values, **options[group.optimizer]}
        pattern = written(f"^(?:{group.patterns[0]})$")
        lines += (
            f"        ParamGroupConfig(\n            pattern={pattern},\n"
            f"            optimizer_name={_CLASSES[group.optimizer]!r},\n"
            f"            optimizer_kwargs={call('dict', values)},\n        ),\n"
        )
    text = (
        heading("torchtitan", contents, len(groups), missing)
        + "import re\n\nimport torch\n"
        + "from torchtitan.components.optimizer import OptimizersContainer, ParamGroupConfig\n\n"
        + f"optimizer = OptimizersContainer.Config(\n    param_groups=[\n{lines}    ]\n)\n"
        + "\n"
        + starts_code(starts)
    )
    return Export("torchtitan", text, groups, starts, tuple(missing))


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that torchtitan does not set itself, and none of another library's Muon."""
    taken = ("fused", "foreach", "use_muon", "use_adjusted_lr")
    return {key: value for key, value in options.items() if key not in taken}
