"""Megatron-Core: ``config_overrides`` for ``get_megatron_optimizer``, and the config's init stds.

After megatron/core/optimizer/__init__.py (``_get_param_groups``), optimizer/optimizer_config.py
(``ParamKey``) and optimizer_param_scheduler.py of 2026: overrides of all keys that match a tensor
are joined, ``max_lr`` and ``min_lr`` are the ends of its schedule, and ``wd_mult`` multiplies the
scheduled decay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from paramz.anatomy.attention import KEY_INPUT
from paramz.plan.export.entries import Contents, Entry
from paramz.plan.export.export import (
    Export,
    ExportedGroup,
    by_pattern,
    call,
    heading,
    known_optimizer,
    no_start,
    start_patterns,
    starts_code,
    unknown_options,
    written,
)
from paramz.plan.row import ModuleScale
from paramz.plan.settings import Settings
from paramz.theory.decay import decoupling_options

_NAMES = {"adamw": "adam", "adam": "adam", "lion": "lion", "sgd": "sgd"}
# Options of an optimizer, and the fields of OptimizerConfig that hold them.
_FIELDS = {"adamw": ("adam_beta1", "adam_beta2"), "lion": ("lion_beta1", "lion_beta2")}
_FIELDS["adam"] = _FIELDS["adamw"]
# DDP and Float16Module wrap the model.
_WRAPPED = r"(?:module\.)*"
# Which tensors a field of TransformerConfig starts; output_layer starts as init_method says, too.
_STD_FIELDS = {
    "init_method_std": r"decoder\..*\.(?:linear_qkv|linear_fc1)\.weight",
    "embedding_init_method_std": r"embedding\.word_embeddings\.weight",
}


def megatron(contents: Contents) -> Export:
    """The settings of Megatron-Core.

    Raises:
        ValueError: two optimizers, or one that is not Adam, Lion or SGD.
    """
    kind = known_optimizer("Megatron-Core", contents, _NAMES)
    settings = contents.settings[0]
    groups, starts = by_pattern(contents.entries), start_patterns(contents.entries)
    model = _model(contents.entries)
    unheld = contents.unheld
    if (softmax := _softmax_scale(contents.attention)) is not None:
        model["softmax_scale"] = softmax
        unheld = tuple(each for each in unheld if not each.startswith("attention"))
    missing = [
        "its own muP (use_mup) would multiply once more: leave it off, and decoupled_lr, too",
        "init per tensor: TransformerConfig starts all but embeddings with one std; call "
        "start_(model) on every model chunk before the optimizer is made",
        "warmup from another rate than 0: keep --lr-warmup-init 0, which is one for all groups",
        "weight_decay: its scheduler sets the decay of all groups from --weight-decay (start_wd "
        "and end_wd) times their wd_mult, so give it OPTIMIZER's",
        *_numbered(groups),
        *no_start(contents.entries),
        *unknown_options(contents, ["betas", "momentum", *decoupling_options(kind)]),
        *unheld,
    ]
    base = settings.family.weight_decay if settings.weight_decay is None else settings.weight_decay
    config = _config(kind, settings, base)
    lines = ""
    for index, group in enumerate(groups):
        changed = _changed(group.values, settings, base)
        if changed:
            pattern = written(f"{_WRAPPED}(?:{group.patterns[0]})")
            lines += f"    _key({index}, {pattern}): {changed},\n"
    text = (
        heading("Megatron-Core", contents, len(groups), missing)
        + "import re\nfrom contextlib import nullcontext\n\nimport torch\n"
        + "from megatron.core.optimizer import ParamKey\n"
        + "from megatron.core.optimizer.optimizer_config import ParamWithNamePredicate\n"
        + "from megatron.core.tensor_parallel.random import (\n"
        + "    get_cuda_rng_tracker,\n    get_expert_parallel_rng_tracker_name,\n)\n\n"
        + "MIN_LR_RATIO = 0.1  # min_lr / lr of your schedule, the same for all groups\n"
        + f"MODEL = {call('dict', model)}  # fields of TransformerConfig\n"
        + f"OPTIMIZER = {call('dict', config)}  # of OptimizerConfig\n"
        + 'OPTIMIZER["min_lr"] = MIN_LR_RATIO * OPTIMIZER["lr"]\n'
        + "\n\ndef _key(index, pattern):\n"
        "    def fits(parameter, name):\n"
        "        return re.fullmatch(pattern, name) is not None\n\n"
        '    return ParamKey(with_name_predicate=ParamWithNamePredicate(f"paramz{index}", fits))\n'
        "\n\ndef _lr(lr):\n"
        '    return {"max_lr": lr, "min_lr": MIN_LR_RATIO * lr}\n\n\n'
        "# get_megatron_optimizer(..., config_overrides=config_overrides), not joined with\n"
        "# the standard ones: what an override does not say is as OPTIMIZER has it.\n"
        + f"config_overrides = {{\n{lines}}}\n"
        + starts_code(
            [(f"{_WRAPPED}(?:{pattern})", kind, x) for pattern, kind, x in starts],
            # Experts are on ranks of their own, and have a state of random numbers for them.
            'split = getattr(parameter, "tensor_model_parallel", False)\n'
            '            expert = ".experts." in name\n'
            "            state = [get_expert_parallel_rng_tracker_name()] if expert else []\n"
            "            forks = split or expert\n"
            "            with get_cuda_rng_tracker().fork(*state) if forks else nullcontext():",
        )
    )
    return Export("megatron", text, groups, starts, tuple(missing))


def _config(kind: str, settings: Settings, weight_decay: float) -> dict[str, Any]:
    config = {"optimizer": kind, "lr": settings.lr, "weight_decay": weight_decay}
    if settings.family.eps is not None:
        config["adam_eps"] = settings.base_eps
    if kind == "adam":
        config["decoupled_weight_decay"] = settings.family.decay == "decoupled"
    if "betas" in settings.options:
        config |= zip(_FIELDS[settings.family.name], settings.options["betas"], strict=True)
    if kind == "sgd":
        config["sgd_momentum"] = settings.options.get("momentum", 0.0)
    return config


def _changed(values: Any, settings: Settings, weight_decay: float) -> str:
    """The override of one group, as text: what differs from the optimizer's config."""
    parts = []
    if values["lr"] != settings.lr:
        parts.append(f"**_lr({values['lr']!r})")
    ratio = float(f"{values['weight_decay'] / weight_decay:.12g}") if weight_decay else 1.0
    if ratio != 1.0:
        parts.append(f'"wd_mult": {ratio!r}')
    if "eps" in values and values["eps"] != settings.base_eps:
        parts.append(f'"eps": {values["eps"]!r}')
    return f"{{{', '.join(parts)}}}" if parts else ""


