"""Apply a plan to a model, in place: initial values, attention scales, and hooks where needed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from paramz.anatomy.attention import KEY_INPUT, set_scale
from paramz.anatomy.branches import Branches
from paramz.anatomy.probes import Factory, Probes, build_probes
from paramz.apply.initial import draw_, falls_with_depth, init_factor, measure, torch_law
from paramz.plan.draft import draft_plan, find_rows
from paramz.plan.plan import Plan
from paramz.plan.roles import Overrides, Row
from paramz.theory.rules import Parametrization
from paramz.theory.tables import parametrization as find_parametrization

if TYPE_CHECKING:
    from paramz.nn.residual import Alphas

_MARK = "_paramz_plan"


def make_plan(
    model: nn.Module,
    parametrization: str | Parametrization,
    *,
    base: nn.Module | Factory | int | None = None,
    base_width: int | None = None,
    wider: nn.Module | int | None = None,
    roles: Overrides | None = None,
    branches: Branches | None = None,
    fold: bool = True,
    example: Any = None,
) -> Plan:
    """Plan a parametrization without touching the model; nothing is built off the meta device.

    The arguments are those of `parametrize_`.

    >>> import torch
    >>> net = lambda w=8: torch.nn.Sequential(torch.nn.Linear(4, w), torch.nn.Linear(w, 2))
    >>> [row.role for row in make_plan(net(32), "mup", base=net).rows]
    ['input', 'vector', 'output', 'scalar']
    """
    scheme = find_parametrization(parametrization)
    if is_reparametrized(model):
        from paramz.reparam.reparametrize import with_plain_weights

        call = partial(make_plan, model, scheme)
        call = partial(
            call, base_width=base_width, roles=roles, branches=branches, fold=fold, example=example
        )
        return with_plain_weights(model, call, base, wider, redraw=False)
    if scheme.absolute:
        from paramz.nn.convert.unit_scale import unit_scaled_plan

        return unit_scaled_plan(copy.deepcopy(model), example, roles=roles, init=False)
    probes = build_probes(model, base, base_width=base_width, wider=wider, measure=False)
    probes = probes.matched(model, scheme.scales)
    return draft_plan(model, scheme, probes, roles, branches, fold)


def parametrize_(
    model: nn.Module,
    parametrization: str | Parametrization,
    *,
    base: nn.Module | Factory | int | None = None,
    base_width: int | None = None,
    wider: nn.Module | int | None = None,
    roles: Overrides | None = None,
    branches: Branches | None = None,
    fold: bool = True,
    init: bool = True,
    example: Any = None,
    alphas: Alphas | None = None,
) -> Plan:
    """Put a freshly built model under a parametrization, in place, and return its `Plan`.

    The init std of every tensor becomes the std measured on the base model times its rule, and
    attention logits are scaled by 1/d_head where the head size grows. Multipliers are folded into
    init, learning rate, epsilon and decay, so the forward pass is the plain model's; only a tied
    readout needs one (a pre-hook on its input). At the base nothing changes, bit for bit. Doing it
    twice with the same plan changes nothing.

    Under a scheme with rules for depth or experts, as in ``"mup+completep"`` or ``"mup+moe"``, the
    base may have another number of blocks or experts than the model.

    Args:
        model: the target, freshly initialised. On the meta device only its shapes are used: call
            `init_` after ``to_empty``.
        parametrization: a name such as ``"mup"``, or a `Parametrization`.
        base: the base model: a factory ``width -> model`` (called at ``base_width`` and twice
            that), a module (then ``wider`` must be one, too), or for a Hugging Face model a width.
        base_width: the width at which a factory builds the base.
        wider: overrides the wider probe: a width for the factory, or a module.
        roles: ordered overrides ``{regex: role or Axes}``.
        branches: where the residual branches are, for a depth scheme on blocks that paramz does not
            know.
        fold: fold multipliers; False keeps those of the table as hooks on the module's input.
        init: False leaves values alone (a checkpoint will be, or was, loaded).
        example: what to call the model with, as in training: a batch, or its inputs. Only u-muP
            looks at it.
        alphas: u-muP's hyperparameters.

    Under ``"u-mup"`` sizes count by themselves, roles are those of the layers, and what the model
    computes shows where its branches are: base, base_width, wider, branches and fold say nothing
    and may be given all the same, so that one call serves every scheme. See
    `paramz.nn.unit_scale_`.

    Raises:
        TypeError: the base is missing or of the wrong kind; for u-muP, the example.
        ValueError: unknown parametrization, ambiguous roles, probes that do not match, the model
            already has another plan, roles for u-muP, or alphas for another scheme or for layers
            that have theirs. The message says what would fix it.

    >>> import torch
    >>> net = lambda w=8: torch.nn.Sequential(torch.nn.Linear(4, w), torch.nn.Linear(w, 2))
    >>> model = net(32)
    >>> p = parametrize_(model, "mup", base=net)
    >>> [(g["roles"], g["lr"]) for g in p.param_groups(model, "adamw", lr=0.5)]
    [(['input', 'vector'], 0.5), (['output'], 0.125), (['scalar'], 0.5)]
    """
    scheme = find_parametrization(parametrization)
    if is_reparametrized(model):
        from paramz.reparam.reparametrize import with_plain_weights

        call = partial(parametrize_, model, scheme)
        call = partial(call, base_width=base_width, roles=roles, branches=branches)
        call = partial(call, fold=fold, init=init, example=example, alphas=alphas)
        return with_plain_weights(model, call, base, wider, redraw=init, apply=True)
    before = plan_of(model)
    if scheme.absolute:
        from paramz.nn.convert.unit_scale import unit_scaled_plan

        made = unit_scaled_plan(
            model, example, roles=roles, alphas=alphas, init=init, before=before
        )
        vars(model)[_MARK] = made
        return made
    if alphas is not None:
        raise ValueError(f"alphas are hyperparameters of u-mup, {scheme.name} has none: leave out")
    if before is None and init:
        _refuse_trained(model)
    # An earlier plan changed scales and hooks; the same call again must find what it found then.
    probes = build_probes(model, base, base_width=base_width, wider=wider, measure=init)
    probes = probes.matched(model, scheme.scales)
    if before is not None:
        return _again(before, scheme, fold, find_rows(model, scheme, probes, roles, branches)[0])
    made = draft_plan(model, scheme, probes, roles, branches, fold)
    if init:
        made = _initialise(model, probes, made)
    put_on_(model, made)
    return made


def _refuse_trained(model: nn.Module) -> None:
    """A config that paramz.hf.save_pretrained wrote says that the weights are trained."""
    saved = getattr(getattr(model, "config", None), "paramz", None)
    inner = next((path for path, m in model.named_modules() if path and plan_of(m)), None)
    if saved:
        raise ValueError(
            f"this {type(model).__name__}'s config says that it was trained under {saved}: scaling "
            "its weights as if they were fresh would break it. Put the saved plan back with "
            "paramz.hf.from_pretrained or paramz.restore_, or set config.paramz = None for a fresh "
            "model."
        )
    if inner is not None:
        raise ValueError(
            f"{inner} inside this {type(model).__name__} is under a plan already, which would be "
            "applied twice. Plan the whole model only, before anything is wrapped around it, or "
            "call paramz.remove_ on the inner one first."
        )


def put_on_(model: nn.Module, made: Plan) -> None:
    """Set a plan's attention scales and hooks on a model and let it remember the plan."""
    for scale in made.attention:
        if scale.attribute != KEY_INPUT:
            set_scale(model, scale, scale.value)
    _hook_(model, made)
    vars(model)[_MARK] = made


