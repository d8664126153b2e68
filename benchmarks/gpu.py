"""On a GPU: step time of a bf16 Llama of 1.1B parameters under a plan, and a coordinate check.

Blocks of steps of the plain model and of the parametrized one alternate in one process, with and
without torch.compile, and with the embedding tied and not; the ratio is that of medians. The models
have the same weights and shapes; the parametrized one has the plan's parameter groups, the plain
one a single group. The coordinate check goes over widths 256 to 4096. Both results are written to
benchmarks/results/gpu.json, each as soon as it is there, together with a description of the
machine, and to benchmarks/GPU.md as the table that `make bench` makes of all others. Weights,
gradients and AdamW's state of both models need 20 GB. Without a GPU the script says so and does
nothing. It takes some minutes, most of them torch.compile's; `--part` makes one of the two results
and keeps the other.

    python benchmarks/gpu.py [--part steps|coordinates] [--rounds 20]
    python benchmarks/gpu.py --small       # tiny sizes, to see on a CPU that it runs
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from _rows import made_on, table
from _timing import alternate, quartiles, ratios
from torch import nn

import paramz

if TYPE_CHECKING:
    from transformers import LlamaConfig

RESULTS = Path(__file__).parent / "results"
FILE = RESULTS / "gpu.json"
TABLE = Path(__file__).parent / "GPU.md"
HEAD = """# What paramz costs on a GPU

Made by `python benchmarks/gpu.py` on {made}.
Blocks of steps of a bf16 Llama of {parameters:.2g} parameters and of the same one under a plan
alternate in one process, wall time; medians with quartiles. The coordinate check in float32:

{coordinates}

