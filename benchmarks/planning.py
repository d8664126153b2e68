"""What planning costs: CPU seconds, and memory beyond the model, each in a process of its own.

    python benchmarks/planning.py

On 2 shared cores of an AMD EPYC, 2026-11-28 and 29, before and after the base's init was read from
the calls that draw it, and the target's own was measured by parts:

    a 70B Llama on meta, base 1024        18.7 s, 4668 MB -> 0.73 s (0.58 to 0.76), 17 MB
    a real Llama of 300M, base 256        3.0 s -> 1.6 s (1.3 to 2.1), the same weights bit for bit
    61 blocks of 256 experts, each of
    three modules, on meta, base 1024     41 s, 516 MB -> 38 s (36 to 45), 511 MB; 30 s when quiet

Of the last, most is torch building the base and the wider probe, 47 thousand layers each: building
the model once takes 15 s and 312 MB by itself. 3 s and 300 MB for it, once a goal, cannot be had
while both probes are built in full. What paramz itself does grows in step with the tensors.

The machine was loaded with 4 to 12 processes, more of them after than before, so the seconds are
upper bounds. Of the real model's, a third builds the real base, a sixth measures it in float64, to
the last digit, and the rest reads and scales 1.2 GB. What torch loads when it is first asked for an
operation on meta (0.5 s) is left out: a tiny model is planned first. Memory is what the peak of the
process grows by, so that what fits into memory freed before counts as none.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from _timing import tell
from torch import Tensor, nn

LLAMAS = {
    "70B on meta": (8192, 28672, 80, 64, 8, 1024, "meta"),
    "300M, real": (1024, 4096, 14, 16, 16, 256, "cpu"),
}
EXPERTS = "61 x 256 experts on meta"
GOALS = {
    "planning 70B on meta": "1",
    "planning 300M, real": "0.3",
    "planning 61 x 256 experts on meta": "3",
}


class _Experts(nn.Module):
    """Every token goes through the first two experts: planning asks for shapes and operations."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(_Expert(width) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        gates, _ = self.router(x).softmax(-1).topk(2, -1)
        first, second = self.experts[0], self.experts[1]
        return x + first(x) * gates[..., :1] + second(x) * gates[..., 1:]


class _Expert(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, width // 4, bias=False)
        self.up = nn.Linear(width, width // 4, bias=False)
        self.down = nn.Linear(width // 4, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


def of_experts(width: int) -> nn.Module:
    """A decoder's feed-forward half: 61 blocks of 256 experts, 47 thousand weights."""
    blocks = (_Experts(width, 256) for _ in range(61))
    return nn.Sequential(nn.Embedding(32000, width), *blocks, nn.Linear(width, 32000, bias=False))


def llama(
    width: int, inner: int, layers: int, heads: int, kv_heads: int, _: int, device: str
) -> nn.Module:
    """A Llama on a device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=32000,
    )  # fmt: skip
    with torch.device(device):
        return LlamaForCausalLM(config)


def measure(case: str) -> None:
    """Seconds and megabytes of one `paramz.parametrize_`."""
    import paramz

    torch.set_num_threads(1)
    parametrize_ = paramz.parametrize_
    tiny = (32, 64, 2, 2, 2)
    parametrize_(llama(*tiny, 16, "cpu"), "mup", base=16)  # imports are not planning
    if case != EXPERTS:
        *_, base, device = LLAMAS[case]
        if device == "cpu":
            _cost(f"building the base of {case}, by torch alone", lambda: _base_of(case))
        model = llama(*LLAMAS[case])
        _cost(f"planning {case}", lambda: parametrize_(model, "mup", base=base))
        return
    _cost(f"building {case} once, by torch alone", _on_meta)
    large = _on_meta()
    _cost(f"planning {case}", lambda: parametrize_(large, "mup", base=of_experts, base_width=1024))


def _base_of(case: str) -> nn.Module:
    width, inner, layers, heads, _, base, device = LLAMAS[case]
    return llama(base, inner * base // width, layers, heads, heads, base, device)


def _on_meta() -> nn.Module:
    with torch.device("meta"):
        return of_experts(7168)


def _cost(what: str, work: Callable[[], object]) -> None:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    work()
    seconds = time.process_time() - begun
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    tell(what, "", [seconds], GOALS.get(what, ""), "s of CPU time")
    tell(f"{what}, memory beyond the model", "", [more], unit="MB")


if __name__ == "__main__":
    if sys.argv[1:]:
        measure(sys.argv[1])
    else:
        for name in (*LLAMAS, EXPERTS):
            subprocess.run([sys.executable, __file__, name], check=True)