def plan_of(model: nn.Module) -> Plan | None:
    """The plan that a model is under, or None. It survives deepcopy and pickle.

    >>> plan_of(nn.Linear(2, 2)) is None
    True
    """
    found = vars(model).get(_MARK)
    return found if isinstance(found, Plan) else None


def init_(model: nn.Module, plan: Plan | None = None) -> None:
    """Draw all parameters afresh under the plan, for a model that was planned on meta.

    Args:
        model: the model after ``to_empty``; its buffers are the caller's.
        plan: the plan; the model's own if left out.

    Raises:
        ValueError: the model has no plan, is still on meta, or the plan holds no measured init.
    """
    made = _require(model, plan)
    if made.computed:
        from paramz.reparam.reparametrize import draw_again_

        return draw_again_(model, made, init_)
    parameters = dict(model.named_parameters())
    for row in made.rows:
        parameter = parameters[row.name]
        if parameter.is_meta:
            raise ValueError(
                f"{row.name} is on the meta device: call model.to_empty(device=) first"
            )
        std = made.init_std(row)
        if row.base_init is None or std is None:
            raise ValueError(
                f"the plan holds no init for {row.name}: make it with parametrize_ and a factory "
                "as base, so that the base model can be measured"
            )
        value = row.base_init.value * made.branch_factor(row)
        draw_(parameter, replace(row.base_init, value=value), std)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx].zero_()  # as torch initialises it


def remove_(model: nn.Module) -> Plan | None:
    """Take the hooks and attention scales off again and forget the plan; weights stay as they are.

    Reparametrized weights become plain ones of the same values.

    Returns:
        the plan that was removed; None if the model was reparametrized only.

    Raises:
        ValueError: the model has no plan and no reparametrized weights, or u-muP's plan.
    """
    if _plain_weights_(model) and plan_of(model) is None:
        return None
    made = _require(model, None)
    if made.parametrization.absolute:
        raise ValueError(
            f"{made.parametrization.name} has replaced the model's layers, which cannot be undone: "
            "build the model afresh, or export its function with paramz.fold_"
        )
    for scale in made.attention:
        if scale.attribute != KEY_INPUT:
            set_scale(model, scale, scale.plain)
    _unhook_(model)
    del vars(model)[_MARK]
    return made


