"""The tensors of a model: their shapes, their names, and the modules that use them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from paramz.anatomy import names
from paramz.anatomy.axes import Axes, axes_of, convolved, is_kernel
from paramz.anatomy.paths import join, unnumbered
from paramz.anatomy.sound import require_made

# Layers whose input (or, for an embedding, output) can be multiplied in place of the weight.
_TAKE_FACTORS = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding)


class Owned(NamedTuple):
    """A parameter under one of its names."""

    path: str
    module: nn.Module
    local: str
    parameter: nn.Parameter

    @property
    def name(self) -> str:
        """Its name in the model."""
        return join(self.path, self.local)


def module_at(model: nn.Module, path: str) -> nn.Module:
    """The module at a path, also where its class has a method of that name, as of ``parameters``.

    torch's get_submodule finds the method then, and says that it is no module.

    Raises:
        KeyError: there is none.

    >>> net = nn.Module()
    >>> net.type = nn.Linear(2, 3)
    >>> module_at(net, "type") is net._modules["type"]
    True
    """
    for name in path.split(".") if path else ():
        found = model._modules[name]
        if found is None:
            raise KeyError(path)
        model = found
    return model


def owned_parameters(model: nn.Module) -> Iterator[Owned]:
    """Every parameter of a model under every name that it has, in the order of the modules.

    >>> [each.name for each in owned_parameters(nn.Sequential(nn.Linear(2, 3)))]
    ['0.weight', '0.bias']
    """
    for path, module in model.named_modules(remove_duplicate=False):
        for local, parameter in module._parameters.items():
            if parameter is not None:
                yield Owned(path, module, local, parameter)


def owners_of_parameters(model: nn.Module) -> list[list[Owned]]:
    """For every parameter of a model all of its names, the first one first; tied ones once.

    >>> tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> tied[1].weight = tied[0].weight
    >>> [[each.name for each in owners] for owners in owners_of_parameters(tied)]
    [['0.weight', '1.weight']]
    """
    by_id: dict[int, list[Owned]] = {}
    for each in owned_parameters(model):
        by_id.setdefault(id(each.parameter), []).append(each)
    return list(by_id.values())


@dataclass(frozen=True)
class Use:
    """One appearance of a tensor in a module.

    Attributes:
        module: the module's path.
        local: the tensor's name in it.
        kind: the module's class.
        axes: which axes of the tensor are its fan_in and fan_out there; None if the class does not
            tell.
        owner: equal for two uses by the same module under two paths.
        within: the modules that its path leads through; equal for two paths through the same ones,
            empty for the one use of a tensor.
        takes_factor: a factor on the module's input (an embedding's output) can stand for one on
            the tensor.
        transposes: whether a convolution with this kernel is a transposed one; None for no kernel.
        table: the module looks rows of it up, each by itself.
    """

    module: str
    local: str
    kind: str
    axes: Axes | None
    owner: int = 0
    within: tuple[int, ...] = ()
    takes_factor: bool = False
    transposes: bool | None = None
    table: bool = False

    def axes_where(self, growing: Collection[int]) -> Axes | None:
        """The axes if these ones grow with width."""
        if self.table and self.axes is not None and {*self.axes.fan_in} & {*growing}:
            return Axes(fan_out=self.axes.fan_out)  # no sum runs over more rows
        if self.axes is None or self.transposes is None:
            return self.axes
        return convolved(self.axes, growing, transposed=self.transposes)


@dataclass(frozen=True)
class ModelTensor:
    """A parameter with all its names and uses, the first one first.

    Attributes:
        shape: its shape.
        names: its names in the model.
        uses: where it is used.
        integers: it holds integers, as quantised weights do, which cannot be trained.
        frozen: no gradient is asked for.
    """

    shape: tuple[int, ...]
    names: tuple[str, ...]
    uses: tuple[Use, ...]
    integers: bool = False
    frozen: bool = False

    @property
    def layers(self) -> int:
        """How many layers have it: modules, and one that several blocks have counts in each.

        A block that stands in a model several times is one, and other names for a module, as of one
        that an attribute holds as well, add none.
        """
        if len(self.uses) == 1:
            return 1
        found: dict[int, dict[str, set[tuple[int, ...]]]] = {}
        for use in self.uses:
            named = found.setdefault(use.owner, {})
            named.setdefault(unnumbered(use.module), set()).add(use.within)
        return sum(max(map(len, named.values())) for named in found.values())


def read_tensors(model: nn.Module) -> dict[str, ModelTensor]:
    """The parameters of a model by their first name, tied ones once.

    Raises:
        ValueError: a lazy module has not seen a batch.

    >>> list(read_tensors(nn.Linear(2, 3)))
    ['weight', 'bias']
    """
    require_made(model)
    tensors = owners_of_parameters(model)
    modules = dict.fromkeys(id(each.module) for found in tensors for each in found)
    numbers = {module: number for number, module in enumerate(modules)}
    paths = {path: id(m) for path, m in model.named_modules(remove_duplicate=False)}
    return {found[0].name: _tensor(model, found, numbers, paths) for found in tensors}


def read_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's parameters by their first name, tied ones once.

    >>> read_shapes(nn.Linear(2, 3))
    {'weight': (3, 2), 'bias': (3,)}
    """
    return {found[0].name: tuple(found[0].parameter.shape) for found in owners_of_parameters(model)}