def _softmax_scale(scales: Sequence[ModuleScale]) -> float | None:
    """The factor on logits that all layers have under the plan; None if no field can hold it.

    torch's own attention keeps its 1/sqrt(d_head), and the plan's factor is on what makes its keys.
    """
    values = {scale.value for scale in scales}
    changed = any(scale.value != scale.plain for scale in scales)
    held = all(scale.kind == "attention" and scale.attribute != KEY_INPUT for scale in scales)
    return values.pop() if changed and held and len(values) == 1 else None


def _numbered(groups: Sequence[ExportedGroup]) -> list[str]:
    """What to say if blocks have values of their own."""
    if not any(re.search(r"\\\.(?:\(\?:)?\d", group.patterns[0]) for group in groups):
        return []
    return [
        "values of single layers with pipeline parallelism: the patterns name layers by their "
        "numbers, and every stage counts from 0"
    ]


def _model(entries: Sequence[Entry]) -> dict[str, Any]:
    """Init stds that a field of TransformerConfig can hold: those of all tensors that it starts."""
    found = {}
    for field, pattern in _STD_FIELDS.items():
        some = [entry for entry in entries if re.fullmatch(pattern, entry.name)]
        stds = {(kind, number) for _, kind, number in start_patterns(some)}
        if len(stds) == 1 and next(iter(stds))[0] == "normal":
            ((_, found[field]),) = stds
    return found
