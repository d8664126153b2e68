"""muP settings of Megatron-LM and of Cerebras' model zoo as paramz code that builds and plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paramz.compat.convert.code import Finding
from paramz.compat.convert.meanings import literal, setting_findings, setting_notes
from paramz.compat.convert.settings import NAMES, Settings


def config_code(settings: Settings) -> tuple[str, list[Finding], list[str]]:
    """Code that builds such a model at any width and plans it, what became of each setting, notes.

    Raises:
        ValueError: a size is missing, or does not fit the others.
    """
    v = settings.values
    hidden, base = settings.number("hidden"), settings.number("base") if "base" in v else 0
    if not base:
        base = hidden  # Megatron: the model is its own base
    layers, heads = settings.number("layers"), settings.number("heads")
    head = settings.number("head") if "head" in v else hidden // heads
    base_head = settings.number("base_head") if "base_head" in v else None
    grows = base_head is not None and base_head != head  # the size of a head, not their number
    if not grows and (base % head or hidden % head):
        raise ValueError(
            f"{settings.source}: heads of {head} do not divide the base width {base}. Say the size "
            f"of a head at the base with {NAMES['base_head'][0]}"
        )
    llama = _on(settings.raw, "swiglu") or "swiglu" in str(settings.raw.get("nonlinearity", ""))
    depth = str(v.get("use")) == "depth_mup"
    base_layers = settings.number("base_layers") if "base_layers" in v else layers
    lines = [
        "import paramz",
        "import torch",
        f"from transformers import {'Llama' if llama else 'GPT2'}Config",
        f"from transformers import {'LlamaForCausalLM' if llama else 'GPT2LMHeadModel'}",
        "",
        "",
        f"def build(width, depth={layers}):",
        *_body(settings, llama, hidden, base, heads, head, grows),
        "",
        "",
        f"model = build({hidden})",
    ]
    if depth:
        lines += [
            f"plan = paramz.parametrize_(model, 'mup+completep', base_width={base},",
            f"                           base=lambda width: build(width, depth={base_layers}))",
        ]
    else:
        lines += [f"plan = paramz.parametrize_(model, 'mup', base=build, base_width={base})"]
    options = [
        f"{name}={literal(v[key])}"
        for name, key in (("lr", "lr"), ("weight_decay", "decay"), ("eps", "eps"))
        if key in v
    ]
    if "lr" not in v:
        options.insert(0, "lr=2**-8")
    options += ["decay='coupled'", "no_decay=('vector', 'scalar')"]
    lines += [
        "groups = plan.param_groups(",
        "    model, 'adamw',",
        *[f"    {option}," for option in options],
        ")",
        "optimizer = torch.optim.AdamW(groups)",
    ]
    return (
        "\n".join(lines) + "\n",
        setting_findings(settings, base, hidden),
        setting_notes(settings, llama),
    )


def _body(
    s: Settings, llama: bool, hidden: int, base: int, heads: int, head: int, grows: bool
) -> list[str]:
    """The factory: a Hugging Face config of the same sizes."""
    ffn = s.number("ffn") if "ffn" in s.values else 4 * hidden
    base_ffn = s.number("base_ffn") if "base_ffn" in s.values else ffn * base // hidden
    plain = base_ffn * hidden == ffn * base
    wide = f"width * {base_ffn} // {base}"
    wide = wide if plain else f"{ffn} if width == {hidden} else {wide}"
    count = str(heads) if grows else f"width // {head}"
    vocabulary = s.number("vocabulary") if "vocabulary" in s.values else 50304
    length = s.number("length") if "length" in s.values else 2048
    tied = "False" if _untied(s) else "True"
    if llama:
        keys = {
            "hidden_size": "width", "intermediate_size": wide, "num_hidden_layers": "depth",
            "num_attention_heads": count,
        }  # fmt: skip
        if "kv_heads" in s.values:
            groups = s.number("kv_heads")
            keys["num_key_value_heads"] = (
                str(groups) if grows else f"max(1, width * {groups} // {hidden})"
            )
        keys["max_position_embeddings"] = str(length)
    else:
        keys = {
            "n_embd": "width", "n_inner": wide, "n_layer": "depth", "n_head": count,
            "n_positions": str(length),
        }  # fmt: skip
    keys["vocab_size"] = str(vocabulary)
    keys["tie_word_embeddings"] = tied
    keys["initializer_range"] = literal(s.values.get("std", 0.02))
    kind = "Llama" if llama else "GPT2"
    model = "LlamaForCausalLM" if llama else "GPT2LMHeadModel"
    return [
        f"    config = {kind}Config(",
        *[f"        {key}={value}," for key, value in keys.items()],
        "    )",
        f"    return {model}(config)",
    ]


def _on(raw: Mapping[str, Any], key: str) -> bool:
    return raw.get(key) is True


def _untied(s: Settings) -> bool:
    if s.megatron:
        return _on(s.raw, "untie_embeddings_and_output_weights")
    shared = s.raw.get("share_embedding_weights", s.raw.get("tie_word_embeddings", True))
    return shared is False
