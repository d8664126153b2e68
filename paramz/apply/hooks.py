"""Put a plan's attention scales and hooks on a model, and take them off again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from paramz.anatomy.attention import KEY_INPUT
from paramz.plan.on_model import remember_, set_scale_
from paramz.plan.plan import Plan


def install_(model: nn.Module, plan: Plan) -> None:
    """Set a plan's attention scales and hooks on a model and let it remember the plan."""
    for scale in plan.attention:
        if scale.attribute != KEY_INPUT:
            set_scale_(model, scale, scale.value)
    _hook_(model, plan)
    remember_(model, plan)


def uninstall_(model: nn.Module, plan: Plan) -> None:
    """Undo `install_`."""
    for scale in plan.attention:
        if scale.attribute != KEY_INPUT:
            set_scale_(model, scale, scale.plain)
    unhook_(model)
    remember_(model, None)


def unhook_(model: nn.Module) -> None:
    """Remove the hooks of any plan from a model."""
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if getattr(hook, "func", None) in (_scale_input, _scale_output, _scale_key):
                    del hooks[key]
                    module._forward_pre_hooks_with_kwargs.pop(key, None)


def _hook_(model: nn.Module, plan: Plan) -> None:
    for path, factor in plan.multipliers.items():
        module = model.get_submodule(path)
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(partial(_scale_output, factor))
        else:
            module.register_forward_pre_hook(partial(_scale_input, factor))
    for path, factor in plan.branches.items():
        model.get_submodule(path).register_forward_hook(partial(_scale_output, factor))
    keys = [s for s in plan.attention if s.attribute == KEY_INPUT and s.value != 1.0]
    for scale in keys:
        model.get_submodule(scale.module).register_forward_pre_hook(
            partial(_scale_key, scale.value), with_kwargs=True
        )
    if plan.multipliers or plan.branches or keys:
        _let_compile_see_hooks()


def _let_compile_see_hooks() -> None:
    """Without this torch.compile runs the graph of a model of the same class and shapes.

    Its guards leave hooks out by default ("unsafe", says torch._dynamo.config), so of a plain model
    and one with hooks, compiled in one process, the second would silently be the first.
    """
    import torch._dynamo

    torch._dynamo.config.skip_nnmodule_hook_guards = False
    torch._dynamo.reset()


def _scale_input(factor: float, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if not args:
        raise TypeError(
            f"paramz multiplies the input of this {type(module).__name__}, which was called with "
            "keyword arguments only: pass its input by position"
        )
    return (args[0] * factor, *args[1:])


def _scale_output(factor: float, module: nn.Module, args: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return (output[0] * factor, *output[1:])
    return output * factor


def _scale_key(
    factor: float, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if len(args) > 1:
        return (args[0], args[1] * factor, *args[2:]), dict(kwargs)
    return args, {**kwargs, "key": kwargs["key"] * factor}
