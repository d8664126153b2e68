"""What each muP setting of Megatron-LM and of Cerebras' model zoo becomes, and what changes.

What is said of Megatron-LM is from core/transformer/transformer_config.py and
core/optimizer/__init__.py on its main branch of August 2026, what is said of the model zoo from
gpt2_model.py of March 2026. Both have muP for width with Adam: hidden matrices have std / sqrt(m)
and lr / m, logits are divided by m, everything else stays as it is, and weight decay is never
scaled. Megatron has one m = hidden / base for all tensors and divides epsilon of matrices by it;
the zoo has a second m for feed-forward outputs. In paramz every tensor has the ratios of its shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from paramz.compat.convert.code import Finding
from paramz.compat.convert.settings import MupSettings


def setting_findings(s: MupSettings, base: int, hidden: int) -> list[Finding]:
    """What each setting about muP becomes, with the place where it is written.

    Args:
        s: the settings.
        base: the base's width.
        hidden: the width.
    """
    meanings = _MEGATRON if s.megatron else _ZOO
    found = []
    for name, meaning in meanings.items():
        if name in s.values:
            key, line = s.places[name]
            becomes, why = meaning(s.values[name], base, hidden)
            value = "" if s.values[name] is True else f" {literal(s.values[name])}"
            found.append(Finding(s.source, line, f"{key}{value}", becomes, why))
    return found


def setting_notes(s: MupSettings, llama: bool) -> list[str]:
    """What a reader of the code should know.

    Args:
        s: the settings.
        llama: the code builds a Llama, else a GPT-2.
    """
    kind = "Llama" if llama else "GPT-2"
    where = "Megatron" if s.megatron else "the model zoo"
    notes = [
        f"{kind} of transformers stands for the model that the settings describe: for your own "
        "class, keep parametrize_ and param_groups and make build(width) return it",
        "lr and eps are those tuned at the base",
    ]
    if s.megatron and "base_head" not in s.values:
        notes.append(
            "without --mup-base-head-dim Megatron's attention is 1/d_head at the base, too; paramz "
            "keeps the base's 1/sqrt(d_head)"
        )
    if llama:
        notes.append(
            f"{where} starts the ends of residual branches at std / sqrt(2 * layers); Llama of "
            "transformers does not"
        )
    return notes


def literal(value: Any) -> str:
    """A value as it is written in code."""
    return repr(value) if not isinstance(value, str) else value


# (value, base width, width) -> what the setting becomes, and what changes.
Meaning = Callable[[Any, int, int], tuple[str, str]]

_BOTH: Mapping[str, Meaning] = {
    "base": lambda x, base, hidden: (
        f"base_width={base}",
        f"every tensor has its own ratios then; the width's is {hidden / base:g}",
    ),
    "base_head": lambda x, base, hidden: (
        "",
        "the base model's own head size: its 1/sqrt(d_head) is the factor that both keep",
    ),
    "std": lambda x, base, hidden: (
        f"initializer_range={literal(x)}",
        "the std at the base; at other widths paramz multiplies it by width^-1/2 where it must",
    ),
    "decay": lambda x, base, hidden: (
        "decay='coupled'",
        "not scaled, as before, so that lr * weight_decay falls with width where lr does. Leave "
        "decay= out to keep that product constant",
    ),
}

_MEGATRON: Mapping[str, Meaning] = {
    "use": lambda x, base, hidden: (
        "'mup+completep'" if x == "depth_mup" else "'mup'",
        "residual branches times 1/depth, hidden lr as it is: CompleteP"
        if x == "depth_mup"
        else "the scheme",
    ),
    **_BOTH,
    "width_mult": lambda x, base, hidden: ("", "derived from the sizes by both"),
    "embedding_mult": lambda x, base, hidden: (
        f"multiply the embedding's output by {literal(x)} in forward",
        "a hyperparameter that transfers; 1 needs nothing",
    ),
    "output_mult": lambda x, base, hidden: (
        ""
        if float(x) == 1.0
        else f"multiply the logits by {float(x) * hidden / base:g} in forward",
        "1 means base/hidden to Megatron, which paramz folds into the readout's init and lr; any "
        "other number is the whole factor to Megatron, and to paramz a factor beside base/hidden",
    ),
    "attention_power": lambda x, base, hidden: (
        "",
        "1 is 1/d_head, as in muP and paramz; with 0.5 Megatron's attention is not muP's, while "
        "paramz's is",
    ),
    "base_layers": lambda x, base, hidden: (f"base depth {x}", "the number of blocks of the base"),
    "eps": lambda x, base, hidden: (
        f"eps={literal(x)}",
        "Megatron divides it by the ratio in width, for hidden matrices only; in paramz it "
        "follows the size of every tensor's gradient",
    ),
    "experts": lambda x, base, hidden: (
        "'mup+moe'",
        "to Megatron a router is a hidden matrix, and nothing scales with the number of experts",
    ),
}

_ZOO: Mapping[str, Meaning] = {
    **_BOTH,
    "base_ffn": lambda x, base, hidden: (
        "intermediate_size of the base",
        "the second ratio, for outputs of feed-forward blocks, comes from the shapes",
    ),
    "embedding_mult": _MEGATRON["embedding_mult"],
    "output_mult": lambda x, base, hidden: (
        f"multiply the logits by {literal(x)} in forward",
        "a hyperparameter that transfers; its base/hidden is folded into the readout",
    ),
    "attention_mult": lambda x, base, hidden: (
        f"multiply the attention logits by {literal(x)} at the base",
        "a hyperparameter that transfers; 1/d_head of a base of head size d differs from "
        "1/sqrt(d_head) by sqrt(d)",
    ),
    "by_d": lambda x, base, hidden: (
        "",
        "'mup' has 1/d_head where the size of a head grows, and the base's 1/sqrt(d_head) "
        "otherwise; the model zoo's factor is "
        + ("1/d_head at the base, too" if x else "1/sqrt(d_head) at every width, which is not muP"),
    ),
    "logits_by_d": lambda x, base, hidden: (
        "",
        "what 'mup' does"
        if x
        else "the model zoo multiplies logits by sqrt(base/hidden), and they grow in training; "
        "'mup' uses base/hidden",
    ),
    "groups": lambda x, base, hidden: (
        "",
        "no name patterns are needed: roles are found from the shapes of two widths",
    ),
    "width_mult": lambda x, base, hidden: ("", "base / hidden: derived from the sizes"),
}
