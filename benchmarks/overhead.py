"""Step time of a folded-muP model over the plain model with the same fused AdamW, and mup's own.

Three steps of the byte-level GPT in turn, on one thread; prints the median ratio of CPU times with
its quartiles, eager and compiled.

    python benchmarks/overhead.py [--rounds 40] [--no-compile]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from _tasks import BASE, WIDTH, gpt, steps
from _timing import alternate, parser, ratios, tell

import paramz

STEPS = 3


def plain(compiled: bool) -> Callable[[], None]:
    """The model as it is, fused AdamW, one group."""
    model = gpt(WIDTH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    return steps(model, [optimizer], count=STEPS, compiled=compiled)


def folded(compiled: bool) -> Callable[[], None]:
    """The same model under muP, folded."""
    model = gpt(WIDTH)
    plan = paramz.parametrize_(model, "mup", base=gpt, base_width=BASE)
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=1e-4), fused=True)
    return steps(model, [optimizer], count=STEPS, compiled=compiled)


def peer(compiled: bool) -> Callable[[], None] | None:
    """microsoft/mup: MuReadout and MuAdamW, on a copy of the model that calls it."""
    try:
        import mup
    except ImportError:
        return None

    def build(width: int) -> torch.nn.Module:
        model = gpt(width)
        model.readout = mup.MuReadout(width, 256, bias=False)
        return model

    model = build(WIDTH)
    mup.set_base_shapes(model, build(BASE), delta=build(2 * BASE))
    optimizer = mup.MuAdamW(model.parameters(), lr=1e-4, fused=True)
    return steps(model, [optimizer], count=STEPS, compiled=compiled)


def main() -> None:
    """Measure and print."""
    command = parser(__doc__, rounds=40)
    command.add_argument("--no-compile", action="store_true")
    arguments = command.parse_args()
    torch.set_num_threads(1)
    for compiled in [False] if arguments.no_compile else [False, True]:
        made = {"plain": plain(compiled), "paramz": folded(compiled), "mup": peer(compiled)}
        runs = {name: run for name, run in made.items() if run is not None}
        times = alternate(runs, arguments.rounds)
        kind = "compiled" if compiled else "eager"
        for name in list(runs)[1:]:
            goal = "0.99 to 1.01" if name == "paramz" else ""
            tell(
                f"step under folded muP, {kind}, {name}",
                "plain",
                ratios(times, name, "plain"),
                goal,
            )


if __name__ == "__main__":
    main()
