"""Write paramz code for the muP settings of Megatron-LM and of Cerebras' model zoo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paramz.compat.convert.code import Finding
from paramz.compat.convert.meanings import literal, setting_findings, setting_notes
from paramz.compat.convert.settings import NAMES, MupSettings


@dataclass(frozen=True)
class _Sizes:
    """The sizes of the model that the settings describe.

    Attributes:
        hidden: its width.
        base: the base's width.
        layers: number of blocks.
        heads: number of heads.
        head: the size of a head.
        base_head: that at the base.
        base_heads: the number of heads at the base, where their size grows.
        apart: the heads together are wider or narrower than the model.
    """

    hidden: int
    base: int
    layers: int
    heads: int
    head: int
    base_head: int
    base_heads: int
    apart: bool

    @property
    def head_grows(self) -> bool:
        """Whether the size of a head grows with width, and not only their number."""
        return self.base_head != self.head


def config_code(settings: MupSettings) -> tuple[str, list[Finding], list[str]]:
    """Code for such a model, what each setting becomes, and notes.

    The code builds the model at any width and plans it.

    Raises:
        ValueError: a size is missing, or does not fit the others.
    """
    v, sizes = settings.values, _sizes(settings)
    llama = _on(settings.raw, "swiglu") or "swiglu" in str(settings.raw.get("nonlinearity", ""))
    depth = str(v.get("use")) == "depth_mup"
    base_layers = settings.number("base_layers") if "base_layers" in v else sizes.layers
    heads = f", heads={sizes.heads}" if sizes.base_heads != sizes.heads else ""
    of_base = [f"depth={base_layers}"] if depth else []
    of_base += [f"heads={sizes.base_heads}"] if sizes.base_heads != sizes.heads else []
    lines = [
        "import paramz",
        "import torch",
        f"from transformers import {'Llama' if llama else 'GPT2'}Config",
        f"from transformers import {'LlamaForCausalLM' if llama else 'GPT2LMHeadModel'}",
        "",
        "",
        f"def build(width, depth={sizes.layers}{heads}):",
        *_body(settings, sizes, llama),
        "",
        "",
        f"model = build({sizes.hidden})",
    ]
    scheme = "mup+completep" if depth else "mup"
    if of_base:
        lines += [
            f"plan = paramz.parametrize_(model, {scheme!r}, base_width={sizes.base},",
            f"                           base=lambda width: build(width, {', '.join(of_base)}))",
        ]
    else:
        lines += [f"plan = paramz.parametrize_(model, 'mup', base=build, base_width={sizes.base})"]
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
        setting_findings(settings, sizes.base, sizes.hidden),
        [*setting_notes(settings, llama), *_notes(settings, sizes, llama)],
    )


def _notes(settings: MupSettings, sizes: _Sizes, llama: bool) -> list[str]:
    notes = []
    if "lr" not in settings.values:
        notes.append(f"{settings.source} says no learning rate that can be read: set lr")
    if sizes.apart and not llama:
        notes.append(
            f"GPT-2 of transformers has heads of n_embd / n_head = {sizes.hidden // sizes.heads}, "
            f"not of {sizes.head}"
        )
    if "kv_heads" in settings.values and not llama:
        groups = settings.number("kv_heads")
        if groups != sizes.heads:
            notes.append(
                "GPT-2 of transformers has a head of keys and values for each of its "
                f"{sizes.heads} heads of queries, and not {groups}: take a class that shares them, "
                "such as Llama"
            )
    return notes


def _sizes(settings: MupSettings) -> _Sizes:
    v = settings.values
    hidden = settings.number("hidden")
    # Without a base Megatron's model is its own.
    base = (settings.number("base") if "base" in v else 0) or hidden
    layers, heads = settings.number("layers"), settings.number("heads")
    head = settings.number("head") if "head" in v else hidden // heads
    base_head = settings.number("base_head") if "base_head" in v else head
    head_grows = base_head != head
    apart = "head" in v and head * heads != hidden
    if apart and not head_grows and base * heads % hidden:
        raise ValueError(
            f"{settings.source}: {heads} heads at width {hidden} are no whole number at the base "
            f"width {base}"
        )
    if not apart and not head_grows and (base % head or hidden % head):
        raise ValueError(
            f"{settings.source}: heads of {head} do not divide the base width {base}. Say the size "
            f"of a head at the base with {NAMES['base_head'][0]}"
        )
    if head_grows and not apart and (not base_head or base % base_head):
        raise ValueError(
            f"{settings.source}: {NAMES['base_head'][0]}={base_head} does not divide the base "
            f"width {base}"
        )
    base_heads = base // base_head if head_grows and not apart else heads
    return _Sizes(hidden, base, layers, heads, head, base_head, base_heads, apart)


def _body(s: MupSettings, sizes: _Sizes, llama: bool) -> list[str]:
    """The factory: a Hugging Face config of the same sizes."""
    hidden, base = sizes.hidden, sizes.base
    ffn = 4 * hidden
    if "ffn" in s.values:
        ffn = s.number("ffn")
    elif s.megatron and llama:  # Megatron's arguments.py, for as many weights as without a gate
        ffn = int(4 * hidden * 2 / 3 / 64) * 64
    base_ffn = s.number("base_ffn") if "base_ffn" in s.values else ffn * base // hidden
    plain = base_ffn * hidden == ffn * base
    wide = f"width * {base_ffn} // {base}"
    wide = wide if plain else f"{ffn} if width == {hidden} else {wide}"
    count = f"width * {sizes.heads} // {hidden}" if sizes.apart else f"width // {sizes.head}"
    count = str(sizes.heads) if sizes.head_grows else count
    count = "heads" if sizes.base_heads != sizes.heads else count
    vocabulary = s.number("vocabulary") if "vocabulary" in s.values else 50304
    length = s.number("length") if "length" in s.values else 2048
    tied = "False" if _untied(s) else "True"
    if llama:
        keys = {
            "hidden_size": "width", "intermediate_size": wide, "num_hidden_layers": "depth",
            "num_attention_heads": count,
        }  # fmt: skip
        if sizes.apart:
            grown = f"width * {sizes.base_head} // {base}"
            if sizes.base_head * hidden != sizes.head * base:
                grown = f"{sizes.head} if width == {hidden} else {grown}"
            keys["head_dim"] = grown if sizes.head_grows else str(sizes.head)
        if "kv_heads" in s.values:
            groups = s.number("kv_heads")
            part = "heads" if count == "heads" else "width"
            part = f"max(1, {part} * {groups} // {sizes.heads if part == 'heads' else hidden})"
            keys["num_key_value_heads"] = str(groups) if count == str(sizes.heads) else part
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


def _untied(s: MupSettings) -> bool:
    if s.megatron:
        return _on(s.raw, "untie_embeddings_and_output_weights")
    shared = s.raw.get("share_embedding_weights", s.raw.get("tie_word_embeddings", True))
    return shared is False
