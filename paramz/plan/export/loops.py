"""Frameworks that train the user's own module: DeepSpeed and the Trainer of transformers."""

from __future__ import annotations

from typing import Any

from paramz.plan.export.entries import Contents
from paramz.plan.export.export import (
    Export,
    ExportedGroup,
    by_pattern,
    heading,
    known_optimizer,
    no_start,
    start_patterns,
    starts_code,
    written,
)
from paramz.plan.settings import Settings, torch_optimizers
from paramz.theory.decay import decoupling_options

_BUILD = '''

def parameter_groups(model):
    """Groups for the optimizer, every trainable tensor in exactly one."""
    groups = [{"params": [], **values} for _, values in GROUPS]
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        (index,) = [i for i, (pattern, _) in enumerate(GROUPS) if re.fullmatch(pattern, name)]
        groups[index]["params"].append(parameter)
    return [group for group in groups if group["params"]]


'''
# The types of the "optimizer" section of DeepSpeed's config (runtime/config.py); another name is
# looked up in torch.optim (runtime/engine.py, _configure_basic_optimizer).
_DEEPSPEED = {"adamw": "AdamW", "adam": "Adam", "lion": "Lion", "sgd": "SGD", "adagrad": "Adagrad"}


def deepspeed(contents: Contents) -> Export:
    """DeepSpeed: the config's optimizer section, and the groups that ``initialize`` takes.

    Raises:
        ValueError: two optimizers, or one that DeepSpeed's config does not have.
    """
    kind = known_optimizer("DeepSpeed", contents, _DEEPSPEED)
    settings = contents.settings[0]
    groups, starts = by_pattern(contents.entries), start_patterns(contents.entries)
    missing = [
        "init: call start_(model) before deepspeed.initialize",
        "a scheduler of the config: WarmupLR, WarmupDecayLR, WarmupCosineLR and OneCycle set "
        "absolute rates, one for all groups unless they get a list. Leave the section out and pass "
        "lr_scheduler= to deepspeed.initialize, one that multiplies (LambdaLR)",
        *no_start(contents.entries),
        *contents.unheld,
    ]
    params: dict[str, Any] = {"lr": settings.lr, **_plain(settings)}
    if kind == "Adam":  # DeepSpeed's word for how it decays, which is as AdamW if nobody says
        params["adam_w_mode"] = settings.family.decay == "decoupled"
    config = {"optimizer": {"type": kind, "params": params}}
    text = (
        heading("DeepSpeed", contents, len(groups), missing)
        + "import re\n\nimport deepspeed\nimport torch\n\n"
        + f"CONFIG = {config!r}  # add yours\n"
        + _table(groups)
        + _BUILD
        + starts_code(starts)
        + "\n\n# start_(model)\n"
        "# engine, optimizer, _, _ = deepspeed.initialize(\n"
        "#     model=model, model_parameters=parameter_groups(model), config=CONFIG)\n"
    )
    return Export("deepspeed", text, groups, starts, tuple(missing))


def trainer(contents: Contents) -> Export:
    """The Trainer of transformers: ``optimizer_cls_and_kwargs`` with groups.

    Raises:
        ValueError: two optimizers, or one that torch does not have.
    """
    found = torch_optimizers()
    kind = known_optimizer("Trainer", contents, {name: c.__name__ for name, c in found.items()})
    settings = contents.settings[0]
    groups, starts = by_pattern(contents.entries), start_patterns(contents.entries)
    missing = [
        "init: call start_(model) before Trainer(...)",
        "learning_rate, weight_decay, adam_epsilon and optim of TrainingArguments are not read: "
        "the groups and the class have their place",
        "the schedule reduce_lr_on_plateau: its min_lr is absolute, one for all groups. Use "
        "another schedule (min_lr of cosine_with_min_lr counts from lr, and is right)",
        *no_start(contents.entries),
        *contents.unheld,
    ]
    options = {"lr": settings.lr, **settings.options}
    text = (
        heading("Trainer", contents, len(groups), missing)
        + "import re\n\nimport torch\n\n"
        + f"OPTIMIZER, OPTIONS = torch.optim.{kind}, {options!r}\n"
        + _table(groups)
        + _BUILD
        + starts_code(starts)
        + "\n\ndef optimizer_cls_and_kwargs(model):\n"
        '    """Trainer(..., optimizer_cls_and_kwargs=optimizer_cls_and_kwargs(model))."""\n'
        '    return OPTIMIZER, {"params": parameter_groups(model), **OPTIONS}\n'
    )
    return Export("trainer", text, groups, starts, tuple(missing))


def _table(groups: tuple[ExportedGroup, ...]) -> str:
    lines = "".join(f"    ({written(g.patterns[0])}, {dict(g.values)!r}),\n" for g in groups)
    return f"GROUPS = [\n{lines}]\n"


def _plain(settings: Settings) -> dict[str, Any]:
    """Options that can stand in JSON, without torch's word for how an optimizer decays."""
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.options.items()}
    own = decoupling_options(settings.family.name)
    return {key: value for key, value in lists.items() if value is not None and key not in own}
