"""muP settings of Megatron-LM and of Cerebras' model zoo, as paramz code that builds and plans.

Facts about Megatron-LM: core/transformer/transformer_config.py and core/optimizer/__init__.py, main
of August 2026; about the model zoo: gpt2_model.py of March 2026. Both have muP for width with Adam:
hidden matrices std / sqrt(m) and lr / m, logits / m, everything else as it is, weight decay never
scaled. Megatron has one m = hidden / base for all tensors and divides epsilon of matrices by it;
the zoo has a second m for feed-forward outputs. In paramz every tensor has the ratios of its shape.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramz.conversion.code import Finding

# What a setting is called here -> in Megatron, and in the zoo and Hugging Face configs made by it.
NAMES: Mapping[str, tuple[str, ...]] = {
    "hidden": ("hidden_size", "n_embd"),
    "ffn": ("ffn_hidden_size", "filter_size", "n_inner", "intermediate_size"),
    "layers": ("num_layers", "num_hidden_layers", "n_layer"),
    "heads": ("num_attention_heads", "num_heads", "n_head"),
    "kv_heads": ("num_query_groups", "num_kv_groups", "num_key_value_heads"),
    "head": ("kv_channels", "head_dim"),
    "vocabulary": ("padded_vocab_size", "vocab_size"),
    "length": ("max_position_embeddings", "n_positions", "seq_length"),
    "std": ("init_method_std", "initializer_range"),
    "lr": ("lr", "learning_rate"),
    "decay": ("weight_decay",),
    "eps": ("adam_eps", "eps"),
    "base": ("mup_base_hidden_size", "scaling_base_hidden_size"),
    "base_ffn": ("mup_base_filter_size",),
    "base_head": ("mup_base_head_dim", "scaling_base_head_dim"),
    "base_layers": ("scaling_base_num_layers",),
    "embedding_mult": ("mup_embedding_mult", "embeddings_scale", "mup_embeddings_scale"),
    "output_mult": ("mup_output_mult", "output_logits_alpha", "mup_output_alpha"),
    "attention_mult": ("attention_logits_alpha",),
    "attention_power": ("mup_attn_scale_power",),
    "by_d": ("scale_qk_dot_by_d", "mup_scale_qk_dot_by_d"),
    "logits_by_d": ("scale_output_logits_by_d",),
    "groups": ("lr_adjustment_groups",),
    "width_mult": ("mup_width_mult", "mup_width_scale"),
    "use": ("use_mup", "scaling_recipe"),
    "experts": ("num_experts",),
}
_MEGATRON = (
    "use_mup",
    "scaling_recipe",
    "mup_embedding_mult",
    "mup_attn_scale_power",
    "init_method_std",
)


@dataclass(frozen=True)
class Settings:
    """Settings that were found, under the names of `NAMES`, and where.

    Attributes:
        source: the file, or how else they were given.
        megatron: Megatron's, else the zoo's.
        values: name -> value.
        raw: all keys as they were written, for switches such as ``swiglu``.
        places: name -> (key as written, line or 0).
    """

    source: str
    megatron: bool
    values: Mapping[str, Any]
    raw: Mapping[str, Any]
    places: Mapping[str, tuple[str, int]]

    def number(self, name: str) -> int:
        """A size.

        Raises:
            ValueError: it is missing or no whole number; the message lists its names.
        """
        value = self.values.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or value != int(value):
            given = "is missing" if value is None else f"is {value!r}, no whole number"
            raise ValueError(f"{self.source}: {' or '.join(NAMES[name])} {given}")
        return int(value)


def read_settings(text: str, source: str) -> Settings:
    """Settings from YAML, JSON, or command-line flags in a shell script.

    Variables of the script that it assigns itself (``H=1024``, ``${H:-1024}``) are followed.

    Raises:
        ValueError: nothing about muP is in it; the message says what was looked for.

    >>> read_settings("--use-mup --hidden-size 1024 --mup-base-hidden-size 256", "x").values["base"]
    256
    """
    raw = _flags(text) if "--" in text and not source.endswith((".yaml", ".yml", ".json")) else {}
    raw = raw or _document(text, source)
    values, places = {}, {}
    for name, keys in NAMES.items():
        for key in keys:
            if key in raw:
                values[name] = raw[key]
                written = (
                    f"--{key.replace('_', '-')}" if f"--{key.replace('_', '-')}" in text else key
                )
                places[name] = (written, _line(text, written))
                break
    megatron = any(key in raw for key in _MEGATRON)
    if not {"base", "width_mult", "use"} & set(values):
        raise ValueError(
            f"{source} says nothing of muP: looked for {', '.join(NAMES['base'] + NAMES['use'])} "
            "among flags of a script or keys of YAML or JSON"
        )
    if "base" not in values and "width_mult" in values and isinstance(values.get("hidden"), int):
        mult = float(values["width_mult"])
        values["base"] = round(values["hidden"] * (1 / mult if megatron else mult))
        places["base"] = places["width_mult"]
    return Settings(source, megatron, values, raw, places)


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
        f"{name}={_literal(v[key])}"
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
    return "\n".join(lines) + "\n", _findings(settings, base, hidden), _notes(settings, llama)


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
    keys["initializer_range"] = _literal(s.values.get("std", 0.02))
    kind = "Llama" if llama else "GPT2"
    model = "LlamaForCausalLM" if llama else "GPT2LMHeadModel"
    return [
        f"    config = {kind}Config(",
        *[f"        {key}={value}," for key, value in keys.items()],
        "    )",
        f"    return {model}(config)",
    ]


def _findings(s: Settings, base: int, hidden: int) -> list[Finding]:
    """What became of each setting about muP, where it is written."""
    told = _MEGATRON_SAYS if s.megatron else _ZOO_SAYS
    found = []
    for name, says in told.items():
        if name in s.values:
            key, line = s.places[name]
            becomes, why = says(s.values[name], base, hidden)
            value = "" if s.values[name] is True else f" {_literal(s.values[name])}"
            found.append(Finding(s.source, line, f"{key}{value}", becomes, why))
    return found


Says = Callable[[Any, int, int], tuple[str, str]]

_BOTH: Mapping[str, Says] = {
    "base": lambda x, base, hidden: (
        f"base_width={base}",
        f"every tensor has its own ratios then; the width's is {hidden / base:g}",
    ),
    "base_head": lambda x, base, hidden: (
        "",
        "the base model's own head size: its 1/sqrt(d_head) is the factor that both keep",
    ),
    "std": lambda x, base, hidden: (
        f"initializer_range={_literal(x)}",
        "the std at the base; at other widths paramz multiplies it by width^-1/2 where it must",
    ),
    "decay": lambda x, base, hidden: (
        "decay='coupled'",
        "as there: not scaled, so that lr * weight_decay falls with width where lr does. Leave "
        "decay= out to keep it constant",
    ),
}

_MEGATRON_SAYS: Mapping[str, Says] = {
    "use": lambda x, base, hidden: (
        "'mup+completep'" if x == "depth_mup" else "'mup'",
        "residual branches times 1/depth, hidden lr as it is: CompleteP"
        if x == "depth_mup"
        else "the scheme",
    ),
    **_BOTH,
    "width_mult": lambda x, base, hidden: ("", "derived from the sizes, there and here"),
    "embedding_mult": lambda x, base, hidden: (
        f"multiply the embedding's output by {_literal(x)} in forward",
        "a hyperparameter that transfers; 1 needs nothing",
    ),
    "output_mult": lambda x, base, hidden: (
        ""
        if float(x) == 1.0
        else f"multiply the logits by {float(x) * hidden / base:g} in forward",
        "1 means base/hidden there, which paramz folds into the readout's init and lr; another "
        "number is the whole factor there, and here the one beside base/hidden",
    ),
    "attention_power": lambda x, base, hidden: (
        "",
        "1 is 1/d_head, muP's and paramz's; with 0.5 attention is not muP's there, and here it is",
    ),
    "base_layers": lambda x, base, hidden: (f"base depth {x}", "the number of blocks of the base"),
    "eps": lambda x, base, hidden: (
        f"eps={_literal(x)}",
        "there divided by the width's ratio for hidden matrices only, here for every tensor by "
        "the size of its gradient",
    ),
    "experts": lambda x, base, hidden: (
        "'mup+moe'",
        "there a router is a hidden matrix and nothing scales with the number of experts",
    ),
}

_ZOO_SAYS: Mapping[str, Says] = {
    **_BOTH,
    "base_ffn": lambda x, base, hidden: (
        "intermediate_size of the base",
        "the second ratio, for outputs of feed-forward blocks, comes from the shapes",
    ),
    "embedding_mult": _MEGATRON_SAYS["embedding_mult"],
    "output_mult": lambda x, base, hidden: (
        f"multiply the logits by {_literal(x)} in forward",
        "a hyperparameter that transfers; its base/hidden is folded into the readout",
    ),
    "attention_mult": lambda x, base, hidden: (
        f"multiply the attention logits by {_literal(x)} at the base",
        "a hyperparameter that transfers; 1/d_head of a base of head size d differs from "
        "1/sqrt(d_head) by sqrt(d)",
    ),
    "by_d": lambda x, base, hidden: (
        "",
        "'mup' has 1/d_head where the size of a head grows, and the base's 1/sqrt(d_head) else; "
        + ("there it is 1/d_head at the base, too" if x else "there it is never muP's"),
    ),
    "logits_by_d": lambda x, base, hidden: (
        "",
        "what 'mup' does"
        if x
        else "logits times sqrt(base/hidden) there, which grow in training; 'mup' uses base/hidden",
    ),
    "groups": lambda x, base, hidden: (
        "",
        "no name patterns are needed: roles are found from the shapes of two widths",
    ),
    "width_mult": lambda x, base, hidden: ("", "base / hidden: derived from the sizes"),
}


def _notes(s: Settings, llama: bool) -> list[str]:
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


def _flags(text: str) -> dict[str, Any]:
    """Flags of a command line, with the script's own variables filled in."""
    variables = dict(
        re.findall(r"^\s*(?:export\s+)?(\w+)=[\"']?([^\s\"'$()]+)", text, re.MULTILINE)
    )

    def fill(match: re.Match[str]) -> str:
        name, default = match.group(1) or match.group(3), match.group(2)
        return str(variables.get(name, default if default is not None else match.group(0)))

    text = re.sub(r"\$\{(\w+)(?::-([^}]*))?\}|\$(\w+)", fill, text)
    found: dict[str, Any] = {}
    words = [word.strip("()\\") for line in text.splitlines() for word in _words(line)]
    for word, after in zip(words, [*words[1:], "--"], strict=True):
        if re.match(r"--[a-z]", word):
            key, equals, value = word[2:].partition("=")
            value = value if equals else "true" if after.startswith("--") or not after else after
            found[key.replace("-", "_")] = _value(value)
    return found


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a quote that closes on another line
        return line.split()


