"""Shampoo on two processes is Shampoo on one with the whole batch."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from cases import CASES, build64
from gloo import join
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from paramz.optim import Shampoo

OPTIONS = {"lr": 0.05, "block_size": 8, "update_every": 2, "graft": "adam"}


def train(net: nn.Module, optimizer: Shampoo, part: slice) -> None:
    for step in range(5):
        x, y = CASES["mlp"].batch(step)
        optimizer.zero_grad()
        F.cross_entropy(net(x[part]), y[part]).backward()
        optimizer.step()


def work(rank: int, path: str) -> None:
    join(rank, 2, path)
    net = build64(CASES["mlp"].build, 8)
    wrapped = DistributedDataParallel(net)
    train(wrapped, Shampoo(wrapped.parameters(), **OPTIONS), slice(8 * rank, 8 * rank + 8))
    torch.save(net.state_dict(), f"{path}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    net = build64(CASES["mlp"].build, 8)
    before = build64(CASES["mlp"].build, 8).state_dict()
    train(net, Shampoo(net.parameters(), **OPTIONS), slice(None))
    states = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, value in net.state_dict().items():
        assert torch.equal(states[0][name], states[1][name])
        torch.testing.assert_close(states[0][name], value, rtol=0, atol=1e-8)
        assert (value - before[name]).abs().max() > 1e-3
