"""What the spawned processes of test_runtimes_distributed.py do; a failed assert fails the test."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from cases import GPT, VOCABULARY
from gloo import join
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import paramz

BASE, WIDTH, STEPS = 8, 64, 5


def batch() -> tuple[Tensor, Tensor]:
    ids = torch.randint(VOCABULARY, (8, 6), generator=torch.Generator().manual_seed(1))
    return ids, ids.roll(-1, 1)


def planned() -> tuple[nn.Module, paramz.Plan]:
    """The model at eight times the base width, the same in every process."""
    torch.manual_seed(0)
    model = GPT(WIDTH)
    return model, paramz.parametrize_(model, "mup", base=GPT, base_width=BASE)


def adapted() -> tuple[nn.Module, paramz.Plan]:
    """The same with LoRA of twice the base's rank, whose factors alone are trained."""

    def build(width: int, rank: int = 4) -> nn.Module:
        torch.manual_seed(0)
        return get_peft_model(
            GPT(width), LoraConfig(r=rank, target_modules=["qkv", "mlp.0", "mlp.2"])
        )

    model = build(WIDTH, rank=8)
    return model, paramz.parametrize_(model, "mup+lora", base=build, base_width=BASE)


def optimizer_for(plan: paramz.Plan, model: nn.Module) -> torch.optim.Optimizer:
    groups = plan.param_groups(model, "adamw", lr=2**-6, weight_decay=0.1)
    return torch.optim.AdamW(groups)


def ratios(optimizer: torch.optim.Optimizer) -> list[tuple[Any, ...]]:
    """What a group says, and the global shapes of its tensors."""
    return [
        (g["lr"], g["eps"], g["weight_decay"], g["roles"], [tuple(p.shape) for p in g["params"]])
        for g in optimizer.param_groups
    ]


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    part: slice = slice(None),
    steps: int = STEPS,
    average: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> list[float]:
    """The loss over the whole batch before each step."""
    x, y = (t[part] for t in batch())
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        losses.append(float(average(loss.detach().clone())))
        optimizer.step()
    return losses


def all_mean(loss: Tensor) -> Tensor:
    dist.all_reduce(loss)
    return loss / dist.get_world_size()


def close(one: Iterable[float], other: Iterable[float]) -> None:
    gap = max(abs(a - b) for a, b in zip(one, other, strict=True))
    assert gap < 1e-6, (gap, one, other)


def shard(model: Any, **options: Any) -> nn.Module:
    """FSDP2 as its tutorial does it: every block, then the rest."""
    for block in model.blocks:
        fully_shard(block, **options)
    return fully_shard(model, **options)


