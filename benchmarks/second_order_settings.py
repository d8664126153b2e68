"""What cheaper settings of Shampoo and K-FAC save per step, and what they cost in loss.

    python benchmarks/second_order_settings.py [--rounds 5]              the price of a step
    python benchmarks/second_order_settings.py --losses DIRECTORY        the loss, resumable

The price is the CPU time of twenty steps of the byte-level GPT of width 256 over fused AdamW's, one
thread, as in second_order.py. The loss is that of a GPT of this width in two blocks after 100
steps, at three learning rates an octave apart around the best, by three seeds, which draw initial
weights and data; settings are compared run by run with the defaults before them, which are
``EARLIER`` in second_order.py.
"""

from __future__ import annotations

from pathlib import Path

import torch
from _tasks import WIDTH
from _timing import alternate, parser, ratios, tell
from second_order import CONTENDERS, EARLIER, cycler, ours

from paramz.sweeps import Sweep, run

BEFORE = "the default before"
SHAMPOO = {
    BEFORE: EARLIER["shampoo"],
    "blocks of 128": EARLIER["shampoo"] | {"block_size": 128},
    "roots every 20th step": EARLIER["shampoo"] | {"update_every": 20},
    "blocks of 128, roots every 20th": EARLIER["shampoo"] | {"block_size": 128, "update_every": 20},
    "the default: roots every 20th, every 2nd gradient, each of the first 20": {},
}
KFAC = {
    BEFORE: EARLIER["kfac"],
    "the default: blocks of 128": {},
}
# What the optimizer of all other tensors is given, and the best lr at width 64 (second_order.py).
LOSSES = {
    "shampoo": (SHAMPOO, {"rest_lr": 2**-7}, -3),
    "kfac": (KFAC, {"damping": 0.1, "adamw": {"lr": 2**-6}}, -6),
}


def prices(rounds: int) -> None:
    """Tell the price of each setting."""
    made = {"adamw": CONTENDERS["adamw"]}
    made |= {f"shampoo, {name}": ours("shampoo", **own) for name, own in SHAMPOO.items()}
    made |= {f"kfac, {name}": ours("kfac", adamw={"lr": 1e-4}, **own) for name, own in KFAC.items()}
    times = alternate({name: cycler(make) for name, make in made.items()}, rounds)
    for name in list(made)[1:]:
        tell(f"step of {name}", "fused AdamW", ratios(times, name, "adamw"))


def losses(optimizer: str, out: Path) -> None:
    """Print the loss of every setting beside the default's: the mean over seeds, at each lr."""
    settings, rest, best = LOSSES[optimizer]
    made = [[name, rest | own] for name, own in settings.items()]
    sweep = Sweep(
        train=f"{Path(__file__).parents[1] / 'sweeps' / 'train_lm.py'}:train",
        base={"width": WIDTH, "base_width": 64, "steps": 100, "optimizer": optimizer},
        axes={
            "seed": [0, 1, 2],
            "setting, options": made,
            "lr": [2.0**k for k in range(best - 1, best + 2)],
        },
    )
    df = run(sweep, out / optimizer, workers=1)
    table = df.pivot_table(index=["lr", "seed"], columns="setting", values="loss")
    beside = table[list(settings)].sub(table[BEFORE], axis=0).groupby("lr").agg(["mean", "sem"])
    print(table[list(settings)].groupby("lr").mean().T.round(4).to_string())
    print(beside.T.round(4).to_string())


def main() -> None:
    """Measure and print."""
    command = parser(__doc__, rounds=5)
    command.add_argument("--losses", type=Path, help="where the sweep of losses is kept")
    given = command.parse_args()
    torch.set_num_threads(1)
    if given.losses is None:
        prices(given.rounds)
        return
    for optimizer in LOSSES:
        losses(optimizer, given.losses)


if __name__ == "__main__":
    main()
