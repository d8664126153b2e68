"""Fused maps of which some rows stay: how what they make moves with width, planned in two ways.

python benchmarks/fused.py               # all models, ways and optimizers: three minutes
python benchmarks/fused.py Falcon        # those of a name

``slices`` is the plan as it is, ``whole`` one in which all rows are planned as those that grow.
Each model trains three steps at widths 64 to 512, three seeds. Writes benchmarks/results/fused.csv,
one row per model, way and optimizer (other rows stay): the mean slope over the seeds of log size
against log width, of the change after three steps of the rows that stay, of those that grow and of
what goes into the next layer; and the losses after these steps.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
import zoo_fixed  # noqa: E402
from zoo_hf import causal  # noqa: E402

import paramz  # noqa: E402
from paramz.check.labels import slices_shown  # noqa: E402
from paramz.check.run import default_loss  # noqa: E402

RESULTS = HERE / "results" / "fused.csv"
KEYS = ["model", "scheme", "way", "optimizer"]
WIDTHS, SEEDS, STEPS = (64, 128, 256, 512), (0, 1, 2), 3
# The model, the layer behind the fused one, and the roles of a plan of all rows as one.
MODELS: dict[str, tuple[Any, str, dict[str, str]]] = {
    "Falcon-7B": (zoo_fixed.falcon, "dense", {"query_key_value": "hidden"}),
    "GPT-BigCode": (
        zoo_fixed.bigcode, "attn.c_proj",
        {"c_attn[.]weight": "hidden", "c_attn[.]bias": "vector"},
    ),
    "Mamba 2": (zoo_fixed.mamba2, "out_proj", {"in_proj": "hidden", "conv1d": "vector"}),
}  # fmt: skip
# SGD is refused for slices; Muon takes the matrices without slices, and AdamW the rest.
ASKED = [
    ("sp", "slices", "adamw"), ("mup", "whole", "adamw"), ("mup", "slices", "adamw"),
    ("mup", "whole", "sgd"), ("mup", "whole", "muon"), ("mup", "slices", "muon"),
]  # fmt: skip
ADAMW, SGD, MUON = 2**-8, 2**-3, 2**-6


def optimizers(plan: paramz.Plan, model: torch.nn.Module, name: str) -> list[Any]:
    """Those that train the model."""
    if name == "muon":
        first, rest = plan.split_groups(model, muon={"lr": MUON}, adamw={"lr": ADAMW})
        return [torch.optim.Muon(first), torch.optim.AdamW(rest)]
    lr, kind = (SGD, torch.optim.SGD) if name == "sgd" else (ADAMW, torch.optim.AdamW)
    return [kind(plan.param_groups(model, name, lr=lr))]


def changes(
    name: str, scheme: str, way: str, optimizer: str, width: int, seed: int
) -> dict[str, float]:
    """The sizes of the changes of one model, and its loss."""
    build, behind, roles = MODELS[name]
    torch.manual_seed(seed)
    model = build(width)
    kept = slices_shown(paramz.make_plan(model, "mup", base=build, base_width=64))
    how = roles if way == "whole" else None
    plan = paramz.parametrize_(model, scheme, base=build, base_width=64, roles=how)
    seen: dict[tuple[str, str], torch.Tensor] = {}

    def watch(path: str, layer: torch.nn.Module) -> None:
        def fused(_: Any, inputs: Any, out: torch.Tensor) -> None:
            stays = torch.zeros(out.shape[-1], dtype=torch.bool)
            for _, _, spans in kept[path]:
                for start, stop in spans:
                    stays[start:stop] = True
            seen["stays", path], seen["grows", path] = out[..., stays], out[..., ~stays]

        def after(_: Any, inputs: Any, out: torch.Tensor) -> None:
            seen["next", path] = inputs[0]

        if path in kept:
            layer.register_forward_hook(fused)
        if path.endswith(behind):
            layer.register_forward_hook(after)

    for path, layer in model.named_modules():
        watch(path, layer)
    trained = optimizers(plan, model, optimizer)
    first: dict[tuple[str, str], torch.Tensor] = {}
    for step in range(STEPS + 1):
        loss = default_loss(model, causal())
        first = first or {key: x.detach().clone() for key, x in seen.items()}
        if step < STEPS:
            model.zero_grad()
            loss.backward()
            for each in trained:
                each.step()
    sizes = defaultdict(list)
    for key, x in seen.items():
        sizes[key[0]].append(float((x.detach() - first[key]).square().mean().sqrt()))
    return {"loss": float(loss), **{kind: float(np.mean(some)) for kind, some in sizes.items()}}


def measured(name: str, scheme: str, way: str, optimizer: str) -> dict[str, Any]:
    """The slopes of one model under one plan."""
    runs = [[changes(name, scheme, way, optimizer, w, s) for w in WIDTHS] for s in SEEDS]
    row: dict[str, Any] = dict(zip(KEYS, (name, scheme, way, optimizer), strict=True))
    for kind in ("stays", "grows", "next"):
        logs = np.log([[run[kind] for run in over] for over in runs])
        slopes = np.polyfit(np.log(WIDTHS), logs.T, 1)[0]
        row |= {kind: round(slopes.mean(), 2), f"{kind}_range": round(np.ptp(slopes), 2)}
    losses = np.mean([[run["loss"] for run in over] for over in runs], axis=0)
    return row | {f"loss_{w}": round(loss, 3) for w, loss in zip(WIDTHS, losses, strict=True)}


def keep(row: dict[str, Any]) -> None:
    """Put a row into the file in place of an older one of the same kind."""
    rows = pd.DataFrame([row])
    if RESULTS.exists():
        old = pd.read_csv(RESULTS)
        same = (old[KEYS] == rows[KEYS].iloc[0]).all(axis=1)
        rows = pd.concat([old[~same], rows])
    rows.sort_values(KEYS).to_csv(RESULTS, index=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for model in MODELS:
        if not sys.argv[1:] or any(part.lower() in model.lower() for part in sys.argv[1:]):
            for asked in ASKED:
                found = measured(model, *asked)
                keep(found)
                print(*found.values(), sep=" | ", flush=True)