def two_processes(rank: int, world: int, folder: str) -> None:
    """DDP, FSDP2, tensor parallel and checkpoints against one process, eight times the base."""
    join(rank, world, folder)
    part = slice(rank * 4, rank * 4 + 4)
    plain, plan = planned()
    start_weights = copy.deepcopy(plain.state_dict())
    optimizer = optimizer_for(plan, plain)
    wanted_groups = ratios(optimizer)
    wanted = train(plain, optimizer, steps=2 * STEPS)
    assert wanted[-1] < wanted[0] - 0.5

    wrapped = DistributedDataParallel(planned()[0])
    optimizer = optimizer_for(plan, wrapped)
    assert ratios(optimizer) == wanted_groups
    close(train(wrapped, optimizer, part, average=all_mean), wanted[:STEPS])

    sharded = shard(planned()[0])
    optimizer = optimizer_for(plan, sharded)
    assert ratios(optimizer) == wanted_groups
    assert isinstance(sharded.head.weight, DTensor)
    assert paramz.plan_of(sharded) == plan
    close(train(sharded, optimizer, part, average=all_mean), wanted[:STEPS])

    # Adapters, with all but their factors frozen.
    whole, adapters = adapted()
    alone = optimizer_for(adapters, whole)
    adapted_groups, adapted_losses = ratios(alone), train(whole, alone)
    assert adapted_losses[-1] < adapted_losses[0]
    for wrap in (DistributedDataParallel, fully_shard):
        wrapped = wrap(adapted()[0])
        together = optimizer_for(adapters, wrapped)
        assert ratios(together) == adapted_groups
        close(train(wrapped, together, part, average=all_mean), adapted_losses)

    # Norms are those of whole tensors, and all processes clip alike.
    whole, _ = planned()
    pieces = shard(planned()[0])
    norms = []
    for model, mine in ((whole, slice(None)), (pieces, part)):
        x, y = (t[mine] for t in batch())
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        norms.append(float(paramz.clip_grad_norm_(plan, model, 0.1)))
    close(norms[:1], norms[1:])
    clipped = pieces.head.weight.grad.full_tensor()
    assert torch.allclose(clipped, whole.head.weight.grad, atol=1e-7)

    # Save model, optimizer and plan; go on in fresh ones.
    states = dict(zip(("model", "optimizer"), get_state_dict(sharded, optimizer), strict=True))
    dcp.save(states, checkpoint_id=f"{folder}/checkpoint")
    if rank == 0:
        plan.save(Path(folder) / "paramz.json")
    dist.barrier()
    torch.manual_seed(99)
    fresh = GPT(WIDTH)
    paramz.restore_(fresh, paramz.Plan.load(Path(folder) / "paramz.json"))
    fresh = shard(fresh)
    optimizer = optimizer_for(paramz.plan_of(fresh), fresh)
    states = dict(zip(("model", "optimizer"), get_state_dict(fresh, optimizer), strict=True))
    dcp.load(states, checkpoint_id=f"{folder}/checkpoint")
    set_state_dict(
        fresh, optimizer, model_state_dict=states["model"], optim_state_dict=states["optimizer"]
    )
    assert ratios(optimizer) == wanted_groups
    close(train(fresh, optimizer, part, average=all_mean), wanted[STEPS:])

    # Tensor parallel: all processes see the whole batch.
    mesh = init_device_mesh("cpu", (world,))
    parallel, _ = planned()
    for block in parallel.blocks:
        parallelize_module(block.mlp, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    optimizer = optimizer_for(plan, parallel)
    assert ratios(optimizer) == wanted_groups
    assert isinstance(parallel.blocks[0].mlp[0].weight, DTensor)
    # Tensors of different kinds cannot share a fused or foreach step.
    optimizer = torch.optim.AdamW(optimizer.param_groups, foreach=False)
    close(train(parallel, optimizer), wanted[:STEPS])

    # From the meta device: shapes are planned, shards are drawn.
    with torch.device("meta"):
        empty = GPT(WIDTH)
    from_meta = paramz.parametrize_(empty, "mup", base=GPT, base_width=BASE)
    empty = shard(empty)
    empty.to_empty(device="cpu")
    torch.manual_seed(0)
    paramz.init_(empty)
    optimizer = optimizer_for(from_meta, empty)
    assert ratios(optimizer) == wanted_groups
    for name, parameter in empty.named_parameters():
        std = start_weights[name].square().mean().sqrt()
        drawn = parameter.full_tensor().square().mean().sqrt()
        assert abs(drawn - std) <= 0.25 * std, (name, drawn, std)
    losses = train(empty, optimizer, part, average=all_mean)
    assert losses[-1] < losses[0]
    dist.destroy_process_group()


def four_processes(rank: int, world: int, folder: str) -> None:
    """FSDP2 over two, each in tensor parallel over two."""
    join(rank, world, folder)
    plain, plan = planned()
    optimizer = optimizer_for(plan, plain)
    wanted_groups, wanted = ratios(optimizer), train(plain, optimizer)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    model, _ = planned()
    for block in model.blocks:
        layout = {"0": ColwiseParallel(), "2": RowwiseParallel()}
        parallelize_module(block.mlp, mesh["tensor"], layout)
    model = shard(model, mesh=mesh["data"])
    optimizer = optimizer_for(plan, model)
    assert ratios(optimizer) == wanted_groups
    optimizer = torch.optim.AdamW(optimizer.param_groups, foreach=False)
    data = mesh.get_local_rank("data")
    losses = train(model, optimizer, slice(4 * data, 4 * data + 4), average=all_mean)
    close(losses, wanted)
    dist.destroy_process_group()
