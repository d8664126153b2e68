"""Parameters that say what they are to u-muP: a weight, a bias, a norm's or the output's.

`Parameter` is a subclass of ``nn.Parameter`` with two fields, so nothing is attached to objects of
torch's own class, and copies, pickles and checkpoints of whole models keep the fields. Torch itself
makes new plain parameters in two places: when a module changes its kind of device (``to("meta")``,
``to_empty``) and in ``load_state_dict(assign=True)``. The layers and stacks of this package put the
fields back there (`KeepsTypes`). In a user's own module outside of them the fields are lost, and
the optimizers refuse such a parameter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeGuard, get_args

import torch
from torch import Tensor, nn

from paramz.anatomy.names import UNIT_DEPTH, UNIT_TYPE

MupType = Literal["weight", "bias", "norm", "output"]


class ParameterData(Protocol):
    """What learning-rate rules read of a parameter."""

    mup_type: MupType
    mup_scaling_depth: int | None
    shape: torch.Size


class Parameter(nn.Parameter):
    """A parameter with a type and a depth.

    Args:
        data: initial values.
        mup_type: ``weight``, ``bias``, ``norm`` or ``output``.
        mup_scaling_depth: number of layers of the stack that it is in; None outside of one.

    Raises:
        ValueError: there is no such type.
        TypeError: data is not an ordinary tensor: a model is sharded only after it was built.

    >>> p = Parameter(torch.zeros(10), mup_type="weight")
    >>> p.mup_type, p.mup_scaling_depth
    ('weight', None)
    """

    mup_type: MupType
    mup_scaling_depth: int | None

    def __new__(
        cls, data: Tensor, mup_type: MupType, mup_scaling_depth: int | None = None
    ) -> Parameter:
        """The fields are set here, because torch makes a tensor in __new__."""
        if type(data) is not Tensor and not isinstance(data, nn.Parameter):
            raise TypeError(f"Parameter takes a tensor, not a {type(data).__name__}")
        return _typed(nn.Parameter(data.detach()), mup_type, mup_scaling_depth)

    def __init__(
        self, data: Tensor, mup_type: MupType, mup_scaling_depth: int | None = None
    ) -> None:
        """__new__ has done everything."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        if id(self) not in memo:
            data = self.data.clone(memory_format=torch.preserve_format)
            memo[id(self)] = _rebuild(data, self.requires_grad, *_fields(self))
        copied: Parameter = memo[id(self)]
        return copied

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return _rebuild, (self.data, self.requires_grad, *_fields(self))


def has_parameter_data(parameter: Any) -> TypeGuard[ParameterData]:
    """Whether a parameter has a type and a depth.

    >>> has_parameter_data(nn.Parameter(torch.zeros(1)))
    False
    """
    depth = getattr(parameter, UNIT_DEPTH, "missing")
    known = getattr(parameter, UNIT_TYPE, None) in get_args(MupType)
    return known and (depth is None or isinstance(depth, int))


class KeepsTypes(nn.Module):
    """A module that keeps its parameters' types where torch makes new parameters."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        with _keeping_types(self):
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        with _keeping_types(self):
            super()._load_from_state_dict(*args, **kwargs)


@contextmanager
def _keeping_types(root: nn.Module) -> Iterator[None]:
    found = [
        (module, name, _fields(parameter))
        for module in root.modules()
        for name, parameter in module._parameters.items()
        if isinstance(parameter, Parameter)
    ]
    yield
    for module, name, fields in found:
        parameter = module._parameters[name]
        if type(parameter) is nn.Parameter:
            _typed(parameter, *fields)


def _fields(parameter: Parameter) -> tuple[MupType, int | None]:
    return parameter.mup_type, parameter.mup_scaling_depth


def _typed(parameter: nn.Parameter, mup_type: MupType, depth: int | None) -> Parameter:
    """Make a `Parameter` of the same object, so that an optimizer that has it keeps having it."""
    if mup_type not in get_args(MupType):
        known = ", ".join(get_args(MupType))
        raise ValueError(f"mup_type={mup_type!r} is no type of parameter; there are {known}")
    parameter.__class__ = Parameter
    assert isinstance(parameter, Parameter)
    parameter.mup_type, parameter.mup_scaling_depth = mup_type, depth
    return parameter


def _rebuild(data: Tensor, requires_grad: bool, mup_type: MupType, depth: int | None) -> Parameter:
    return _typed(nn.Parameter(data, requires_grad), mup_type, depth)
