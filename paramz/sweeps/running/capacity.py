"""How many trials fit on this machine, or in a job, and which GPUs each of them sees."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from paramz.sweeps.spec.resources import Need

_CGROUP = Path("/sys/fs/cgroup")


def capacity(needs: Collection[Need], gpus: Sequence[str], memory_gb: float | None) -> int:
    """How many trials can run at once on this machine, at least one.

    Trials that need GPUs run on CPUs where there is none.

    Args:
        needs: the different needs of the trials; the largest of each resource counts.
        gpus: the GPUs of this machine.
        memory_gb: its memory; None if that is not known.

    >>> need = Need(cpus=1, gpus=0.5, nodes=1, memory_gb=8, minutes=None)
    >>> capacity([need], ["0", "1"], memory_gb=28) <= 3
    True
    """
    limits = [len(os.sched_getaffinity(0)) // max(need.cpus for need in needs)]
    if memory_gb is not None:
        limits.append(int(memory_gb // max(need.memory_gb for need in needs)))
    share = max(need.gpus for need in needs)
    if gpus and share:
        limits.append(int(len(gpus) // share))
    return max(1, min(limits))


def shares(gpus: Sequence[str], share: float, workers: int) -> list[Mapping[str, str]]:
    """The environment variables by which each worker sees its part of the GPUs.

    Args:
        gpus: the GPUs of this machine or job.
        share: how many each worker needs; workers that need a fraction of a GPU share one.
        workers: number of workers.

    >>> shares(["4", "5", "6", "7"], 2, 2)
    [{'CUDA_VISIBLE_DEVICES': '4,5'}, {'CUDA_VISIBLE_DEVICES': '6,7'}]
    >>> shares(["4", "5"], 0.5, 4)[1:3]
    [{'CUDA_VISIBLE_DEVICES': '4'}, {'CUDA_VISIBLE_DEVICES': '5'}]
    """
    if not gpus:
        return [{}]
    wide = max(1, round(share))
    seen = [[gpus[(int(i * share) + j) % len(gpus)] for j in range(wide)] for i in range(workers)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(dict.fromkeys(each))} for each in seen]


def local_gpus() -> list[str]:
    """The GPUs of this machine that workers may use."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu for gpu in visible.split(",") if gpu]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i in range(len(list(folder.iterdir())))] if folder.is_dir() else []


def local_memory_gb() -> float | None:
    """The memory that this process may use, in GB: the machine's, or the limit of its cgroup."""
    found = []
    with suppress(OSError, ValueError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # a cgroup without a limit says "max"
            found.append(int((_CGROUP / name).read_text()))
    return min(found) / 2**30 if found else None
