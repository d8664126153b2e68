"""The best learning rate over rank of PEFT's other kinds: under `lora`, and without a rule.

The task, the network and the fit are those of `adapters.py`. PEFT draws the tensors and the plan
gives their learning rates; all learning rates and seeds then train side by side, so what each kind
computes is written out here. `python benchmarks/adapters_kinds.py [KIND ...]`: about a minute for
each kind on one core, adds to results/adapters_kinds.csv.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import peft
import torch
import torch.nn.functional as F
from adapters import BASE, SEEDS, WIDTH, optimum, pretrained, side_by_side
from torch import nn

import paramz

RANKS = (2, 4, 8, 16, 32, 64)
RESULT = Path(__file__).parent / "results" / "adapters_kinds.csv"


def adalora(z, p, r, s):
    return (z @ p["lora_A"].mT * p["lora_E"].mT) @ p["lora_B"].mT * s


def loha(z, p, r, s):
    one, two = p["hada_w1_a"] @ p["hada_w1_b"], p["hada_w2_a"] @ p["hada_w2_b"]
    return z @ (one * two).mT * s


def lokr(z, p, r, s):
    one = p["lokr_w1"]
    two = p["lokr_w2"] if "lokr_w2" in p else p["lokr_w2_a"] @ p["lokr_w2_b"]
    whole = torch.einsum("nij,nkl->nikjl", one, two).reshape(len(z), WIDTH, WIDTH)
    return z @ whole.mT * s


def vblora(z, p, r, s):
    bank = p["vblora_vector_bank"]

    def mixed(logits):
        top, which = logits.topk(2, -1)
        chosen = bank[torch.arange(len(bank)).view(-1, 1, 1, 1), which]
        return (top.softmax(-1)[..., None] * chosen).sum(-2)

    down = mixed(p["vblora_logits_A"]).flatten(-2)
    up = mixed(p["vblora_logits_B"]).transpose(1, 2).flatten(-2).mT
    return z @ down.mT @ up.mT


def rotated(z, skew):
    size = skew.shape[-1]
    one = torch.eye(size)
    turn = torch.linalg.solve(one + skew, one - skew, left=False)
    parts = z.unflatten(-1, (-1, size))
    return torch.einsum("nbrk,nrkc->nbrc", parts, turn.expand(-1, parts.shape[2], -1, -1)).flatten(
        2
    )


def oft(z, p, r, s):
    rows, columns = torch.triu_indices(r, r, 1)
    vector = p["oft_R"]
    skew = torch.zeros(*vector.shape[:-1], r, r)
    skew[..., rows, columns] = vector
    return rotated(z, skew - skew.mT)


def miss(z, p, r, s):
    return z.unflatten(-1, (-1, r)).sum(-2) @ p["miss_block"]


def vera(z, p, r, s):
    inner = z @ p["vera_A"][:, :r, :WIDTH].mT * p["vera_lambda_d"][:, None]
    return inner @ p["vera_B"][:, :WIDTH, :r].mT * p["vera_lambda_b"][:, None]


# Name -> config at a rank, what it computes, whether that takes the place of the layer's input,
# and the grid of log2 lr.
KINDS = {
    "AdaLoRA": (lambda r: peft.AdaLoraConfig(init_r=r, target_r=r, lora_alpha=8, total_step=999),
                adalora, False, (-11, 0)),
    "AdaLoRA, s = 1": (lambda r: peft.AdaLoraConfig(init_r=r, target_r=r, lora_alpha=r,
                                                    total_step=999), adalora, False, (-11, 0)),
    "LoHa, s = 1": (lambda r: peft.LoHaConfig(r=r, alpha=r), loha, False, (-12, -2)),
    "LoHa": (lambda r: peft.LoHaConfig(r=r, alpha=8), loha, False, (-10, 0)),
    "LoKr": (lambda r: peft.LoKrConfig(r=r, alpha=8, decompose_factor=2), lokr, False, (-11, 0)),
    "LoKr lycoris": (lambda r: peft.LoKrConfig(r=r, alpha=8, decompose_factor=2,
                                               init_weights="lycoris"), lokr, False, (-11, 0)),
    "VB-LoRA": (lambda r: peft.VBLoRAConfig(r=r, num_vectors=64, vector_length=16),
                vblora, False, (-12, -3)),
    "OFT": (lambda r: peft.OFTConfig(oft_block_size=r), oft, True, (-13, -2)),
    "MiSS": (lambda r: peft.MissConfig(r=r), miss, False, (-14, -4)),
    "VeRA": (lambda r: peft.VeraConfig(r=r), vera, False, (-9, 2)),
}  # fmt: skip


def drawn(kind: str, rank: int, policy: str):
    """For every layer: local name -> values of all seeds, and its learning rate over the base's."""
    config = KINDS[kind][0]
    found: list[dict] = [{} for _ in range(3)]
    for seed in range(SEEDS):
        models = []
        for r in (rank, BASE):
            torch.manual_seed(seed)
            layers = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(3)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                config_r = config(r)
                config_r.target_modules = ["0", "1", "2"]
                models.append(peft.get_peft_model(layers, config_r))
        model = models[0]
        lrs = {}
        if policy == "lora":
            plan = paramz.parametrize_(model, "lora", base=models[1])
            for group in plan.param_groups(model, "adam", lr=1.0, split="tensor"):
                lrs |= {id(p): group["lr"] for p in group["params"]}
        held = dict(model.named_parameters(remove_duplicate=False))
        held |= dict(model.named_buffers(remove_duplicate=False))
        for name, tensor in held.items():
            *_, local = [p for p in name.split(".") if p not in ("default", "weight")]
            where = [p for p in name.split(".") if p.isdigit()]
            if local in ("base_layer", "bias", "ranknum"):
                continue
            for layer in map(int, where) if where else range(3):
                known = found[layer].setdefault(local, ([], tensor, lrs.get(id(tensor), 1.0)))
                if len(known[0]) == seed:
                    known[0].append(tensor.detach().clone())
    return found


