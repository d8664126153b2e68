"""The block that a name lies in, of a model that may be deeper than its base."""

from __future__ import annotations

from torch import nn

from paramz.anatomy import names


def resized(model: nn.Module, base: nn.Module, path: str) -> str | None:
    """The outermost of the numbered modules around a path whose list has another length.

    >>> stack = lambda depth: nn.Sequential(*(nn.Sequential(nn.Linear(2, 2)) for _ in range(depth)))
    >>> resized(stack(3), stack(2), "1.0.weight")
    '1'
    """
    parts = _around_experts(path)
    for i, part in enumerate(parts):
        if part.isdigit() and _length(model, parts[:i]) not in (None, _length(base, parts[:i])):
            return ".".join(parts[: i + 1])
    return None


def _length(model: nn.Module, parts: list[str]) -> int | None:
    try:
        return len(model.get_submodule(".".join(parts))._modules)
    except AttributeError:
        return None


def block_of(model: nn.Module, base: nn.Module, end: str) -> str:
    """The block of an end: of a list that is longer or shorter, else the innermost numbered one.

    >>> block = nn.ModuleDict({"mixer": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))})
    >>> block_of(block, block, "mixer.1")
    'mixer'
    """
    outermost = resized(model, base, end)
    if outermost is not None:
        return outermost
    parts = _around_experts(end)
    inner = len(parts) - (len(parts) == len(end.split(".")))  # the end itself is no block
    numbers = [".".join(parts[: i + 1]) for i, part in enumerate(parts[:inner]) if part.isdigit()]
    return next((p for p in reversed(numbers)), ".".join(parts[:inner]) or end)


def _around_experts(path: str) -> list[str]:
    """The names of a path up to a list of experts, which are beside each other and no depth."""
    parts = path.split(".")
    many = names.EXPERT_CONTAINER
    return parts[: parts.index(many)] if many in parts else parts