def fold_(model: nn.Module) -> None:
    """Fold every multiplier into the weights: the same function as a plain model, for export.

    Logits stay equal to rounding and the state_dict keys are those of the plain model. Attention
    scales are folded into the query projections, so code that recomputes 1/sqrt(d_head) is right.
    Reparametrized weights become plain ones of the same values.

    Raises:
        ValueError: the model has no plan; or a multiplier sits on a tied tensor or on a residual
            branch without weights, or an attention module's queries cannot be found, so that no
            plain model has this function. The model is then as it was.
    """
    from paramz.apply.fold import fold_weights_

    if _plain_weights_(model) and plan_of(model) is None:
        return
    made = _require(model, None)
    if made.parametrization.absolute:
        from paramz.nn.convert.fold import fold_scales_

        fold_scales_(model)
    fold_weights_(model, made)
    _unhook_(model)
    del vars(model)[_MARK]


def is_reparametrized(model: nn.Module) -> bool:
    """Whether weights of a model are computed from others, see `paramz.reparametrize_`."""
    from paramz.reparam.modules import Reparametrized

    return any(isinstance(module, Reparametrized) for module in model.modules())


def _plain_weights_(model: nn.Module) -> bool:
    if not is_reparametrized(model):
        return False
    from paramz.reparam.reparametrize import unreparametrize_

    unreparametrize_(model)
    return True


def _require(model: nn.Module, plan: Plan | None) -> Plan:
    made = plan or plan_of(model)
    if made is None:
        raise ValueError(
            f"this {type(model).__name__} is under no plan: call paramz.parametrize_ first (the "
            "plan sits on the module that was passed to it, not on wrappers around it)"
        )
    return made


def _again(before: Plan, scheme: Parametrization, fold: bool, rows: list[Row]) -> Plan:
    same = (
        before.parametrization == scheme
        and before.folded == fold
        and [replace(row, base_init=None, factor=None) for row in before.rows] == rows
    )
    if same:
        return before
    raise ValueError(
        f"the model is already under {before.parametrization.name} with another base or other "
        "roles. Build it afresh, or call paramz.remove_(model) first (its weights keep their init)."
    )


def _initialise(model: nn.Module, probes: Probes, made: Plan) -> Plan:
    """Scale every tensor's own random values to the rule, and record what was measured."""
    parameters = dict(model.named_parameters())
    base_parameters = dict(probes.base.named_parameters(remove_duplicate=False))
    at_base = all(
        row.shape == row.base_shape and all(ratio == 1.0 for ratio in row.ratios.values())
        for row in made.rows
    )
    rows, falling = [], 0
    for row in made.rows:
        twin = probes.twin_name(row.name) or row.name
        if base_parameters[twin].is_meta:
            raise ValueError(
                "the base model is on the meta device, so its init cannot be measured: pass a "
                "factory or a real module as base, or init=False"
            )
        base_init = measure(base_parameters[twin])
        parameter = parameters[row.name]
        factor = None
        if not parameter.is_meta:
            own = measure(parameter)
            known = torch_law(twin, probes.base, base_init, row.name, model, own)
            wanted = made.weight_rule(row).init_std(row.ratios)
            if at_base:
                factor = 1.0
            elif own.kind == "constant":
                factor = made.branch_factor(row)
            else:
                factor = init_factor(row, wanted, base_init, own, known)
                falling += falls_with_depth(row, wanted / factor)
            if factor != 1.0:
                with torch.no_grad():
                    parameter.mul_(factor)
        rows.append(replace(row, base_init=base_init, factor=factor))
    notes = made.notes
    if falling:
        notes += (
            f"the model's own init of {falling} tensors falls like depth^-1/2: the scheme's factor "
            "replaces it",
        )
    return replace(made, rows=tuple(rows), notes=notes)


def _hook_(model: nn.Module, made: Plan) -> None:
    for path, factor in made.multipliers.items():
        module = model.get_submodule(path)
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(partial(_scale_output, factor))
        else:
            module.register_forward_pre_hook(partial(_scale_input, factor))
    for path, factor in made.branches.items():
        model.get_submodule(path).register_forward_hook(partial(_scale_output, factor))
    keys = [s for s in made.attention if s.attribute == KEY_INPUT and s.value != 1.0]
    for scale in keys:
        model.get_submodule(scale.module).register_forward_pre_hook(
            partial(_scale_key, scale.value), with_kwargs=True
        )
    if made.multipliers or made.branches or keys:
        _let_compile_see_hooks()


def _let_compile_see_hooks() -> None:
    """Without this torch.compile runs the graph of a model of the same class and shapes.

    Its guards leave hooks out by default ("unsafe", says torch._dynamo.config), so of a plain model
    and one with hooks, compiled in one process, the second would silently be the first.
    """
    import torch._dynamo

    torch._dynamo.config.skip_nnmodule_hook_guards = False
    torch._dynamo.reset()


def _unhook_(model: nn.Module) -> None:
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if getattr(hook, "func", None) in (_scale_input, _scale_output, _scale_key):
                    del hooks[key]
                    module._forward_pre_hooks_with_kwargs.pop(key, None)


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
