"""nanochat: the arguments of ``GPT.setup_optimizer``, and a loop over the groups for the rest.

After nanochat/gpt.py and nanochat/optim.py of 2026. setup_optimizer gives all of transformer.h to
Muon, multiplies the rates of AdamW by (n_embd / 768)^-1/2 for reasons of its own, which is divided
out here, and has epsilon and AdamW's decay in its code. Its Muon multiplies steps and decay by
sqrt(max(1, rows / columns)).
"""

from __future__ import annotations

from dataclasses import replace

from paramz.plan.export.entries import Contents, Entry
from paramz.plan.export.export import (
    Export,
    by_pattern,
    call,
    heading,
    no_start,
    start_patterns,
    starts_code,
    written,
)
from paramz.plan.own_factor import OwnFactor

MUON = OwnFactor("original", decays=True)
_EMBEDDING, _READOUT, _MATRICES = "transformer.wte.weight", "lm_head.weight", "transformer.h."
_SETTLE = '''

def settle_(optimizer, model):
    """Give every group the plan's values, also those that setup_optimizer has no argument for."""
    names = {id(p): name for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        found = [
            [values for pattern, values in GROUPS if re.fullmatch(pattern, names[id(p)])]
            for p in group["params"]
        ]
        if [] in found:
            continue
        if any(values != found[0] for values in found):
            raise ValueError(f"{[names[id(p)] for p in group['params']]} need groups of their own")
        group.update(found[0][0])
        group["initial_lr"] = group["lr"]
        group["initial_weight_decay"] = group["weight_decay"]


'''


def nanochat(contents: Contents) -> Export:
    """The settings of nanochat.

    Raises:
        ValueError: the optimizers are not Muon for matrices and AdamW for the rest, or the names
            are not nanochat's.
    """
    families = [settings.family.name for settings in contents.settings]
    if families != ["muon", "adamw"]:
        raise ValueError(
            "nanochat trains matrices with Muon and the rest with AdamW: "
            'plan.export("nanochat", muon=dict(lr=...), adamw=dict(lr=...))'
        )
    by_name = {entry.name: entry for entry in contents.entries}
    if _EMBEDDING not in by_name or _READOUT not in by_name:
        raise ValueError(
            f"nanochat's model has {_EMBEDDING} and {_READOUT}, this plan has "
            f"{', '.join(list(by_name)[:4])}, ...: give names=[(pattern, replacement), ...], from "
            "the plan's names to nanochat's"
        )
    strange = [e for e in contents.entries if _is_matrix(e) != e.name.startswith(_MATRICES)]
    entries = [_without_eps(e) for e in contents.entries if e not in strange]
    groups, starts = by_pattern(entries), start_patterns(contents.entries)
    arguments = _arguments({entry.name: entry for entry in entries})
    missing = [
        "epsilon and decay of AdamW, and rates within one of its groups: call settle_(optimizer, "
        "model) behind setup_optimizer",
        "an epsilon of Muon: it has none",
        "weight decay of single matrices: base_train.py sets one for all of Muon at every step. In "
        'its loop let group["weight_decay"] be group["initial_weight_decay"] (which settle_ sets) '
        "times the schedule, get_weight_decay(step) / weight_decay_scaled",
        "init: call start_(model) behind model.init_weights()",
        "base_train.py multiplies its flags by factors of batch and horizon: give these numbers to "
        "setup_optimizer",
        *(
            f"{e.name}: the plan trains it with {e.settings.family.name} at lr "
            f"{e.values['lr']:.4g}, nanochat with {'AdamW' if _is_matrix(e) else 'Muon'}"
            for e in strange
        ),
        *no_start(contents.entries),
        *contents.unheld,
    ]
    lines = "".join(f"    ({written(g.patterns[0])}, {dict(g.values)!r}),\n" for g in groups)
    text = (
        heading("nanochat", contents, len(groups), missing)
        + "import re\n\nimport torch\n\n"
        + f"SETUP = {call('dict', arguments)}\n"
        + f"GROUPS = [\n{lines}]\n"
        + _SETTLE
        + starts_code(starts)
        + "\n\n# optimizer = model.setup_optimizer(**SETUP)\n# settle_(optimizer, model)\n"
    )
    return Export("nanochat", text, groups, starts, tuple(missing))


def _is_matrix(entry: Entry) -> bool:
    return entry.settings.family.name == "muon"


def _without_eps(entry: Entry) -> Entry:
    if not _is_matrix(entry):
        return entry
    return replace(entry, values={k: v for k, v in entry.values.items() if k != "eps"})


def _arguments(entries: dict[str, Entry]) -> dict[str, float]:
    """The arguments of setup_optimizer, which are the same for all tensors that they are for."""
    scale = (entries[_EMBEDDING].shape[1] / 768) ** -0.5
    found = {
        "unembedding_lr": entries[_READOUT].values["lr"] / scale,
        "embedding_lr": entries[_EMBEDDING].values["lr"] / scale,
    }
    matrices = [entry for entry in entries.values() if _is_matrix(entry)]
    if matrices:
        found["matrix_lr"] = matrices[0].values["lr"]
        found["weight_decay"] = matrices[0].values["weight_decay"]
    scalars = entries.get("x0_lambdas")
    if scalars is not None:
        found["scalar_lr"] = scalars.values["lr"]
    return {name: float(f"{value:.12g}") for name, value in found.items()}
