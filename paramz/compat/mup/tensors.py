"""From a tensor to its row, for init functions and optimizers, which get nothing but tensors.

mup attaches a shape to every parameter, and loses it in deepcopy, pickle, to_empty and
load_state_dict(assign=True). Here the plan is on the model, keyed by name, as everywhere in paramz.
A model under such a plan holds a mark, which is copied with the model and adds every copy to the
list of models that are alive. A tensor is looked up among the parameters of these models, and its
row is kept in an index for as long as the tensor lives.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from paramz.anatomy.names import MUP_SHAPE
from paramz.compat.mup.infshape import InfDim, InfShape
from paramz.compat.mup.rows import row_of_shape
from paramz.plan.matching import clean_name
from paramz.plan.on_model import plan_of, remember_
from paramz.plan.plan import Plan
from paramz.plan.row import Row

_MARK = "_paramz_mup"
_MODELS: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_ROWS: MutableMapping[torch.Tensor, Row] = WeakTensorKeyDictionary()


class _Mark:
    """A weak reference to the model that it is an attribute of; a copy refers to the copy."""

    def __init__(self, model: nn.Module | None) -> None:
        self.model = weakref.ref(model) if model is not None else lambda: None
        if model is not None:
            _MODELS.add(model)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Mark:
        return _Mark(memo.get(id(self.model())))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Mark, (self.model(),))


def put_under_plan_(model: nn.Module, plan: Plan) -> None:
    """Let a model know its plan, and `row_of` find the rows of its tensors."""
    remember_(model, plan)
    vars(model)[_MARK] = _Mark(model)
    _index_rows(model)


def row_of(tensor: torch.Tensor) -> Row:
    """The row of a parameter of a model whose base shapes are set.

    An ``infshape`` that the user's own code has attached to the tensor comes first.

    Raises:
        ValueError: the tensor belongs to no such model; the message says what to call.
    """
    attached = getattr(tensor, MUP_SHAPE, None)
    if attached is not None:
        shape = InfShape(InfDim(dim.base_dim, dim.dim) for dim in attached)
        return row_of_shape("tensor", shape, [], main=attached.main_idx)
    row = _ROWS.get(tensor)
    if row is None:
        for model in list(_MODELS):
            _index_rows(model)
        row = _ROWS.get(tensor)
    if row is None:
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} belongs to no model whose base shapes are "
            "set. Call set_base_shapes(model, base) before this; if the tensor was made after that "
            "(weight_norm, an adapter, a view or .data of a parameter), call it again with "
            "rescale_params=False, on the final model and with its parameters themselves."
        )
    return row


def infshape_of(tensor: torch.Tensor) -> InfShape:
    """What mup keeps in ``p.infshape``: the axes of a parameter, and which of them grow.

    It is a copy: changing it has no effect on the parameter.

    Raises:
        ValueError: the tensor belongs to no model whose base shapes are set.

    >>> from paramz.compat.mup import set_base_shapes
    >>> model = set_base_shapes(nn.Linear(4, 32), nn.Linear(4, 8))
    >>> infshape_of(model.weight)
    InfShape([InfDim(8, 32), InfDim(None, 4)])
    """
    row = row_of(tensor)
    return InfShape(
        InfDim(base if axis in row.growing else None, size)
        for axis, (base, size) in enumerate(zip(row.base_shape, row.shape, strict=True))
    )


def _index_rows(model: nn.Module) -> None:
    """Add the tensors that the model has now to the index of rows."""
    plan = plan_of(model)
    if plan is not None:
        rows = {name: row for row in plan.rows for name in (row.name, *row.aliases)}
        for name, tensor in _named(model):
            row = rows.get(name) or rows.get(clean_name(name))
            if row is not None:
                _ROWS[tensor] = row


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    if "_modules" not in vars(model):  # it is being unpickled
        return iter(())
    return model.named_parameters()
