"""What `paramz.record` does in a script that a coordinate check runs.

The first batch that the model gets is kept. On it the model is run once more before training and
after every update, apart from the script's own passes: what is compared is of one batch, and the
script trains as it always does. What the numbers mean over several widths is read from all
scripts together, see `paramz.check.script`.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from paramz.anatomy.names import TRANSPOSED_LINEAR
from paramz.apply.hooks import require_hooks_ran
from paramz.apply.outputs import activations, prediction
from paramz.check.downstream import last_of
from paramz.check.jobs import LOGITS
from paramz.check.labels import Labels, branch_units, held_units, module_roles, slices_shown
from paramz.check.noise import Noise, without_dropout
from paramz.check.recording import Record, recording
from paramz.check.sweep import LINES, ROWS
from paramz.check.values import copied
from paramz.plan.on_model import plan_of
from paramz.sweeps.store.files import write_over

_HOW = "call paramz.record(model, step) in every iteration, before the model is called"


class Recorder:
    """The recording of one script.

    Args:
        folder: where the results go.
        steps: how many updates to watch.
        model: the script's model, which was not trained yet.

    Raises:
        RuntimeError: the model was trained already, or lies in pieces on several machines.
    """

    def __init__(self, folder: Path, steps: int, model: nn.Module) -> None:
        self.folder, self.steps, self.model = folder, steps, _unwrapped(model)
        self.leads = _rank() == 0
        self.begun: int | None = None
        self.done = -1
        self.first: Record | None = None
        self.rows: list[tuple[Any, ...]] = []
        if self.leads:
            _require_whole(self.model)
            _require_untrained(self.model)
            # On what is called: the hook of a module inside a compiled one would be compiled, too.
            self.handle = _called(model).register_forward_pre_hook(self._catch, with_kwargs=True)

    def at(self, model: nn.Module, step: int) -> None:
        """Measure what the model does after so many updates, unless that was done.

        Raises:
            SystemExit: all was measured; the script ends well.
            RuntimeError: a step is missing, or the model was not called.
        """
        if self.begun is None:
            self.begun = step
        made = step - self.begun
        if self.leads and _unwrapped(model) is not self.model:
            raise RuntimeError(
                "paramz.record was called with two models; a check is of one: record the one that "
                "you scale"
            )
        if made <= max(self.done, 0):  # the first one is measured when the model is called
            return
        if self.leads:
            if self.first is None:
                raise RuntimeError(
                    f"between paramz.record(model, {self.begun}) and paramz.record(model, {step}) "
                    "the model was not called with gradients: call the model itself, model(x), "
                    "not its parts or model.forward(x), and give record the model that you call"
                )
            if made != max(self.done, 0) + 1:
                raise RuntimeError(
                    f"paramz.record came after {made} updates, and after {max(self.done, 0)} "
                    f"before: {_HOW}"
                )
            self._measure(made)
        self.done = made
        if made >= self.steps:
            raise SystemExit(0)

    def _catch(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """At the first call in training: keep the batch, and measure before the model runs."""
        if not torch.is_grad_enabled():
            return  # an evaluation before training
        self.handle.remove()
        self.inputs = copied(tuple(args)), copied(dict(kwargs))
        device = next((p.device.type for p in self.model.parameters()), "cpu")
        self.precision = (
            device,
            torch.get_autocast_dtype(device),
            torch.is_autocast_enabled(device),
        )
        self.noise = Noise.of(self.model, 0)
        self.start = copy.deepcopy(self.model.state_dict())
        plan = plan_of(self.model)
        self.slices = {} if plan is None else slices_shown(plan)
        with recording(self.model, slices=self.slices) as first, self._apart():
            output = self._run()
        value = sum(t.float().abs().sum() for t in _with_graph(output))
        if not isinstance(value, torch.Tensor):
            raise RuntimeError("the model puts out nothing that was made with its weights")
        self.labels = Labels(
            head=(),
            shown=None,
            units={} if plan is None else branch_units(plan) | held_units(plan),
            roles=({} if plan is None else module_roles(plan))
            | dict.fromkeys(first.logits, LOGITS),
            scaled=frozenset() if plan is None else frozenset(plan.multipliers),
        )
        matrices = {n: p for n, p in self.model.named_parameters() if p.dim() > 1}
        reached = last_of(value, first.nodes, [])
        before = {n: last_of(value, first.nodes, [p]) for n, p in matrices.items()}
        self.after = {
            row: [name for name, free in before.items() if row not in free] for row in reached
        }
        first.nodes.clear()  # They hold the graph.
        self.plan = None if plan is None else plan.parametrization.name
        shown = prediction(output)
        # Channels of images stand second.
        self.features = None if shown is None else shown.shape[1 if shown.dim() > 3 else -1]
        self.first = first
        self._keep(0, output=first.sizes, input=first.inputs, expected=first.expected,
                   reach=first.reaches)  # fmt: skip

    def _measure(self, made: int) -> None:
        last = made == self.steps
        if made == 1 and (plan := plan_of(self.model)) is not None and self.first is not None:
            require_hooks_ran(self.model, plan, self.first.called)
        with (
            torch.no_grad(),
            recording(
                self.model, self.first, start=self.start if last else None, slices=self.slices
            ) as now,
            self._apart(),
        ):
            self._run()
        self._keep(made, output=now.sizes, delta=now.changes, update=now.updates,
                   aligned=now.aligned)  # fmt: skip
        if last:
            found = {
                "rows": self.rows,
                "after": self.after,
                "shapes": {name: list(p.shape) for name, p in self.model.named_parameters()},
                "turned": _turned(self.model),
                "features": self.features,
                "plan": self.plan,
            }
            write_over(self.folder / ROWS, json.dumps(found))

    def _keep(self, made: int, **quantities: dict[str, float]) -> None:
        for quantity, sizes in quantities.items():
            self.rows += self.labels.rows(0.0, made, quantity, sizes)
        size = next(reversed(quantities["output"].values()), 0.0)
        with open(self.folder / LINES, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": made, "size": size}) + "\n")

    def _run(self) -> Any:
        args, kwargs = self.inputs
        with torch.autocast(*self.precision):
            return self.model(*copied(args), **copied(kwargs))

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Leave the script's run as it is: its random numbers, buffers and modes."""
        modes = {module: module.training for module in self.model.modules()}
        buffers = [(buffer, buffer.detach().clone()) for buffer in self.model.buffers()]
        without_dropout(self.model)
        try:
            with ExitStack() as stack:
                stack.enter_context(self.noise.fixed())
                # Compiled modules would not call the hooks that record.
                stack.enter_context(torch.compiler.set_stance("force_eager"))
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)


