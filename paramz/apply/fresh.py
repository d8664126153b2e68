"""What `parametrize_` refuses to take: wrapped models, weights computed elsewhere, trained weights.

Each would be planned without an error and then be wrong: names of a wrapper's tensors, parts of a
weight that have rules of their own, or trained weights that are scaled as if freshly drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from torch import nn
from torch.nn.utils import parametrize as torch_parametrize

from paramz.anatomy.masks import find_masked
from paramz.anatomy.paths import join
from paramz.anatomy.probes import Probes
from paramz.anatomy.sound import require_model
from paramz.anatomy.tensors import is_trainable_kind, listed
from paramz.apply.initial import unmasked
from paramz.apply.measured import measure_init
from paramz.plan.on_model import plan_of
from paramz.plan.row import Row

_WRAPPERS = {
    "OptimizedModule": "torch.compile",
    "DistributedDataParallel": "DistributedDataParallel",
    "DataParallel": "DataParallel",
    "FullyShardedDataParallel": "FSDP",
    "FSDPModule": "fully_shard",
    "AveragedModel": "AveragedModel",
    "DeepSpeedEngine": "DeepSpeed",
    "ScriptModule": "torch.jit",
}
# Classes of the hooks that torch's older functions put on a module, and what takes them off.
_OLD_HOOKS = {
    "WeightNorm": "torch.nn.utils.remove_weight_norm({module})",
    "SpectralNorm": "torch.nn.utils.remove_spectral_norm({module})",
}
# What paramz has in place of torch's parametrization of the same name; torch's new and old classes.
_OURS = {
    "WeightNorm": "paramz.WeightNorm()",
    "_WeightNorm": "paramz.WeightNorm()",
    "SpectralNorm": "paramz.reparam.SpectralNorm()",
    "_SpectralNorm": "paramz.reparam.SpectralNorm()",
    "_Orthogonal": "paramz.reparam.Orthogonal()",
}


def refuse_wrapped(model: nn.Module) -> None:
    """Raise if a model, or a part of it, was compiled, sharded or wrapped before it was planned.

    Raises:
        ValueError: it was; the message says in which order to do it.
    """
    require_model(model)
    for path, module in model.named_modules():
        kinds = [kind.__name__ for kind in type(module).__mro__]
        wrapper = next((_WRAPPERS[kind] for kind in kinds if kind in _WRAPPERS), None)
        if wrapper is not None:
            raise ValueError(
                f"{path or 'the model'} is under {wrapper} already, which the base is not: first "
                f"paramz.parametrize_ the plain model, then apply {wrapper}, then make the "
                "optimizer from plan.param_groups(the wrapped model, ...)"
            )


def refuse_computed(model: nn.Module, roles: Iterable[Any] = ()) -> None:
    """Raise if weights are computed from other tensors in another way than `reparametrize_`'s.

    Args:
        model: the model, without reparametrized weights of paramz's.
        roles: patterns of the tensors whose roles the user gave, who then knows what they are.

    Raises:
        ValueError: there are such weights; the message says what to do instead.
    """
    patterns = [pattern for pattern in roles if isinstance(pattern, str)]
    found = []
    for path, module, tensor, kind, undo in _computed(model):
        parts = [name for name, _ in module.named_parameters() if tensor in name]
        declared = [any(re.search(p, join(path, name)) for p in patterns) for name in parts]
        if not (parts and all(declared)):
            found.append((join(path, tensor), kind, undo, parts))
    if not found:
        return
    name, kind, undo, parts = found[0]
    ours = _OURS.get(kind, "a recipe of paramz.reparam")
    where = [f"^{re.escape(each)}$" for each, other, _, _ in found if other == kind]
    raise ValueError(
        f"{listed([each for each, *_ in found], 3)} is computed by torch's {kind.strip('_')} from "
        f"{listed(parts) if parts else 'another tensor'}, whose rules are other ones than those of "
        "a weight. paramz has them: build model and base without it (or take it off each, as in "
        f"{undo}), call paramz.parametrize_, then paramz.reparametrize_(model, {ours}, "
        f"where={where!r}). To keep torch's, give each part its role: roles={{pattern: role}}"
    )


def refuse_masked(model: nn.Module) -> None:
    """Raise if a model has masks of torch.nn.utils.prune, where its weights are to be plain.

    Raises:
        ValueError: it has; the message says how to put them into the weights.
    """
    masked = find_masked(model)
    if masked:
        raise ValueError(
            f"{listed([each.name for each in masked], 3)} has a mask of torch.nn.utils.prune "
            "beside it: put masks into the weights first, with torch.nn.utils.prune.remove("
            f"model.get_submodule({masked[0].path!r}), {masked[0].local!r}) for each"
        )


def refuse_trained(model: nn.Module) -> None:
    """Raise if a model says itself that its weights are trained, or holds one that is planned.

    Raises:
        ValueError: it does; the message says what to do instead.
    """
    saved = getattr(getattr(model, "config", None), "paramz", None)
    inner = next((path for path, m in model.named_modules() if path and plan_of(m)), None)
    kind = type(model).__name__
    if saved:
        raise ValueError(
            f"this {kind}'s config says that it was trained under {saved}: scaling its weights as "
            "if they were fresh would break it. Put the saved plan back with "
            "paramz.hf.from_pretrained or paramz.restore_, or set config.paramz = None for a fresh "
            "model."
        )
    if inner is not None:
        raise ValueError(
            f"{inner} inside this {kind} is under a plan already, which would be applied twice. "
            "Plan the whole model only, before anything is wrapped around it, or call "
            "paramz.remove_ on the inner one first."
        )
    # transformers marks the parameters that from_pretrained has read from a file.
    loaded = [n for n, p in model.named_parameters() if getattr(p, "_is_hf_initialized", False)]
    if loaded:
        origin = getattr(model, "name_or_path", "")
        raise ValueError(
            f"the weights of this {kind} ({listed(loaded, 2)}) were loaded"
            f"{f' from {origin}' if origin else ''}. {_ADOPT}"
        )


def refuse_changed(
    model: nn.Module, probes: Probes, rows: Iterable[Row], computed: Set[str] = frozenset()
) -> None:
    """Raise if weights cannot be fresh: gains and biases moved, uniform draws left their range.

    Only tensors count that the base starts as constants or as uniform draws, and half of them
    must have changed. A normal draw that was trained still looks like one, so it is no evidence.
    Nor is a weight that a recipe computes: an orthogonal or a factorised one is no draw when fresh.

    Args:
        model: the model, with plain weights.
        probes: the base model, real, and a wider one.
        rows: the rows of the model's plan.
        computed: names of the weights that recipes of `paramz.reparam` compute.

    Raises:
        ValueError: they have.
    """
    own, base = dict(model.named_parameters()), dict(probes.base.named_parameters())
    changed, seen = [], 0
    for row in rows:
        if row.name in computed:
            continue
        twin = base.get(probes.twin_name(row.name) or row.name)
        parameter = own[row.name]
        if twin is None or twin.is_meta or parameter.is_meta or not is_trainable_kind(parameter):
            continue
        if min(twin.numel(), parameter.numel()) < _FEW:
            continue
        values = unmasked(parameter, row)
        before = measure_init(twin, exact=False).kind
        if before == "normal" or (before == "uniform" and twin.numel() < _MANY):
            continue
        seen += 1
        after = measure_init(values, exact=False)
        if after.kind == "normal" or (before == "constant" and after.kind != "constant"):
            changed.append(row.name)
    if len(changed) >= _TWO and len(changed) >= _SHARE * seen:
        raise ValueError(
            f"{listed(changed, 3)} of this {type(model).__name__} are not as the base draws them "
            f"({len(changed)} of {seen} tensors that it starts as constants or in a range of "
            f"uniform draws), so they were trained, or model and base are drawn in two ways. "
            f"{_ADOPT}"
        )


_ADOPT = (
    "paramz.parametrize_ would scale them as if freshly drawn, which breaks a trained model. "
    "paramz.adopt_(model, ...) keeps its function and gives it the plan's learning rates; "
    "paramz.parametrize_(..., trained=True) scales the weights nevertheless"
)
_FEW, _MANY, _TWO, _SHARE = 8, 128, 2, 0.5


def _computed(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, str, str]]:
    """Path, module, tensor, what computes it, and the call that takes that off."""
    for path, module in model.named_modules():
        shown = f"model.get_submodule({path!r})"
        if torch_parametrize.is_parametrized(module):
            parametrizations: Mapping[str, Any] = module.parametrizations
            for tensor, steps in parametrizations.items():
                undo = f"torch.nn.utils.parametrize.remove_parametrizations({shown}, {tensor!r})"
                yield path, module, tensor, type(steps[0]).__name__, undo
        for hook in module._forward_pre_hooks.values():
            kinds = [kind.__name__ for kind in type(hook).__mro__]
            old = next((kind for kind in kinds if kind in _OLD_HOOKS), None)
            named: Any = getattr(hook, "name", getattr(hook, "_tensor_name", None))
            if old is not None and isinstance(named, str):
                undo = _OLD_HOOKS[old].format(module=shown, tensor=named)
                yield path, module, named, kinds[0], undo
