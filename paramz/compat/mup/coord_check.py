"""mup's coordinate check: sizes of activations over widths and steps, as a table and a figure.

The figure is for people to judge. `paramz.coord_check` and `paramz.judge` measure slopes with their
intervals and come to a verdict: pass, or fail with the module and the likely cause, or undecided.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramz.compat.mup.optim import MuAdam, MuAdamW, MuSGD

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Statistic = Callable[[Tensor], Tensor]
Statistics = Mapping[str, Statistic | str]
Loss = Callable[[Tensor, Tensor], Tensor]


def cov(x: Tensor) -> Tensor:
    """Inner products per entry of vectors, (..., d) -> (n, n) with n the number of vectors.

    >>> cov(torch.eye(2)).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    vectors = x.reshape(1, 1) if x.nelement() == 1 else x.reshape(-1, x.shape[-1])
    return vectors @ vectors.T / vectors.shape[-1]


def covoffdiag(x: Tensor) -> Tensor:
    """The entries of `cov` off the diagonal, as one vector."""
    products = cov(x)
    return products[~torch.eye(products.shape[0], dtype=torch.bool, device=x.device)]


def _l1(x: Tensor) -> Tensor:
    return x.abs().mean()


def _l2(x: Tensor) -> Tensor:
    return (x**2).mean() ** 0.5


FDICT: Mapping[str, Statistic] = MappingProxyType(
    {
        "l1": _l1,
        "l2": _l2,
        "mean": lambda x: x.mean(),
        "std": lambda x: x.std(),
        "covl1": lambda x: _l1(cov(x)),
        "covl2": lambda x: _l2(cov(x)),
        "covoffdiagl1": lambda x: _l1(covoffdiag(x)),
        "covoffdiagl2": lambda x: _l2(covoffdiag(x)),
    }
)

_LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "xent": F.cross_entropy,
        "nll": F.nll_loss,
        "mse": lambda out, y: F.mse_loss(out, F.one_hot(y, out.size(-1)).to(out.dtype)),
        "l1": lambda out, y: F.l1_loss(out, F.one_hot(y, out.size(-1)).to(out.dtype)),
    }
)


def convert_fdict(d: Statistics) -> dict[str, Statistic]:
    """Statistics by name; one that is given as a name is looked up in `FDICT`.

    >>> convert_fdict({"size": "l1"})["size"] is FDICT["l1"]
    True
    """
    return {name: FDICT[f] if isinstance(f, str) else f for name, f in d.items()}