"""


@dataclass(frozen=True)
class Sizes:
    """The sizes of the model, of a batch and of the measurement.

    Attributes:
        rounds: measured blocks of steps.
        steps: in a block.
        warm_up: blocks before the first measured one.
        widths: of the coordinate check.
    """

    width: int = 2048
    layers: int = 20
    feed_forward: int = 5632
    head: int = 128
    vocabulary: int = 32768
    batch: int = 4
    length: int = 1024
    base: int = 256
    rounds: int = 20
    steps: int = 5
    warm_up: int = 1
    widths: tuple[int, ...] = (256, 512, 1024, 2048, 4096)


SMALL = Sizes(
    width=64, layers=2, feed_forward=128, head=16, vocabulary=64, batch=2, length=8, base=32,
    rounds=3, steps=2, warm_up=1, widths=(32, 64, 128),
)  # fmt: skip


def config(sizes: Sizes, *, tied: bool, layers: int | None = None) -> LlamaConfig:
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=sizes.width,
        intermediate_size=sizes.feed_forward,
        num_hidden_layers=layers or sizes.layers,
        num_attention_heads=sizes.width // sizes.head,
        num_key_value_heads=sizes.width // sizes.head // 2,
        vocab_size=sizes.vocabulary,
        max_position_embeddings=sizes.length,
        tie_word_embeddings=tied,
        use_cache=False,
    )


def build(sizes: Sizes, device: str, *, tied: bool) -> nn.Module:
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        return LlamaForCausalLM(config(sizes, tied=tied)).to(torch.bfloat16)


def block(
    model: nn.Module, groups: Any, ids: torch.Tensor, *, count: int, compiled: bool
) -> Callable[[], None]:
    """A function that makes some training steps and waits until the GPU has done them."""
    on_gpu = ids.device.type == "cuda"
    optimizer = torch.optim.AdamW(groups, lr=2**-10, fused=on_gpu)
    forward: Any = torch.compile(model) if compiled else model

    def run() -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            forward(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()

    return run


def step_times(sizes: Sizes, device: str, *, tied: bool, compiled: bool) -> dict[str, Any]:
    """Seconds per step, plain and parametrized, and their ratio."""
    draw = torch.Generator(device).manual_seed(1)
    ids = torch.randint(
        sizes.vocabulary, (sizes.batch, sizes.length), generator=draw, device=device
    )
    plain, ours = (build(sizes, device, tied=tied) for _ in range(2))
    plan = paramz.parametrize_(ours, "mup", base=sizes.base)
    groups = plan.param_groups(ours, "adamw", lr=2**-10)
    runs = {
        "plain": block(plain, plain.parameters(), ids, count=sizes.steps, compiled=compiled),
        "paramz": block(ours, groups, ids, count=sizes.steps, compiled=compiled),
    }
    times = alternate(runs, sizes.rounds, warm_up=sizes.warm_up, clock=time.perf_counter)
    medians = {name: statistics.median(found) / sizes.steps for name, found in times.items()}
    low, _, high = quartiles(ratios(times, "paramz", "plain"))
    return {
        "tied": tied,
        "compile": compiled,
        "parameters": sum(p.numel() for p in ours.parameters()),
        "hooks": len(plan.multipliers),
        "groups": len(groups),
        "seconds": medians,
        "ratio": medians["paramz"] / medians["plain"],
        "middle half of the ratios": [low, high],
    }


def coordinates(sizes: Sizes, device: str) -> dict[str, Any]:
    """What the checks over width find, in fp32, on two blocks."""
    from transformers import LlamaForCausalLM

    base = config(sizes, tied=False, layers=2)

    def factory(width: int) -> nn.Module:
        with torch.device(device):
            return LlamaForCausalLM(paramz.hf.scaled_config(base, width=width))

    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(sizes.vocabulary, (sizes.batch, 64), generator=draw)
    ids = ids[:, : sizes.length].to(device)
    found = {}
    for scheme in ("mup", "sp"):
        df = paramz.coord_check(
            factory,
            {"input_ids": ids, "labels": ids},
            widths=sizes.widths,
            parametrization=scheme,
            seeds=3,
            steps=3 if scheme == "mup" else 1,
        )
        found[scheme] = paramz.judge(df).sentence
    return found


def page(report: dict[str, Any]) -> str:
    """The report as a page with the table of ratios."""
    rows = []
    for found in report["steps"]:
        how = "compiled" if found["compile"] else "eager"
        tied = ", tied embedding" if found["tied"] else ""
        low, high = found["middle half of the ratios"]
        rows.append(
            {
                "what": f"step under folded muP, {how}{tied}",
                "over": "plain",
                "figure": (low, found["ratio"], high),
                "goal": "0.99 to 1.01",
                "unit": "",
                "by": "gpu.py",
            }
        )
    about = report["machine"]
    head = HEAD.format(
        made=made_on(about.get("gpu", "a CPU")),
        parameters=report["steps"][0]["parameters"],
        coordinates="\n".join(f"- {line}" for line in report["coordinates"].values()),
    )
    return head + table(rows)


def machine(device: str) -> dict[str, Any]:
    about = {"torch": torch.__version__, "python": platform.python_version()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        about |= {
            "gpu": properties.name,
            "memory GB": round(properties.total_memory / 2**30),
            "cuda": torch.version.cuda,
        }
    return about


def write(report: dict[str, Any]) -> None:
    """The report as it is by now, so that a machine that is taken back loses none of it."""
    RESULTS.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if report["steps"] and report["coordinates"]:
        TABLE.write_text(page(report), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny sizes, on any machine")
    parser.add_argument("--part", choices=("steps", "coordinates"), help="this one alone")
    parser.add_argument("--rounds", type=int, help="measured blocks of steps (20)")
    asked = parser.parse_args()
    if not asked.small and not torch.cuda.is_available():
        print("no GPU: this benchmark needs one (--small shows that it runs)")
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = SMALL if asked.small else Sizes()
    sizes = replace(sizes, rounds=asked.rounds or sizes.rounds)
    report: dict[str, Any] = {"steps": [], "coordinates": {}}
    if asked.part and not asked.small and FILE.exists():
        report = json.loads(FILE.read_text(encoding="utf-8"))
    report["machine"] = machine(device)
    if asked.part != "coordinates":
        report["steps"] = []
        for compiled, tied in ((False, False), (False, True), (True, False), (True, True)):
            if compiled and asked.small:
                continue
            report["steps"].append(step_times(sizes, device, tied=tied, compiled=compiled))
            print(json.dumps(report["steps"][-1]), flush=True)
            if not asked.small:
                write(report)
            torch._dynamo.reset()
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()
    if asked.part != "steps":
        report["coordinates"] = coordinates(sizes, device)
        print(json.dumps(report["coordinates"], indent=1), flush=True)
    if not asked.small:
        write(report)
    elif report["steps"] and report["coordinates"]:
        print(page(report))


if __name__ == "__main__":
    main()