# Where Lightning's Fabric keeps the module that it calls, with its precision.
_FABRICS = "_forward_module"


def _called(model: nn.Module) -> nn.Module:
    """What is called with the inputs as they go into the model: Fabric converts them before."""
    inner = dict(model.named_children()).get(_FABRICS)
    return model if inner is None else _called(inner)


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model that was compiled, distributed, or set up by Fabric."""
    while True:
        inner = getattr(model, "_orig_mod", dict(model.named_children()).get(_FABRICS))
        if inner is None and isinstance(
            model, nn.DataParallel | nn.parallel.DistributedDataParallel
        ):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _rank() -> int:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    return int(os.environ.get("RANK", "0"))


def _require_whole(model: nn.Module) -> None:
    sharded = any(hasattr(p, "full_tensor") for p in model.parameters()) or any(
        type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()
    )
    several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
    together = several and any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    if sharded or together:
        what = "is sharded over processes" if sharded else "has SyncBatchNorm"
        raise RuntimeError(
            f"the model {what}, and one process cannot run it by itself: check it with one process "
            "(the widths of a check are small)"
        )


def _require_untrained(model: nn.Module) -> None:
    if any(p.grad is not None for p in model.parameters()):
        raise RuntimeError(
            "paramz.record was first called after a backward pass, and the check starts before "
            f"training: {_HOW}"
        )


def _with_graph(output: Any) -> Iterator[torch.Tensor]:
    """The tensors in what a model returned that were made with its weights; losses, too."""
    if isinstance(output, torch.Tensor):
        found = [output]
    else:
        found = list(activations(output))
        parts = output.values() if isinstance(output, dict) else output
        if not found and isinstance(parts, list | tuple):
            found = [part for part in parts if isinstance(part, torch.Tensor)]
    yield from (tensor for tensor in found if tensor.requires_grad)


def _turned(model: nn.Module) -> list[str]:
    """The weights whose first axis is what goes in: of embeddings, and of transposed layers."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [
        names[id(module.weight)]
        for module in model.modules()
        if (isinstance(module, nn.Embedding) or type(module).__name__ == TRANSPOSED_LINEAR)
        and id(module.weight) in names
    ]
