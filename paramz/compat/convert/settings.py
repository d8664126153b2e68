"""Read muP settings of Megatron-LM and of Cerebras' model zoo: flags of a script, YAML or JSON."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from paramz.sweeps.spec.textfile import read_text
from paramz.sweeps.spec.values import read_value

# The name of a setting in this package -> its names in Megatron, in the model zoo, and in Hugging
# Face configs that the zoo writes.
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
# Settings that only Megatron has.
_MEGATRON_ONLY = (
    "use_mup",
    "scaling_recipe",
    "mup_embedding_mult",
    "mup_attn_scale_power",
    "init_method_std",
)

# Flags without a value: what comes behind the last one is the rest of the command.
_SWITCHES = {"use_mup", "swiglu", "untie_embeddings_and_output_weights"}
_WORDS = {word: True for word in ("true", "yes", "on")} | dict.fromkeys(
    ("false", "no", "off"), False
)


@dataclass(frozen=True)
class MupSettings:
    """Settings under the names of `NAMES`, and where they were found.

    Attributes:
        source: the file, or how else they were given.
        megatron: they are Megatron's; else the model zoo's.
        values: name -> value.
        raw: all keys as they were written, for switches such as ``swiglu``.
        places: name -> (key as written, line); line 0 where there is no line.
    """

    source: str
    megatron: bool
    values: Mapping[str, Any]
    raw: Mapping[str, Any]
    places: Mapping[str, tuple[str, int]]

    def number(self, name: str) -> int:
        """A size.

        Raises:
            ValueError: it is missing or not a whole number; the message lists its names.
        """
        value = self.values.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or value % 1:
            word = NAMES[name][0]
            add = f"is missing: add --{word.replace('_', '-')} N to flags, or {word}: N to YAML"
            given = add if value is None else f"is {value!r}, not a whole number"
            raise ValueError(f"{self.source}: {' or '.join(NAMES[name])} {given}")
        return int(value)


def read_settings(text: str, source: str) -> MupSettings:
    """Settings from YAML, JSON, or command-line flags in a shell script.

    Variables that the script itself assigns (``H=1024``, ``${H:-1024}``) are filled in.

    Args:
        text: the settings as text.
        source: the name of the file, or how else they were given.

    Raises:
        ValueError: there is no setting about muP; the message says what was looked for.

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
    if not isinstance(values.get("lr", 0.0), int | float):
        # The zoo's schedules, and what comes to its optimizer of them: the peak.
        values.pop("lr")
    peaks = [*_rates(raw.get("learning_rate")), *_rates(raw.get("schedulers"))]
    if "lr" not in values and peaks:
        values["lr"] = max(peaks)
    megatron = any(key in raw for key in _MEGATRON_ONLY)
    if not {"base", "width_mult", "use"} & set(values):
        raise ValueError(
            f"{source} has no setting of muP: looked for {', '.join(NAMES['base'] + NAMES['use'])} "
            "among flags of a script or keys of YAML or JSON"
        )
    if "use" in values and values["use"] in (False, None, "none"):
        raise ValueError(f"{source} turns muP off, by {places['use'][0]}: nothing is to convert")
    if "base" not in values and "width_mult" in values and isinstance(values.get("hidden"), int):
        mult = float(values["width_mult"])
        values["base"] = round(values["hidden"] * (1 / mult if megatron else mult))
        places["base"] = places["width_mult"]
    return MupSettings(source, megatron, values, raw, places)


def read_file(path: Path) -> MupSettings:
    """The settings in a file.

    Raises:
        ValueError: as for `read_settings`.
    """
    return read_settings(read_text(path), path.name)


def _flags(text: str) -> dict[str, Any]:
    """Flags of a command line, with the script's own variables filled in."""
    variables: dict[str, str] = {}

    def fill(match: re.Match[str]) -> str:
        name, default = match.group(1) or match.group(3), match.group(2)
        return str(variables.get(name, default if default is not None else match.group(0)))

    variable = r"\$\{(\w+)(?::-([^}]*))?\}|\$(\w+)"
    assigned = r"^\s*(?:export\s+)?(\w+)=[\"']?([^\s\"'()]+)"
    for name, value in re.findall(assigned, text, re.MULTILINE):
        if "$" not in (filled := re.sub(variable, fill, value)):  # as in H=${H:-1024}
            variables[name] = filled
    text = re.sub(variable, fill, text)
    found: dict[str, Any] = {}
    words = [word.strip("()\\") for line in text.splitlines() for word in _words(line)]
    words = [part for before, word in pairwise(["", *words]) for part in _parts(before, word)]
    for word, after in zip(words, [*words[1:], "--"], strict=True):
        if re.match(r"--[a-z]", word):
            key, equals, value = word[2:].partition("=")
            key = key.replace("-", "_")
            alone = after.startswith("--") or not after
            alone = alone or (key in _SWITCHES and after.lower() not in _WORDS)
            found[key] = _value(value if equals else "true" if alone else after)
    return found


def _words(line: str) -> list[str]:
    line = line.rstrip().removesuffix("\\")
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a quote that closes on another line
        line = re.sub(r"(^|\s)#.*", "", line)
        return re.sub("[\"']", "", line).split()


def _parts(before: str, word: str) -> list[str]:
    """A word, or the words of one that holds several flags in quotes: ``ARGS="--a 1 --b"``."""
    word = re.sub(r"^\w+\+?=(?=\s*--[a-z])", "", word)
    of_flag = re.match(r"--[a-z][^=]*$", before) and not re.search(r"\s", before)
    if of_flag or not re.search(r"(^|\s)--[a-z]\S*(\s|$)", word):
        return [word]
    return word.split()


def _document(text: str, source: str) -> dict[str, Any]:
    """The values in nested YAML or JSON by their own key, without the keys around it."""
    try:
        data = json.loads(text) if source.endswith(".json") else read_value(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} is not valid YAML or JSON: {error}") from None
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

    try:
        walk(data)
    except RecursionError:
        raise ValueError(f"{source} is nested too deeply") from None
    return found


def _rates(schedules: Any) -> Iterator[float]:
    """The learning rates in a list of schedules, such as ``{"initial_learning_rate": 0.01}``."""
    if isinstance(schedules, list):
        for part in schedules:
            yield from _rates(part)
    elif isinstance(schedules, Mapping):
        for key, part in schedules.items():
            rate = _value(part) if str(key).endswith("learning_rate") else None
            if isinstance(rate, int | float) and not isinstance(rate, bool):
                yield float(rate)
            else:
                yield from _rates(part)


def _value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            number = kind(value)
            return number if math.isfinite(number) else value
        except (ValueError, OverflowError):
            continue
    return _WORDS.get(value.lower(), value)


def _line(text: str, key: str) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(rf"(?<![\w-]){re.escape(key)}(?![\w-])", line):
            return number
    return 0
