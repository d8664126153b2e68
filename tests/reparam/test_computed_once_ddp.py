"""Weights computed once for several passes on two processes: gradients are averaged once."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from gloo import join
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import paramz
from paramz.reparam import computed_once


def net() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    paramz.reparametrize_(model, paramz.WeightNorm())
    return model


def batches() -> torch.Tensor:
    return torch.randn(2, 3, 8, 4, generator=torch.Generator().manual_seed(1))


def accumulate(model: DistributedDataParallel, parts: torch.Tensor, *, syncs: bool = False) -> None:
    for number, x in enumerate(parts):
        with nullcontext() if syncs or number == len(parts) - 1 else model.no_sync():
            model(x).square().mean().backward()


def work(rank: int, path: str) -> None:
    join(rank, 2, path)
    model = net()
    wrapped = DistributedDataParallel(model)
    for _ in range(2):  # twice: a reducer that was left in the middle raises the second time
        model.zero_grad()
        with computed_once(model):
            accumulate(wrapped, batches()[rank])
    torch.save([p.grad for p in model.parameters()], f"{path}/{rank}.pt")
    with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
        with computed_once(model):
            accumulate(wrapped, batches()[rank], syncs=True)
    dist.destroy_process_group()


def test_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    model = net()
    for parts in batches():
        for x in parts:
            (model(x).square().mean() / 2).backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for grad, parameter in zip(found, model.parameters(), strict=True):
            torch.testing.assert_close(grad, parameter.grad, rtol=1e-5, atol=1e-7)