def _tensor(
    model: nn.Module, found: list[Owned], numbers: Mapping[int, int], paths: Mapping[str, int]
) -> ModelTensor:
    shape = tuple(found[0].parameter.shape)
    read = [_reader(model, each) for each in found]
    uses = (
        Use(
            module=each.path,
            local=each.local,
            kind=type(module).__name__,
            axes=axes_of(module, local, shape),
            owner=numbers[id(each.module)],
            within=_within(each.path, paths) if len(found) > 1 else (),
            takes_factor=each.local == "weight" and isinstance(each.module, _TAKE_FACTORS),
            transposes=_transposes(module, local, shape),
            table=isinstance(module, nn.Embedding | nn.EmbeddingBag) and local == "weight",
        )
        for each, (module, local) in zip(found, read, strict=True)
    )
    integers = not is_trainable_kind(found[0].parameter)
    frozen = not found[0].parameter.requires_grad
    return ModelTensor(shape, tuple(each.name for each in found), tuple(uses), integers, frozen)


def _transposes(module: Any, local: str, shape: tuple[int, ...]) -> bool | None:
    return module.transposed if is_kernel(module, local, shape) else None


def _reader(model: nn.Module, each: Owned) -> tuple[nn.Module, str]:
    """The module that uses a parameter, and the parameter's name there."""
    path, _, held = each.path.rpartition(".")
    if held != names.TOKEN_ROWS:
        return each.module, each.local
    layer: Any = model.get_submodule(path)  # they are rows of its weight
    while hasattr(layer, names.WRAPPED_LAYER):
        layer = getattr(layer, names.WRAPPED_LAYER)
    return layer, "weight"


def _within(path: str, paths: Mapping[str, int]) -> tuple[int, ...]:
    parts = path.split(".")
    return tuple(paths[".".join(parts[:end])] for end in range(1, len(parts) + 1))


def is_trainable_kind(parameter: torch.Tensor) -> bool:
    """Whether a tensor's numbers can be trained: quantised weights are integers and cannot.

    >>> is_trainable_kind(torch.zeros(2, dtype=torch.uint8))
    False
    """
    return parameter.is_floating_point() or parameter.is_complex()


OTHER_NUMBERS = (
    "A Hugging Face base with fewer blocks or experts: base=paramz.hf.config_factory(model, "
    "depth=2), or experts=4, with base_width=256."
)
ONE_WIDTH = (
    "Probes must differ in width alone: give them the same depth (the base's, and the target's if "
    "the scheme has no rule for depth), the same tying and the same optional layers. "
    "base=lambda width: Net(width, depth=2) with base_width=... builds both alike. "
    f"{OTHER_NUMBERS} Blocks whose number is to differ are numbers of an nn.ModuleList, or names "
    "such as layer0, and the base has one of every kind."
)


def require_same_names(
    one: Iterable[str], other: Iterable[str], who: tuple[str, str], fix: str = ONE_WIDTH
) -> None:
    """Refuse models whose parameters have different names.

    Args:
        one: names of the first model.
        other: names of the second.
        who: what to call the two.
        fix: what would make them equal.

    Raises:
        ValueError: names differ; the message lists them.
    """
    first, second = dict.fromkeys(one), dict.fromkeys(other)
    only_first = [name for name in first if name not in second]
    only_second = [name for name in second if name not in first]
    if only_first or only_second:
        raise ValueError(
            f"{who[0]} and {who[1]} have different parameters.\n"
            f"  only in {who[0]}: {listed(only_first)}\n"
            f"  only in {who[1]}: {listed(only_second)}\n"
            f"{fix}"
        )


def listed(names: list[str], most: int = 6) -> str:
    """The first few of some names, for a message.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "nothing") + more


def is_line(tensor: torch.Tensor) -> bool:
    """Whether a tensor has at most one axis, but for those of length one.

    >>> is_line(torch.zeros(8, 1, 1)), is_line(torch.zeros(8, 2))
    (True, False)
    """
    return sum(length > 1 for length in tensor.shape) < 2


def chooses(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds indices or a mask.

    >>> chooses(torch.zeros(2, dtype=torch.bool)), chooses(torch.zeros(2))
    (True, False)
    """
    return not (tensor.is_floating_point() or tensor.is_complex())
