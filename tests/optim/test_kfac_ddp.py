"""K-FAC on two processes is K-FAC on one with the whole batch."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from gloo import join
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from paramz.optim import KFAC

OPTIONS = {
    "lr": 0.05, "damping": 0.1, "fisher": "exact", "block_size": 5,
    "covariance_every": 2, "inverse_every": 2,
}  # fmt: skip


class Experts(nn.Module):
    """The second process's data never reach the first expert, and the other way round."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(6, 8)
        self.norm = nn.LayerNorm(8)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.readout = nn.Linear(8, 3)

    def forward(self, ids):
        x = self.norm(self.tokens(ids))
        first = ids < 3
        parts = [
            expert(x[of])
            for expert, of in zip(self.experts, (first, ~first), strict=True)
            if of.any()
        ]
        return self.readout(torch.relu(torch.cat(parts)))


def batch(step):
    draw = torch.Generator().manual_seed(step)
    ids = torch.cat([torch.randint(3, (6,), generator=draw) + 3 * half for half in (0, 1)])
    return ids, torch.randint(3, (12,), generator=draw)


def train(net, optimizer, part):
    for step in range(4):
        ids, y = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(net(ids[part]), y[part]).backward()
        optimizer.step()


def work(rank, path):
    join(rank, 2, path)
    net = build()
    wrapped = DistributedDataParallel(net, find_unused_parameters=True)
    with KFAC(net.parameters(), net, **OPTIONS) as optimizer:
        train(wrapped, optimizer, slice(6 * rank, 6 * rank + 6))
    torch.save(net.state_dict(), f"{path}/{rank}.pt")
    dist.destroy_process_group()


def build():
    torch.manual_seed(0)
    return Experts().double()


def test_two_processes_give_the_result_of_one(tmp_path):
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    net = build()
    with KFAC(net.parameters(), net, **OPTIONS) as optimizer:
        train(net, optimizer, slice(None))
    states = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    before = build().state_dict()
    for name, value in net.state_dict().items():
        assert torch.equal(states[0][name], states[1][name])
        assert torch.allclose(states[0][name], value, rtol=0, atol=1e-10)
        assert (value - before[name]).abs().max() > 1e-3
