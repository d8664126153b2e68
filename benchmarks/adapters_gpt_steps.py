"""How far steps of adapters move a GPT over their rank, under `lora` and `rslora`.

`python benchmarks/adapters_gpt_steps.py`: three minutes of one core, writes
results/adapters_gpt_steps.csv and prints slopes over the rank.

`rslora` takes entries of B's steps for noise, so that what a step does adds up as rank^1/2, and
`lora` for parts that agree, so that it adds up as rank. Here both are measured, on the trained GPT
of `adapters_gpt.py`, adapted by AdamW at 2^-7 to batches that are new at every step, one seed:
root mean squares over text that was in none of them, of what B puts out, of what its last step
changed there, and of how far the logits are from the start's. A slope of 0 is what a scheme wants.
A first form, with the same batch at every step as a coordinate check has it, had been run before.
"""

from __future__ import annotations

import sys

import adapters_gpt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

import paramz

KIND, LR, MARKS, RANKS = "LoRA, random A", 2**-7, (1, 3, 10, 30, 100, 300), (2, 4, 8, 16, 32, 64)
SIZES = ["output of B", "last step of B", "logits"]


def look(model: torch.nn.Module, x: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """What goes into each B, by its name, and the logits."""
    found: dict[str, torch.Tensor] = {}
    paths = {m: path.replace("lora_A", "lora_B") for path, m in model.named_modules()}
    hooks = [
        module.register_forward_hook(lambda m, _, out: found.update({f"{paths[m]}.weight": out}))
        for path, module in model.named_modules()
        if path.endswith("lora_A.default")
    ]
    with torch.no_grad():
        logits = model(x)
    for hook in hooks:
        hook.remove()
    return found, logits


def size(x: torch.Tensor) -> float:
    return float(x.square().mean().sqrt())


def moved(plain: torch.nn.Module, policy: str, rank: int, unseen: torch.Tensor) -> list[tuple]:
    """A row for each of some steps."""
    model = adapters_gpt.adapted(plain, KIND, rank, 0)
    plan = paramz.parametrize_(model, policy, base=adapters_gpt.adapted(plain, KIND, 8, 0))
    groups = plan.param_groups(model, "adamw", lr=LR, weight_decay=0.0)
    optimizer, held = torch.optim.AdamW(groups, weight_decay=0.0), dict(model.named_parameters())
    rows, start = [], look(model, unseen)[1]
    for step in range(1, max(MARKS) + 1):
        x, y = adapters_gpt.batch(0, step, second=True, size=8)
        optimizer.zero_grad()
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        before = {name: p.detach().clone() for name, p in held.items() if "lora_B" in name}
        optimizer.step()
        if step in MARKS:
            ins, logits = look(model, unseen)
            now = {name: held[name].detach() for name in ins}
            whole = np.mean([size(h @ now[name].T) for name, h in ins.items()])
            last = np.mean([size(h @ (now[name] - before[name]).T) for name, h in ins.items()])
            rows.append((policy, rank, step, whole, last, size(logits - start)))
    return rows


def main() -> None:
    torch.set_num_threads(1)
    plain = adapters_gpt.trained(0)
    unseen = torch.cat([adapters_gpt.batch(99, i, second=True, size=8)[0] for i in range(4)])
    rows = []
    for policy in ("rslora", "lora"):
        for rank in RANKS:
            rows += moved(plain, policy, rank, unseen)
            print(policy, rank, file=sys.stderr, flush=True)
    frame = pd.DataFrame(rows, columns=["policy", "rank", "step", *SIZES]).round(5)
    frame.to_csv(adapters_gpt.RESULT.with_name("adapters_gpt_steps.csv"), index=False)
    for (policy, step), one in frame.groupby(["policy", "step"], sort=False):
        slopes = [np.polyfit(np.log(one["rank"]), np.log(one[what]), 1)[0] for what in SIZES]
        print(policy, step, *(f"{s:+.2f}" for s in slopes))


if __name__ == "__main__":
    main()
