"""Put a plan's attention scales and hooks on a model, and take them off again."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from torch import nn

from paramz.anatomy.attention import KEY_INPUT
from paramz.plan.hooked import scale_input, scale_key, scale_output
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


def hooked_inputs(model: nn.Module) -> dict[str, float]:
    """Module path -> the factor on its input that hooks of any plan put there."""
    return {
        path: hook.args[0]
        for path, module in model.named_modules()
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, partial) and hook.func is scale_input
    }


def unhook_(model: nn.Module) -> None:
    """Remove the hooks of any plan from a model."""
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if getattr(hook, "func", None) in (scale_input, scale_output, scale_key):
                    del hooks[key]
                    module._forward_pre_hooks_with_kwargs.pop(key, None)


def require_hooks_ran(model: nn.Module, plan: Plan, called: Collection[str]) -> None:
    """Check after a forward and a backward pass that every factor of a plan was applied.

    A module that has no gradient either was not used at all, as an expert that no token chose.

    Args:
        model: a model under the plan.
        plan: its plan.
        called: paths of the modules that the forward pass called.

    Raises:
        ValueError: the forward pass used a module's weights without calling the module, so that the
            hook with its factor did not run.
    """
    planned = {path: (factor, "output") for path, factor in plan.branches.items()}
    for path, factor in plan.multipliers.items():
        embeds = isinstance(model.get_submodule(path), nn.Embedding)
        planned[path] = (factor, "output" if embeds else "input")
    for scale in plan.attention:
        if scale.attribute == KEY_INPUT and scale.value != 1.0:
            planned[scale.module] = (scale.value, "key")
    for path, (factor, what) in planned.items():
        parameters = list(model.get_submodule(path).parameters())
        used = not parameters or any(p.grad is not None for p in parameters)
        if path not in called and used:
            kind = type(model.get_submodule(path)).__name__
            raise ValueError(
                f"{path} ({kind}): the plan multiplies its {what} by {factor:.4g} in a hook, and "
                f"the hook never ran, because the forward pass does not call the module. Call it "
                f"as {path}(x): F.linear(x, {path}.weight) and {path}.forward(x) pass by its hooks"
            )


def _hook_(model: nn.Module, plan: Plan) -> None:
    for path, factor in plan.multipliers.items():
        module = model.get_submodule(path)
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(partial(scale_output, factor))
        else:
            module.register_forward_pre_hook(partial(scale_input, factor), with_kwargs=True)
    for path, factor in plan.branches.items():
        model.get_submodule(path).register_forward_hook(partial(scale_output, factor))
    keys = [s for s in plan.attention if s.attribute == KEY_INPUT and s.value != 1.0]
    for scale in keys:
        model.get_submodule(scale.module).register_forward_pre_hook(
            partial(scale_key, scale.value), with_kwargs=True
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