def _document(text: str, source: str) -> dict[str, Any]:
    """Keys of nested YAML or JSON, by their last part."""
    import yaml

    try:
        data = json.loads(text) if source.endswith(".json") else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{source} is no YAML or JSON: {error}") from None
    found: dict[str, Any] = {}

    def walk(part: Any) -> None:
        if isinstance(part, Mapping):
            for key, value in part.items():
                if not isinstance(value, Mapping) or key in NAMES["groups"]:
                    found.setdefault(str(key).replace("-", "_"), _value(value))
                else:
                    walk(value)
        elif isinstance(part, list):
            for item in part:
                walk(item)

    walk(data)
    return found


def _value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(value.lower(), value)


def _literal(value: Any) -> str:
    return repr(value) if not isinstance(value, str) else value


def _on(raw: Mapping[str, Any], key: str) -> bool:
    return raw.get(key) is True


def _untied(s: Settings) -> bool:
    if s.megatron:
        return _on(s.raw, "untie_embeddings_and_output_weights")
    shared = s.raw.get("share_embedding_weights", s.raw.get("tie_word_embeddings", True))
    return shared is False


def _line(text: str, key: str) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(rf"(?<![\w-]){re.escape(key)}(?![\w-])", line):
            return number
    return 0


def read_file(path: Path) -> Settings:
    """As `read_settings`, of a file.

    Raises:
        ValueError: as there.
    """
    return read_settings(path.read_text(encoding="utf-8"), path.name)