def get_coord_data(
    models: Mapping[Any, Callable[[], nn.Module]],
    dataloader: Iterable[Any],
    optimizer: str | Callable[[nn.Module], Any] = "sgd",
    lr: float | None = None,
    mup: bool = True,
    filter_trainable_by_name: Callable[[str], bool] | None = None,
    *,
    nsteps: int = 3,
    dict_in_out: bool = False,
    flatten_input: bool = False,
    flatten_output: bool = False,
    output_name: str = "loss",
    lossfn: str | Callable[[Tensor, Tensor], Tensor] = "xent",
    filter_module_by_name: Callable[[str], bool] | None = None,
    fix_data: bool = True,
    cuda: bool = True,
    nseeds: int = 1,
    output_fdict: Statistics | None = None,
    input_fdict: Statistics | None = None,
    param_fdict: Statistics | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Train models of several widths for a few steps and record the size of every activation.

    Args:
        models: width -> function that builds the model.
        dataloader: batches: (input, target), or mappings with ``dict_in_out``.
        optimizer: ``"sgd"``, ``"adam"`` or ``"adamw"``, or a function model -> optimizer.
        lr: by default 0.1 for SGD and 1e-3 for the others.
        mup: with muP's learning rates, or with torch's optimizers as they are.
        filter_trainable_by_name: which parameters to train, by name.
        nsteps: steps; the table's ``t`` counts from 1, before the first update.
        dict_in_out: call ``model(**batch)`` and take the loss from its output.
        flatten_input: flatten all axes of the input but the first.
        flatten_output: flatten all axes of the output but the last.
        output_name: key of the loss in an output that is a mapping.
        lossfn: ``"xent"``, ``"nll"``, ``"mse"``, ``"l1"``, or a function (output, target) -> loss.
        filter_module_by_name: which modules to record, by name.
        fix_data: use the first batch at every step.
        cuda: on a GPU, if there is one.
        nseeds: seeds 0, 1, ...
        output_fdict: statistics of outputs, ``{"l1": "l1"}`` by default.
        input_fdict: statistics of inputs.
        param_fdict: statistics of parameters.
        show_progress: show a bar.

    Returns:
        a DataFrame with columns width, module, t, the statistics, optimizer and lr.

    Raises:
        ValueError: the optimizer or the loss has an unknown name.
    """
    import pandas as pd
    from rich.progress import track

    if lr is None:
        lr = 0.1 if optimizer == "sgd" else 1e-3
    make = _optimizer(optimizer, lr, mup, filter_trainable_by_name)
    step = _ForwardPass(
        dict_in_out=dict_in_out,
        flatten_input=flatten_input,
        flatten_output=flatten_output,
        output_name=output_name,
        loss=_loss(lossfn),
        device=torch.device("cuda" if cuda and torch.cuda.is_available() else "cpu"),
    )
    recorder = _Recorder(
        of_output=convert_fdict(output_fdict if output_fdict is not None else {"l1": "l1"}),
        of_input=convert_fdict(input_fdict or {}),
        of_parameters=convert_fdict(param_fdict or {}),
        wanted=filter_module_by_name,
    )
    if fix_data:
        dataloader = [next(iter(dataloader))] * nsteps
    elif isinstance(dataloader, Iterator):  # the first model would leave none for the others
        dataloader = list(islice(dataloader, nsteps))
    runs = [(seed, width) for seed in range(nseeds) for width in models]
    for seed, width in track(runs, "coordinate check", disable=not show_progress):
        if width == next(iter(models)):
            torch.manual_seed(seed)
        model = models[width]().train().to(step.device)
        stepper = make(model)
        for t, batch in enumerate(dataloader, 1):
            with recorder.watching(model, width, t):
                loss = step(model, batch)
            stepper.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            stepper.step()
            if t == nsteps:
                break
    name = optimizer if isinstance(optimizer, str) else getattr(optimizer, "__name__", "custom")
    return pd.DataFrame(recorder.records).assign(optimizer=name, lr=lr)


def plot_coord_data(
    df: pd.DataFrame,
    y: str = "l1",
    save_to: str | os.PathLike[str] | None = None,
    suptitle: str | None = None,
    x: str = "width",
    hue: str = "module",
    legend: Any = "full",
    name_contains: str | None = None,
    name_not_contains: str | None = None,
    loglog: bool = True,
    logbase: int = 2,
    face_color: str | None = None,
) -> Figure:
    """Draw a table of `get_coord_data`: one panel per step, one curve per module.

    Args:
        df: the table.
        y: the statistic.
        save_to: write the figure to this file.
        suptitle: title of the figure.
        x: column along x.
        hue: column that has a curve for each of its values.
        legend: as in ``seaborn.lineplot``; in the first panel only.
        name_contains: only modules whose name matches this regular expression.
        name_not_contains: only modules whose name does not.
        loglog: logarithmic axes.
        logbase: their base.
        face_color: background.

    Returns:
        the figure, which is pyplot's current one as well.
    """
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn

    df = df[df.module != ""]  # the model itself, whose output is its last module's
    if name_contains is not None:
        df = df[df.module.str.contains(name_contains)]
    elif name_not_contains is not None:
        df = df[~df.module.str.contains(name_not_contains)]
    numbers = pd.to_numeric(df.module, errors="coerce")
    if numbers.notna().all():  # nn.Sequential: a scale of colours rather than a set
        df = df.assign(module=numbers)
    steps = df.t.unique()
    with seaborn.axes_style("darkgrid"):
        figure, panels = plt.subplots(
            1, len(steps), figsize=(5 * len(steps), 4), squeeze=False, facecolor=face_color
        )
    for panel, t in zip(panels[0], steps, strict=True):
        first = bool(t == steps[0])
        seaborn.lineplot(
            df[df.t == t], x=x, y=y, hue=hue, legend=legend if first else False, ax=panel
        )
        panel.set(title=f"t={t}", ylabel=y if first else "")
        if loglog:
            panel.set_xscale("log", base=logbase)
            panel.set_yscale("log", base=logbase)
    if suptitle:
        figure.suptitle(suptitle)
    figure.tight_layout(rect=(0, 0.03, 1, 0.95))
    if save_to is not None:
        figure.savefig(save_to)
    return figure


def _optimizer(
    optimizer: str | Callable[[nn.Module], Any],
    lr: float,
    mup: bool,
    trained: Callable[[str], bool] | None,
) -> Callable[[nn.Module], Any]:
    if callable(optimizer):
        return optimizer
    ours: dict[str, Any] = {"sgd": MuSGD, "adam": MuAdam, "adamw": MuAdamW}
    torchs: dict[str, Any] = {
        "sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW
    }  # fmt: skip
    if optimizer not in ours:
        raise ValueError(
            f"optimizer={optimizer!r} is none of {', '.join(ours)}, nor a function model -> "
            "optimizer"
        )
    kind = (ours if mup else torchs)[optimizer]

    def make(model: nn.Module) -> Any:
        named = model.named_parameters()
        return kind([p for name, p in named if trained is None or trained(name)], lr=lr)

    return make


def _loss(lossfn: str | Loss) -> Loss:
    if not isinstance(lossfn, str):
        return lossfn
    if lossfn not in _LOSSES:
        raise ValueError(f"lossfn={lossfn!r} is none of {', '.join(_LOSSES)}, nor a function")
    return _LOSSES[lossfn]


@dataclass(frozen=True, kw_only=True)
class _ForwardPass:
    """From a batch to the loss; the attributes are arguments of `get_coord_data`."""

    dict_in_out: bool
    flatten_input: bool
    flatten_output: bool
    output_name: str
    loss: Loss
    device: torch.device

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        if self.dict_in_out:
            output = model(**{k: _on(self.device, v) for k, v in batch.items()})
            by_name = isinstance(output, Mapping)
            loss: Tensor = output[self.output_name] if by_name else output[0]
            return loss
        x, y = (_on(self.device, v) for v in batch)
        output = model(x.flatten(1) if self.flatten_input else x)
        return self.loss(output.flatten(0, -2) if self.flatten_output else output, y)


@dataclass(frozen=True, kw_only=True)
class _Recorder:
    """What to record of every module, and the records so far.

    Attributes:
        of_output, of_input, of_parameters: statistics of each, by name.
        wanted: which modules to record, by name; None for all.
        records: a row of the table each.
    """

    of_output: Mapping[str, Statistic]
    of_input: Mapping[str, Statistic]
    of_parameters: Mapping[str, Statistic]
    wanted: Callable[[str], bool] | None
    records: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def watching(self, model: nn.Module, width: Any, t: int) -> Iterator[None]:
        """Record every call of the model's modules."""
        with ExitStack() as hooks:
            for name, module in model.named_modules():
                if self.wanted is None or self.wanted(name):
                    about = {"width": width, "module": name, "t": t}
                    hook = partial(self._record, about)
                    hooks.callback(module.register_forward_hook(hook).remove)
            yield

    def _record(self, about: dict[str, Any], module: nn.Module, inputs: Any, output: Any) -> None:
        found = _tensors(output, "" if isinstance(output, Tensor) else ":out")
        measured = [(label, tensor, self.of_output) for label, tensor in found]
        if self.of_input:
            measured += [(label, x, self.of_input) for label, x in _tensors(inputs, ":in")]
        if self.of_parameters:
            named = module.named_parameters()
            measured += [(f":param[{name}]", p, self.of_parameters) for name, p in named]
        with torch.no_grad():
            for label, tensor, statistics in measured:
                values = {name: f(tensor).item() for name, f in statistics.items()}
                self.records.append({**about, "module": about["module"] + label, **values})


def _tensors(x: Any, label: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors in an output, in order, each with its place in the output; None is skipped."""
    if isinstance(x, Tensor):
        yield label, x
    elif isinstance(x, tuple | list | Mapping):
        for key, part in x.items() if isinstance(x, Mapping) else enumerate(x):
            yield from _tensors(part, f"{label}[{key}]")
    elif x is not None:
        raise TypeError(
            f"an activation of type {type(x).__name__} cannot be measured: leave its module out "
            "with filter_module_by_name"
        )


def _on(device: torch.device, value: Any) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
