"""What planning costs: CPU seconds, and memory beyond the model, each in a process of its own.

    python benchmarks/planning.py

On 2 shared cores of an AMD EPYC, 2026-11-28, before and after the base's init was read from the
calls that draw it, and the target's own was measured by parts:

    a 70B Llama on meta, base 1024        18.7 s, 4668 MB -> 0.73 s (0.58 to 0.76), 17 MB
    a real Llama of 300M, base 256        3.0 s -> 1.6 s (1.3 to 2.1), the same weights bit for bit

The machine was loaded with 4 to 12 processes, more of them after than before, so the seconds are
upper bounds. Of the real model's, a third builds and measures the real base, and the rest reads and
scales 1.2 GB.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

CASES = {
    "70B on meta": (8192, 28672, 80, 64, 8, 1024, "meta"),
    "300M, real": (1024, 4096, 14, 16, 16, 256, "cpu"),
}


def measure(case: str) -> str:
    """Seconds and megabytes of one `paramz.parametrize_`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    import paramz

    width, inner, layers, heads, kv_heads, base, device = CASES[case]
    torch.set_num_threads(1)
    config = LlamaConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=32000,
    )  # fmt: skip
    with torch.device(device):
        model = LlamaForCausalLM(config)
    parametrize_ = paramz.parametrize_  # its import is not planning
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    parametrize_(model, "mup", base=base)
    seconds = time.process_time() - begun
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    return f"{case:14} {seconds:6.2f} s of CPU time {more:7.0f} MB"


if __name__ == "__main__":
    if sys.argv[1:]:
        print(measure(sys.argv[1]))
    else:
        for name in CASES:
            subprocess.run([sys.executable, __file__, name], check=True)
