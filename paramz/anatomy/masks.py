"""Static masks on weights: which there are, how dense they are, and the model without them.

torch.nn.utils.prune keeps a weight as ``weight_orig`` and its mask as the buffer ``weight_mask``,
and multiplies them in a hook. For planning the weight gets its own name back, and its hook is off.
Masks that a model's own code applies cannot be seen, so the user names their densities.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.nn.utils.prune import BasePruningMethod

from paramz.anatomy.axes import axes_of
from paramz.anatomy.paths import join
from paramz.anatomy.tensors import listed, owned_parameters

ORIGINAL = "_orig"
"""What torch.nn.utils.prune puts behind the name of a weight that has a mask."""

# Densities that differ by less are one: a mask keeps a whole number of entries.
CLOSE = 0.01


@dataclass(frozen=True)
class Masked:
    """One masked tensor of a module.

    Attributes:
        path, module: whose it is.
        local: its name without a mask.
        key: of the hook that computes it.
    """

    path: str
    module: nn.Module
    local: str
    key: int

    @property
    def name(self) -> str:
        """Its name in the model, without a mask."""
        return join(self.path, self.local)

    @property
    def mask(self) -> torch.Tensor:
        """Ones where an entry stays."""
        return self.module.get_buffer(f"{self.local}_mask")

    @property
    def hook(self) -> Any:
        """Of torch.nn.utils.prune; it may hold several."""
        return self.module._forward_pre_hooks[self.key]


def find_masked(model: nn.Module) -> list[Masked]:
    """The tensors of a model that torch.nn.utils.prune has put a mask on.

    >>> layer = torch.nn.utils.prune.random_unstructured(nn.Linear(4, 4), "weight", 0.5)
    >>> [(each.name, float(each.mask.mean())) for each in find_masked(layer)]
    [('weight', 0.5)]
    """
    return [
        Masked(path, module, str(hook._tensor_name), key)
        for path, module in model.named_modules()
        for key, hook in module._forward_pre_hooks.items()
        if isinstance(hook, BasePruningMethod)
    ]


def density_of(masked: Masked) -> float:
    """The share of entries that a mask leaves.

    Raises:
        ValueError: it is on the meta device, has other values than 0 and 1, or leaves an output
            without any input; the message says what to do instead.
    """
    mask, name = masked.mask, masked.name
    if mask.is_meta:
        raise ValueError(
            f"the mask of {name} is on the meta device, where it has no values: say how dense it "
            f"is, densities={{{f'^{re.escape(name)}$'!r}: ...}}"
        )
    ones = mask == 1
    if not bool((ones | (mask == 0)).all()):
        raise ValueError(
            f"the mask of {name} has other values than 0 and 1, which multiply the weight; only "
            "where it is zero is a question of density. Put the factors into the weight"
        )
    if ones.all():
        return 1.0
    _require_matrix(masked)
    axes = axes_of(masked.module, masked.local, tuple(mask.shape))
    outputs = (0,) if axes is None else axes.fan_out
    rest = [axis for axis in range(mask.dim()) if axis not in outputs]
    alive = ones.sum(dim=rest) > 0 if rest else ones
    empty = int((~alive).sum())
    if empty:
        count, inputs = tuple(mask.shape), mask.numel() // alive.numel()
        raise ValueError(
            f"the mask of {name} {count} leaves {empty} of {alive.numel()} outputs without any "
            "input, so they are constants and no density describes them. Keep as many inputs for "
            f"every output: mask = torch.rand({alive.numel()}, {inputs}).argsort(1) < k, with "
            f"torch.nn.utils.prune.custom_from_mask(module, {masked.local!r}, mask); or, if whole "
            "outputs are to go, build the narrower layer"
        )
    return float(ones.double().mean())


def _require_matrix(masked: Masked) -> None:
    if isinstance(masked.module, nn.Embedding | nn.EmbeddingBag):
        raise ValueError(
            f"{masked.name} is an embedding: a mask takes coordinates from its vectors and no "
            "terms from a sum, so the rules over density do not hold. Leave it dense"
        )
    if masked.mask.dim() < 2:
        raise ValueError(
            f"{masked.name} {tuple(masked.mask.shape)} is applied entry by entry, so there is no "
            "rule for a mask on it. Leave it dense"
        )


def kept_sizes(masked: Sequence[Masked]) -> dict[str, float]:
    """Name without a mask -> rms of what it leaves over that of all; 1 within four errors of it."""
    found = {}
    for each in masked:
        weight = each.module.get_parameter(f"{each.local}{ORIGINAL}").detach()
        if weight.is_meta or each.mask.is_meta:
            continue
        kept, rms = weight[each.mask == 1], float(weight.abs().square().mean().sqrt())
        if rms > 0:
            ratio = float(kept.abs().square().mean().sqrt()) / rms
            chance = 4 * (0.5 / kept.numel()) ** 0.5
            found[each.name] = ratio if abs(ratio - 1) > chance else 1.0
    return found


@dataclass
class Densities:
    """How dense the tensors of a model and of its base are.

    Attributes:
        model: name without a mask -> density, of the tensors that are sparse or named.
        base: the same of the base; what is not there is dense.
        names: name without a mask -> name with one.
        sizes: name without a mask -> rms of the entries that it leaves over that of all.
        base_sizes: the same of the base.
        probes: the base and the wider probe to plan with, as for `paramz.parametrize_`.
    """

    model: Mapping[str, float] = field(default_factory=dict)
    base: Mapping[str, float] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, float] = field(default_factory=dict)
    base_sizes: Mapping[str, float] = field(default_factory=dict)
    probes: tuple[Any, Any] = (None, None)


@contextmanager
def without_masks(
    model: nn.Module,
    base: Any = None,
    wider: Any = None,
    named: Mapping[str, float] | None = None,
) -> Iterator[Densities]:
    """Take the masks off a model, and off those that go with it, for a while.

    Args:
        model: the model.
        base: as for `paramz.parametrize_`.
        wider: as for `paramz.parametrize_`.
        named: ``{regex: density}`` of masks that cannot be measured; the first match wins.

    Raises:
        ValueError: as for `density_of`; a pattern matches nothing, or a density is none or not that
            of the mask.
    """
    masked = find_masked(model)
    if not masked and not named and not callable(base) and not isinstance(base, nn.Module):
        yield Densities(probes=(base, wider))
        return
    said = _named(model, masked, named or {})
    own = {each.name: said.get(each.name) or density_of(each) for each in masked}
    renamed = {m.name: f"{m.name}{ORIGINAL}" for m in masked}
    found = Densities({**said, **own}, names=renamed, sizes=kept_sizes(masked))
    others = [m for m in (base, wider) if isinstance(m, nn.Module)]
    if isinstance(base, nn.Module):
        found.base = {each.name: density_of(each) for each in find_masked(base)}
        found.base_sizes = kept_sizes(find_masked(base))
    elif callable(base):
        base = _unmasking(base, found)
    found.probes = (base, wider)
    lent = [(each, _take_off_(each)) for m in (model, *others) for each in find_masked(m)]
    try:
        yield found
    finally:
        for each, taken in reversed(lent):
            _put_on_(each, *taken)


def _unmasking(base: Callable[..., nn.Module], found: Densities) -> Callable[..., nn.Module]:
    """A factory of the same models without their masks; the first that it builds is the base."""

    @wraps(base)
    def build(*width: int) -> nn.Module:
        made = base(*width)
        masked = find_masked(made) if isinstance(made, nn.Module) else []
        if any(each.mask.is_meta for each in masked):
            raise NotImplementedError("densities are counted, which needs values")
        if not found.base:
            found.base = {each.name: density_of(each) for each in masked}
            found.base_sizes = kept_sizes(masked)
        for each in masked:
            _take_off_(each)
        return made

    return build


def _named(model: nn.Module, masked: list[Masked], named: Mapping[str, float]) -> dict[str, float]:
    """Name without a mask -> density, of the tensors that the user names."""
    by_name = {f"{each.name}{ORIGINAL}": each for each in masked}
    owned = {each.name: each for each in owned_parameters(model)}
    plain = {by_name[name].name if name in by_name else name: each for name, each in owned.items()}
    chosen: dict[str, float] = {}
    for pattern, density in named.items():
        if not 0 < density <= 1:
            raise ValueError(
                f"densities[{pattern!r}] = {density!r}: a density is the share of entries that a "
                "mask leaves, above 0 and up to 1"
            )
        found = [name for name in plain if re.search(pattern, name)]
        if not found:
            raise ValueError(
                f"densities[{pattern!r}] matches no parameter; there are {listed(list(plain), 12)}"
            )
        for name in found:
            chosen.setdefault(name, float(density))
    for name in chosen:
        held = plain[name]
        if held.parameter.dim() < 2 or isinstance(held.module, nn.Embedding | nn.EmbeddingBag):
            raise ValueError(
                f"densities: {name} {tuple(held.parameter.shape)} of {type(held.module).__name__} "
                "is no matrix that sums over its inputs, so there is no rule for a mask on it. "
                "Leave it dense, and the pattern narrower"
            )
    for each in masked:
        said = chosen.get(each.name)
        if said is not None and not each.mask.is_meta and not close(said, density_of(each)):
            raise ValueError(
                f"densities: {each.name} is said to have {said:.4g}, and its mask leaves "
                f"{density_of(each):.4g} of the entries. Leave it out: masks are measured"
            )
    return chosen


def close(one: float, other: float) -> bool:
    """Whether two densities are one, but for the rounding to whole entries.

    >>> close(0.25, 0.2505), close(0.25, 0.26)
    (True, False)
    """
    return abs(one / other - 1) < CLOSE


def _take_off_(masked: Masked) -> tuple[dict[str, Any], Any]:
    """Give a weight its own name back; what is returned puts the mask on again."""
    module, local, hook = masked.module, masked.local, masked.hook
    before = dict(module._parameters)
    module._parameters.clear()
    for name, parameter in before.items():
        module._parameters[local if name == f"{local}{ORIGINAL}" else name] = parameter
    vars(module).pop(local, None)
    del module._forward_pre_hooks[masked.key]
    return before, hook


def _put_on_(masked: Masked, before: dict[str, Any], hook: Any) -> None:
    module = masked.module
    module._parameters.clear()
    module._parameters.update(before)
    module._forward_pre_hooks[masked.key] = hook
    with torch.no_grad():
        setattr(module, masked.local, hook.apply_mask(module))
