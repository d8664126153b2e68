"""Coordinate checks of models whose number of key-value heads stays, from width 64 and from 128 on.

python benchmarks/fixed_heads.py [parts of names]

The first eight models are those on which the second run from zero (`paramz.check.zeroed`) was
found; the others were not looked at before it was finished. Each is checked with its right plan and
with one fault planted at a time. Writes benchmarks/results/fixed_heads.csv, of which
docs/coordinate_check.md tells.
"""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers as hf
from _kept import keep
from torch import nn

import paramz
from paramz.theory.power import Power
from paramz.theory.printed import HALF, IN, OUT

RESULTS = Path(__file__).parent / "results" / "fixed_heads.csv"
KEYS = ["model", "first", "plan"]


@dataclass(frozen=True)
class Model:
    """A decoder of transformers.

    Attributes:
        kind: what its classes' names begin with.
        heads: key-value heads.
        size: of a head.
        wide: feed-forward size over width.
        words: size of the vocabulary.
        layers: number of blocks.
        tied: the readout is the embedding.
        rows, length: of the batch.
        same: inputs are the labels, too.
        known: it was looked at while the second run was made.
        more: further fields of its config.
    """

    kind: str
    heads: int
    size: int
    wide: float
    words: int
    layers: int
    tied: bool
    rows: int
    length: int
    same: bool
    known: bool = False
    more: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}, {self.heads} heads of {self.size}, {self.layers} blocks"

    def build(self, width: int) -> nn.Module:
        """The model of a width."""
        sizes = {
            "hidden_size": width, "intermediate_size": int(self.wide * width),
            "num_hidden_layers": self.layers, "num_attention_heads": width // self.size,
            "num_key_value_heads": self.heads, "vocab_size": self.words, "pad_token_id": 0,
            "tie_word_embeddings": self.tied, **dict(self.more),
        }  # fmt: skip
        if self.kind in ("Qwen3", "Gemma", "Mistral"):
            sizes["head_dim"] = self.size
        config = getattr(hf, f"{self.kind}Config")(**sizes)
        return getattr(hf, f"{self.kind}ForCausalLM")(config)

    def batch(self) -> dict[str, torch.Tensor]:
        """Tokens drawn at random, and labels."""
        draw = torch.Generator().manual_seed(1)
        shape = (self.rows, self.length)
        ids = torch.randint(4, self.words, shape, generator=draw)
        labels = ids if self.same else torch.randint(4, self.words, shape, generator=draw)
        return {"input_ids": ids, "labels": labels}


MODELS = (
    Model("Llama", 2, 16, 2, 40, 2, False, 4, 8, False, True),
    Model("Llama", 1, 16, 4, 64, 2, False, 8, 32, True, True),
    Model("Llama", 4, 16, 2, 256, 2, False, 8, 16, False, True),
    Model("Llama", 2, 32, 4, 64, 3, True, 8, 32, True, True),
    Model("Llama", 2, 16, 2, 40, 4, False, 8, 16, True, True),
    Model("Qwen3", 2, 16, 2, 64, 2, False, 8, 32, True, True),
    Model("Qwen3", 2, 32, 4, 256, 2, True, 4, 16, False, True),
    Model("Llama", 1, 32, 4, 128, 2, False, 16, 32, False, True),
    Model("Mistral", 2, 16, 3.5, 100, 2, False, 8, 16, True),
    Model("Gemma", 1, 16, 4, 64, 3, True, 4, 16, False),
    Model("Qwen2", 2, 16, 2, 128, 2, True, 8, 16, True),
    Model("Granite", 4, 16, 2, 64, 2, False, 8, 8, False),
    Model("Starcoder2", 1, 16, 4, 64, 2, True, 8, 16, False),
    Model("Olmo2", 2, 16, 2, 64, 2, False, 8, 16, True),
    Model("StableLm", 2, 32, 2, 96, 2, False, 8, 16, True),
    Model(
        "Phi3", 2, 16, 2, 64, 2, False, 4, 16, True, more=(("bos_token_id", 1), ("eos_token_id", 2))
    ),
)


def planted(role: str, **powers: Power) -> paramz.Parametrization:
    """The table of muP with another power in some fields of a role's rules."""
    rules = dict(paramz.MUP.rules)
    for (column, own), rule in paramz.MUP.rules.items():
        if own == role:
            rules[column, own] = replace(
                rule, **{name: getattr(rule, name) * power for name, power in powers.items()}
            )
    return replace(paramz.MUP, rules=rules)


PLANS = {
    "mup": paramz.MUP,
    "lr of maps into the fixed size times m^-1/2": planted("inward", lr=IN**-HALF),
    "lr of maps into the fixed size times m^1/2": planted("inward", lr=IN**HALF),
    "hidden lr times m^-1/2": planted("hidden", lr=IN**-HALF),
    "hidden lr times m^1/2": planted("hidden", lr=IN**HALF),
    "embedding lr times 1/m": planted("input", lr=1 / OUT),
}


def checked(model: Model, first: int, plan: str) -> dict[str, Any]:
    """The outcome of one check at the defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = paramz.coord_check(
            model.build, model.batch(), widths=[first * 2**k for k in range(4)],
            parametrization=PLANS[plan],
        )  # fmt: skip
        verdict = paramz.judge(table)
    return {
        "model": str(model), "first": first, "plan": plan, "known": model.known,
        "outcome": verdict.outcome, "culprit": verdict.culprit or "",
    }  # fmt: skip


def main(wanted: list[str]) -> None:
    """All models whose names have one of the wanted parts, the right plans first."""
    torch.set_num_threads(1)
    for plan in PLANS:
        for model in MODELS:
            if wanted and not any(part in str(model) for part in wanted):
                continue
            if "fixed size" in plan and model.kind == "Phi3":
                continue  # its map is fused, and two rates in one tensor are refused
            for first in (64, 128):
                row = checked(model, first, plan)
                keep(row, RESULTS, KEYS)
                print(*row.values(), sep=" | ", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