def losses(nets, kind: str, rank: int, policy: str, lrs) -> np.ndarray:
    """Mean loss of the last 50 steps, (seeds, learning rates)."""
    config, compute, turns, _ = KINDS[kind]
    made = config(rank)
    alpha = getattr(made, "lora_alpha", getattr(made, "alpha", None))
    scaling = 1.0 if alpha is None else alpha / rank
    weights = [torch.stack(w).repeat_interleave(len(lrs), 0) for w in zip(*nets, strict=True)]
    known: dict[int, torch.Tensor] = {}
    trained, layers = [], []
    for layer in drawn(kind, rank, policy):
        mine = {}
        for local, (values, tensor, own) in layer.items():
            if id(tensor) not in known:
                whole = torch.stack(values).repeat_interleave(len(lrs), 0)
                known[id(tensor)] = whole
                if tensor.requires_grad:
                    trained.append((whole.requires_grad_(), own))
            mine[local] = known[id(tensor)]
        layers.append(mine)

    def forward(x: torch.Tensor) -> torch.Tensor:
        h = (x @ weights[0]).relu()
        for own, weight in zip(layers, weights[1:-1], strict=True):
            z = F.layer_norm(h, h.shape[-1:])
            added = compute(z, own, rank, scaling)
            h = h + (added @ weight if turns else z @ weight + added).relu()
        return F.layer_norm(h, h.shape[-1:]) @ weights[-1]

    return side_by_side(lrs, trained, forward)


def main() -> None:
    torch.set_num_threads(1)
    nets = [pretrained(seed) for seed in range(SEEDS)]
    columns = ["kind", "policy", "rank", "seed", "log2_lr", "loss"]
    for kind in sys.argv[1:] or KINDS:
        low, high = KINDS[kind][3]
        lrs = np.arange(low, high + 1)
        for policy in ("none", "lora"):
            rows = []
            # From rank 16 on PEFT's LoKr has its second factor whole on layers of this width.
            for rank in RANKS[: 3 if kind.startswith("LoKr") else None]:
                for seed, found in enumerate(losses(nets, kind, rank, policy, lrs)):
                    best, loss = round(optimum(lrs, found), 3), round(float(np.nanmin(found)), 4)
                    rows.append((kind, policy, rank, seed, best, loss))
            frame = pd.DataFrame(rows, columns=columns)
            x, y = np.log2(frame["rank"]), frame.log2_lr
            (slope, at_one), cov = np.polyfit(x, y, 1, cov=True)
            print(f"{kind}, {policy}: {slope:+.2f} +- {2.23 * cov[0, 0] ** 0.5:.2f} octaves per "
                  f"doubling of the rank, {at_one:.1f} at 1",
                  file=sys.stderr, flush=True)  # fmt: skip
            if RESULT.exists():
                before = pd.read_csv(RESULT)
                again = before.kind.eq(kind) & before.policy.eq(policy)
                frame = pd.concat([before[~again], frame])
            frame.to_csv(RESULT, index=False)


if __name__ == "__main__":
    main()
