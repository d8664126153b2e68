"""Base shapes: which axes grow, read from two models or a file, and set on a model as its plan."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import yaml
from torch import nn

from paramz.anatomy.axes import Axes
from paramz.compat.mup.infshape import InfShape, zip_infshape
from paramz.compat.mup.layer import MuReadout, rescale_linear_bias
from paramz.compat.mup.rows import READOUT_MULTIPLIER, rows_of_shapes
from paramz.compat.mup.tensors import infshape_of, put_under_plan_, row_of
from paramz.plan.plan import Plan
from paramz.sweeps.spec.textfile import read_text
from paramz.sweeps.spec.values import read_value

Model = TypeVar("Model", bound=nn.Module)
Shapes = Mapping[str, Any]  # name -> sizes, or name -> InfShape

_HEADER = """\
# Base shapes, one list per parameter and one entry per axis:
# the size at the base of an axis that grows with width, null for an axis that does not.
"""


def get_shapes(model: nn.Module) -> dict[str, Any]:
    """The shape of every parameter; ``model.get_shapes()`` where the model has one.

    >>> get_shapes(nn.Linear(2, 3, bias=False))
    {'weight': torch.Size([3, 2])}
    """
    own = getattr(model, "get_shapes", None)
    if callable(own):
        shapes: dict[str, Any] = own()
        return shapes
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def get_infshapes(model: nn.Module) -> dict[str, InfShape]:
    """The `InfShape` of every parameter of a model whose base shapes are set. They are copies.

    Raises:
        ValueError: no base shapes are set.
    """
    return {name: infshape_of(parameter) for name, parameter in model.named_parameters()}


def save_base_shapes(
    model_or_shapes: nn.Module | Mapping[str, InfShape], file: str | os.PathLike[str]
) -> None:
    """Write the base shapes of a model, or of a dict of `InfShape`, to a YAML file.

    The file is one that mup reads, and mup's are read by `load_base_shapes`.

    Raises:
        ValueError: it is neither, or the model's base shapes are not set.
    """
    if isinstance(model_or_shapes, nn.Module):
        shapes: Mapping[str, InfShape] = get_infshapes(model_or_shapes)
    elif isinstance(model_or_shapes, Mapping):
        shapes = model_or_shapes
    else:
        raise ValueError(
            f"save_base_shapes takes a model or a dict of InfShape, not "
            f"{type(model_or_shapes).__name__}"
        )
    text = yaml.safe_dump({name: shape.base_shape() for name, shape in shapes.items()}, indent=4)
    Path(file).write_text(_HEADER + text, encoding="utf-8")


def load_base_shapes(filename: str | os.PathLike[str]) -> dict[str, InfShape]:
    """Read a file that `save_base_shapes`, or mup's, wrote.

    Raises:
        FileNotFoundError: there is no such file, as in mup.
        ValueError: the file holds no base shapes or cannot be read; the message names it.
    """
    try:
        if not os.path.exists(filename):
            raise FileNotFoundError(
                f"{filename}: no such file; make_base_shapes(base, delta, savefile=...) writes one"
            )
        data = read_value(read_text(os.fspath(filename)))
    except ValueError as error:
        raise ValueError(f"{filename} holds no base shapes: {error}") from None
    if not isinstance(data, dict) or not all(map(_is_shape, data.values())):
        raise ValueError(
            f"{filename} holds no base shapes: expected 'parameter name: [size or null, ...]' per "
            "line, as make_base_shapes(base, delta, savefile=...) writes them"
        )
    return {name: InfShape.from_base_shape(shape) for name, shape in data.items()}


def _is_shape(shape: Any) -> bool:
    """Whether a value is a list of sizes, with None where an axis grows."""
    return isinstance(shape, list) and all(
        size is None or (isinstance(size, int) and not isinstance(size, bool) and size >= 0)
        for size in shape
    )


def zip_infshapes(base: Any, target: Any) -> dict[str, InfShape]:
    """The shapes of a target relative to base shapes, by name; axes that differ grow.

    Args:
        base: a model, a dict of shapes or of `InfShape`, or the name of a base shape file.
        target: a model or a dict of shapes.

    Raises:
        ValueError: the parameters are not the same ones, or their numbers of axes differ.
    """
    return _zip(_read(base), _read(target))


def clear_dims(infshape_dict: Mapping[str, InfShape]) -> dict[str, InfShape]:
    """A copy with base sizes only."""
    return {
        name: InfShape.from_base_shape(shape.base_shape()) for name, shape in infshape_dict.items()
    }


def make_base_shapes(
    base_shapes: Any, delta_shapes: Any, savefile: str | os.PathLike[str] | None = None
) -> dict[str, InfShape]:
    """Base shapes from a base model and one that differs from it in every axis that is to grow.

    Args:
        base_shapes: a model, a dict of shapes, or the name of a base shape file.
        delta_shapes: a model or a dict of shapes.
        savefile: write the result to this file.

    Raises:
        ValueError: the two have different parameters.

    >>> make_base_shapes(nn.Linear(4, 8, bias=False), nn.Linear(4, 9, bias=False))
    {'weight': InfShape([InfDim(8, None), InfDim(None, None)])}
    """
    shapes = clear_dims(zip_infshapes(base_shapes, delta_shapes))
    if savefile is not None:
        save_base_shapes(shapes, savefile)
    return shapes


def apply_infshapes(
    model: nn.Module,
    infshapes: Mapping[str, InfShape],
    roles: Mapping[str, Axes] | None = None,
) -> None:
    """Put a model under the plan that the `InfShape` of each parameter gives; values stay.

    Args:
        model: the model.
        infshapes: the `InfShape` of every parameter, by name.
        roles: as for `set_base_shapes`.

    Raises:
        ValueError: as for `set_base_shapes`.
    """
    rows = rows_of_shapes(model, infshapes, roles)
    notes = ["readouts multiply their input by output_mult / width_mult themselves (MuReadout)"]
    if not any(row.growing for row in rows):
        notes = ["no axis differs from the base: this is the standard parametrization"]
    plan = Plan(parametrization=READOUT_MULTIPLIER, rows=rows, folded=False, notes=tuple(notes))
    put_under_plan_(model, plan)
    for module in model.modules():
        if isinstance(module, MuReadout):
            module._width_mult = None
            module.width_mult()


def set_base_shapes(
    model: Model,
    base: Any,
    rescale_params: bool = True,
    delta: Any = None,
    savefile: str | os.PathLike[str] | None = None,
    do_assert: bool = True,
    roles: Mapping[str, Axes] | None = None,
) -> Model:
    """Put a freshly built model under muP, in place, and return it.

    Its plan is ``paramz.plan_of(model)``.

    Args:
        model: the target.
        base: the base model, a dict of shapes, the name of a base shape file, or None for the
            model itself, which means the standard parametrization.
        rescale_params: take the dependence on width out of the fresh initial values of readouts and
            biases. False for a checkpoint.
        delta: a model or shapes that differ from the base in every axis that grows; without it an
            axis grows if model and base differ in it.
        savefile: write the base shapes to this file.
        do_assert: refuse a readout that is a plain ``nn.Linear``.
        roles: ``{regex: paramz.Axes}``, for parameters that are stored in another order than
            (fan_out, fan_in) and whose module's type paramz does not know.

    Raises:
        ValueError: the parameters of base and model differ, three axes of one grow, or a readout is
            a plain ``nn.Linear``. The message names them.
        RuntimeError: initial values were rescaled before.
    """
    base_shapes = _read(model if base is None else base)
    if delta is not None:
        base_shapes = _zip(base_shapes, _read(delta))
    infshapes = _zip(base_shapes, get_shapes(model))
    if savefile is not None:
        save_base_shapes(infshapes, savefile)
    apply_infshapes(model, infshapes, roles)
    if do_assert:
        assert_hidden_size_inf(model)
    if rescale_params:
        for module in model.modules():
            if isinstance(module, MuReadout):
                module._rescale_parameters()
            elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                rescale_linear_bias(module)
    return model


def assert_hidden_size_inf(model: nn.Module) -> None:
    """Refuse a plain ``nn.Linear`` from a growing to a fixed size: it needs a multiplier.

    Raises:
        ValueError: there is one; the message names it.
    """
    for path, module in model.named_modules(remove_duplicate=False):
        if not isinstance(module, nn.Linear) or isinstance(module, MuReadout):
            continue
        row = row_of(module.weight)
        if row.role == "output" or path in row.readouts:
            kind = type(module).__name__
            hint = f" (this {kind} is none of paramz.compat.mup)" if kind != "Linear" else ""
            raise ValueError(
                f"{path} {row.shape} reads out from a growing to a fixed size and is no "
                f"MuReadout{hint}. Make it one, let its fan_out grow, or pass do_assert=False if "
                "it scales its output itself."
            )


def _read(x: Any) -> dict[str, Any]:
    if isinstance(x, nn.Module):
        return get_shapes(x)
    if isinstance(x, Mapping):
        return deepcopy(dict(x))
    if isinstance(x, str | os.PathLike):
        return dict(load_base_shapes(x))
    raise ValueError(
        f"shapes are a model, a dict or the name of a base shape file, not {type(x).__name__}"
    )


def _zip(base: Shapes, shapes: Mapping[str, Sequence[int]]) -> dict[str, InfShape]:
    base = _like_wrapped(base, shapes)
    extra = [name for name in base if name not in shapes]
    missing = [name for name in shapes if name not in base]
    if extra or missing:
        raise ValueError(
            "base and target have different parameters.\n"
            f"  only in the base: {', '.join(extra) or 'nothing'}\n"
            f"  only in the target: {', '.join(missing) or 'nothing'}\n"
            "Base shapes are of one depth; paramz.parametrize_(model, 'mup+completep', ...) takes "
            "a base of another."
        )
    found = {}
    for name, sizes in shapes.items():
        try:
            found[name] = zip_infshape(base[name], sizes)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def _like_wrapped(base: Shapes, shapes: Shapes) -> Shapes:
    """Add or take away the ``module.`` that DataParallel puts before every name."""
    wrapped = [all(name.startswith("module.") for name in names) for names in (base, shapes)]
    if wrapped == [False, True]:
        return {f"module.{name}": shape for name, shape in base.items()}
    if wrapped == [True, False]:
        return {name.removeprefix("module."): shape for name, shape in base.items()}
    return base
