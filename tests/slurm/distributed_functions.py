"""A training function that runs on one process, under DDP, or sharded by FSDP2."""

import os
import time
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard

import paramz

# DDP's destructor ends the process group if it has the last reference, and waits, with the GIL, for
# gloo's threads. One of them may wait for the GIL, to let go of a reduced tensor (torch 2.13): one
# run in ten of this function hung.
_kept = []


def build(width):
    return nn.Sequential(
        nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
    )


def train(config, trial):
    """Steps of AdamW under muP on batches of 8 split over the processes; float64."""
    torch.manual_seed(0)
    model = build(config["width"]).double()
    plan = paramz.parametrize_(model, "mup", base=lambda w: build(w).double(), base_width=8)
    rank, world = 0, 1
    if config["kind"] != "single":
        distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
        _kept.append(distributed.group.WORLD)
        rank, world = distributed.get_rank(), distributed.get_world_size()
        assert world == int(os.environ["WORLD_SIZE"]) > 1
        if config["kind"] == "ddp":
            model = nn.parallel.DistributedDataParallel(model)
        else:
            mesh = distributed.init_device_mesh("cpu", (world,))
            for layer in (*model, model):
                fully_shard(layer, mesh=mesh)
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=2**-5))
    generator = torch.Generator().manual_seed(1)
    for step in range(config.get("steps", 5)):
        x = torch.randn(8, 16, generator=generator, dtype=torch.float64)
        y = torch.randint(4, (8,), generator=generator)
        loss = nn.functional.cross_entropy(model(x[rank::world]), y[rank::world])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if world > 1:
            distributed.all_reduce(loss.detach())
        trial.log(step, loss=loss.item() / world)
        time.sleep(config.get("sleep", 0))
    if world > 1:
        distributed.destroy_process_group()
    return {"loss": loss.item() / world}
