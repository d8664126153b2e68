"""Experts and routers that are bare tensors of one module, as in MoEUT, sigma-MoE and SwitchHead.

Such a module says how many experts there are and holds its matrices as stacks (experts, in, out),
and its routers as (experts, in). Where each of its heads has experts of its own, as in SwitchHead's
attention, the first axis counts heads times experts: of what maps back to width, heads are summed
over, so the axis is one of fan_in there (`paramz.anatomy.axes`).
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from paramz.anatomy import names

_KINDS: tuple[tuple[Literal["router", "expert"], tuple[str, ...], int], ...] = (
    ("router", names.BARE_ROUTERS, 2),
    ("expert", names.BARE_EXPERTS, 3),
)


def count_bare(module: nn.Module) -> int | None:
    """How many experts a module's bare stacks hold (for each head); None if it has none.

    >>> import torch
    >>> layer = nn.Module()
    >>> layer.n_experts, layer.expert_sel = 4, nn.Parameter(torch.zeros(4, 8))
    >>> layer.keys = nn.Parameter(torch.zeros(4, 8, 2))
    >>> count_bare(layer)
    4
    """
    count = next((vars(module).get(n) for n in names.EXPERT_COUNTS if n in vars(module)), None)
    if type(count) is not int or count < 2:
        return None
    routed = any(name in names.BARE_ROUTERS for name in module._parameters)
    stacked = {name for name in names.BARE_EXPERTS if _holds(module, name, count, axes=3)}
    return count if routed and stacked else None


def bare_parts(
    module: nn.Module, experts: int
) -> dict[str, tuple[Literal["router", "expert"], int]]:
    """Name of a bare tensor -> router or expert, and how many of each expert there are (heads)."""
    found = {}
    for name, parameter in module._parameters.items():
        for kind, known, axes in _KINDS:
            held = parameter is not None and _holds(module, name, experts, axes=axes)
            if parameter is not None and held and name in known:
                found[name] = kind, parameter.shape[0] // experts
    return found


def bare_end(module: nn.Module) -> str | None:
    """The bare stack that a module's output is linear in; None if it is no such module."""
    if count_bare(module) is None:
        return None
    return next((name for name in names.BARE_LAST_MAPS if name in module._parameters), None)


def bare_last(module: nn.Module, name: str) -> bool:
    """Whether a parameter is a module's last map by its name.

    Beside layers a matrix may be anything: w2 of RWKV-7's attention makes its decay.
    """
    name = name.removesuffix("_bias")
    own = module._parameters.get(name)
    if own is None or not names.BRANCH_ENDS.search(name):
        return False
    return own.ndim > 2 or all(p.ndim < 2 for m in module.children() for p in m.parameters())


def _holds(module: nn.Module, name: str, experts: int, *, axes: int) -> bool:
    parameter = module._parameters.get(name)
    return parameter is not None and parameter.ndim == axes and parameter.shape[0] % experts == 0
