"""Cost of a u-muP training step against the plain model's: eager, one thread, fused AdamW.

Decoders of one architecture (SwiGLU, RMS norm without gains, no biases): plain, paramz.nn, the
plain one converted, unit_scaling's, and paramz.compat.unit_scaling's. Steps alternate in one
process; medians of the ratios of the CPU times of neighbouring steps are printed.

    python benchmarks/u_mup.py [--rounds 10] [--builds 5]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from _timing import Times, alternate, parser, ratios, tell
from torch import Tensor, nn
from torch.nn import functional as F

import paramz.compat.unit_scaling
import paramz.nn

WIDTH, VOCABULARY, LAYERS, HEADS, BATCH, LENGTH = 256, 1024, 5, 4, 4, 128


class PlainLayer(nn.Module):
    """Attention and SwiGLU, each behind a norm without gains."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(WIDTH, 1e-5, elementwise_affine=False)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm2 = nn.RMSNorm(WIDTH, 1e-5, elementwise_affine=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.gate = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, WIDTH) -> the same shape."""
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, HEADS, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        n = self.norm2(x)
        return x + self.down(self.up(n) * F.silu(self.gate(n)))


class Plain(nn.Module):
    """The decoder in plain torch."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.Sequential(*(PlainLayer() for _ in range(LAYERS)))
        self.norm = nn.RMSNorm(WIDTH, 1e-5, elementwise_affine=False)
        self.readout = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of ids (batch, length)."""
        return self.readout(self.norm(self.layers(self.embedding(ids))))

    def loss(self, ids: Tensor) -> Tensor:
        """Mean cross-entropy of the next token."""
        return F.cross_entropy(self(ids)[:, :-1].flatten(end_dim=1), ids[:, 1:].flatten())


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    ids = torch.randint(VOCABULARY, (BATCH, LENGTH))

    def run() -> None:
        model.loss(ids).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def contenders() -> dict[str, Callable[[], None]]:
    sizes = (WIDTH, VOCABULARY, LAYERS, HEADS)
    plain = Plain()
    again = Plain()
    ours = paramz.nn.TransformerDecoder(*sizes)
    converted = Plain()
    ids = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    plan = paramz.parametrize_(converted, "u-mup", example=ids)
    fused = {"lr": 1e-3, "fused": True}
    steps = {
        "plain": step(plain, torch.optim.AdamW(plain.parameters(), **fused)),
        "plain again": step(again, torch.optim.AdamW(again.parameters(), **fused)),
        "paramz.nn": step(ours, torch.optim.AdamW(ours.parameters(), **fused)),
        "converted": step(
            converted,
            torch.optim.AdamW(plan.param_groups(converted, "adamw", lr=2**-6), fused=True),
        ),
    }
    try:
        import unit_scaling
        from unit_scaling.optim import lr_scale_func_adam, scaled_parameters
    except ImportError:
        return steps
    peer = unit_scaling.TransformerDecoder(*sizes)
    groups = scaled_parameters(peer.parameters(), lr_scale_func_adam, lr=2**-6)
    steps["unit_scaling"] = step(peer, torch.optim.AdamW(groups, fused=True))
    for name, package in (
        ("unit_scaling, its AdamW", unit_scaling),
        ("compat, its AdamW", paramz.compat.unit_scaling),
    ):
        model = package.TransformerDecoder(*sizes)
        steps[name] = step(model, package.optim.AdamW(model.parameters(), lr=2**-6))
    return steps


def main() -> None:
    options = parser(__doc__, rounds=10)
    options.add_argument("--builds", type=int, default=5, help="times each model is built (5)")
    asked = options.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # Where its memory lies makes a model up to 4 % faster or slower, so every build is a new one.
    measured: list[Times] = [
        alternate(contenders(), asked.rounds, warm_up=2) for _ in range(asked.builds)
    ]
    for name in measured[0]:
        of_builds = [ratios(times, name, "plain") for times in measured]
        medians = [statistics.median(of_build) for of_build in of_builds]
        middle = 1e3 * statistics.median(t for times in measured for t in times[name])
        if name == "plain":
            print(f"plain: {middle:.1f} ms a step")
            continue
        of_all = [ratio for of_build in of_builds for ratio in of_build]
        goal = "1.03" if name in ("paramz.nn", "converted") else ""
        built = f"builds {min(medians):.3f} to {max(medians):.3f}"
        tell(f"step of a u-muP decoder, {name}", "plain", of_all, goal, more=built)


if __name__ == "__main__":
    main()
