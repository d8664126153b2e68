"""Verbs: plan (the table of a model, or its export to a framework)."""

import inspect
import json
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paramz.cli.functions import Scheme, Set, config_of, located, numbers, refused
from paramz.cli.said import prints_aside, said_at_once

if TYPE_CHECKING:
    from paramz.plan.plan import Plan

_SIZES = ("width", "depth", "experts")
# What the first parameter of a task function is called; that of a model's is its width.
_CONFIG = ("config", "cfg", "settings")


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the app."""
    app.command("plan")(plan)


def plan(
    source: Annotated[
        str,
        typer.Argument(
            help="A function (config) -> paramz.Task or (width) -> model, as path/to/file.py:name "
            "or module:name; or a Hugging Face model: a folder, its config.json, or a name in the "
            "local cache."
        ),
    ],
    target: Annotated[
        str, typer.Option(help="Sizes of the model, as width=4096,depth=32. A config has its own.")
    ] = "",
    base: Annotated[str, typer.Option(help="Sizes of the base, as width=256,depth=4.")] = "",
    width: Annotated[int | None, typer.Option(min=1, help="Short for --target width=.")] = None,
    base_width: Annotated[int | None, typer.Option(min=1, help="Short for --base width=.")] = None,
    parametrization: Scheme = "mup",
    optimizer: Annotated[
        str, typer.Option(help="Whose learning rates to show; of two: muon,adamw.")
    ] = "adamw",
    export: Annotated[
        str | None,
        typer.Option(
            help="Print the settings of megatron, torchtitan, olmo-core, nanochat, deepspeed or "
            "trainer instead."
        ),
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(
            help="For --export: learning rate at the base; of two optimizers: 0.02,0.003."
        ),
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(min=0, help="For --export: weight decay at the base.")
    ] = None,
    eps: Annotated[
        float | None, typer.Option(min=0, help="For --export: epsilon at the base.")
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            help="For --export: a YAML list of pairs (pattern, replacement) for tensor names."
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="One line per tensor.")] = False,
    settings: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show which tensor gets which role, init, learning rate, epsilon and decay, and why.

    Models are built without memory for their weights, and nothing is downloaded. Where the table
    is wider than the terminal, or than 80 columns in a pipe, each row becomes a few lines;
    COLUMNS=200 before the command gives the table.
    """
    try:
        small = _sizes("--base", base, "--base-width", base_width)
        large = _sizes("--target", target, "--width", width)
        if "width" not in small:
            smaller = f"such as {large['width'] // 4}, " if large.get("width", 0) >= 4 else ""
            raise ValueError(
                "--base is missing: at which width was the learning rate tuned, or will it be? "
                f"Write --base width= with that width, {smaller}smaller than the target's"
            )
        exporting = _exporting(export, optimizer, lr, weight_decay=weight_decay, eps=eps)
        pairs = _pairs(names)
        with prints_aside(), said_at_once():
            made = _planned(source, large, small, parametrization, settings, export is not None)
            if export is None:
                tables = [made.summary(each, full=full) for each in optimizer.split(",")]
                columns = shutil.get_terminal_size().columns  # 80 in a pipe
                texts = [table.within(columns) for table in tables]
                shown = json.dumps(made.to_json()) if as_json else "\n\n".join(texts)
            else:
                result = made.export(export, names=pairs, **exporting)
                shown = json.dumps(asdict(result)) if as_json else result.text
    except Exception as error:
        raise refused(error) from None
    typer.echo(shown)


def _planned(
    source: str,
    large: dict[str, int],
    small: dict[str, int],
    scheme: str,
    settings: list[str] | None,
    measured: bool,
) -> "Plan":
    """The plan of what a source builds; with the base's init if that is to be exported."""
    import torch

    import paramz

    planner: Any = paramz.parametrize_ if measured else paramz.make_plan
    width, others = small["width"], {k: n for k, n in small.items() if k != "width"}
    if not _names_a_function(source):
        model, factory = _from_config(source, large, others)
        return planner(model, scheme, base=factory, base_width=width)  # type: ignore[no-any-return]
    if "width" not in large:
        raise ValueError(f"--target is missing: which model of {source}? Write --target width=4096")
    made = _called(source, settings)
    build = made.build if isinstance(made, paramz.Task) else made
    with torch.device("meta"):
        model = build(large.pop("width"), **large)
    if isinstance(made, paramz.Task):
        planner = made.parametrize_ if measured else made.make_plan
        return planner(model, scheme, base_width=width, base_sizes=others)  # type: ignore[no-any-return]
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"{source} returned {type(model).__name__}, no torch.nn.Module: name a function "
            "(width) -> model, or (config) -> paramz.Task with config as its parameter's name"
        )
    base = partial(build, **others) if others else build
    return planner(model, scheme, base=base, base_width=width)  # type: ignore[no-any-return]


def _called(source: str, settings: list[str] | None) -> Any:
    """The task that a named function returns, or the function itself if it builds models."""
    from paramz.check.named import named_task
    from paramz.sweeps.spec.target import load_object

    place = located(source)
    found = load_object(place)
    if not callable(found):
        raise TypeError(
            f"{source} is {type(found).__name__}, no function: name a function (width) -> model, "
            "or (config) -> paramz.Task"
        )
    first = next(iter(inspect.signature(found).parameters), "")
    if first not in _CONFIG:
        if settings:
            raise ValueError(f"--set is for tasks, and {source} takes {first or 'nothing'}")
        return found
    return named_task(place, config_of(settings))


def _from_config(source: str, large: dict[str, int], small: dict[str, int]) -> tuple[Any, Any]:
    """A Hugging Face model on the meta device, and a factory of its other widths."""
    import torch

    from paramz.anatomy.hf_config import config_factory, scaled_config

    try:
        import transformers
    except ImportError:
        raise ImportError(
            f"{source} names no function (file.py:name), so it is taken for a Hugging Face model, "
            "which needs transformers: pip install 'torch-paramz[hf]'"
        ) from None
    try:
        config = transformers.AutoConfig.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError) as error:
        if source.endswith(".py"):
            raise ValueError(
                f"{source} names no function: write {source}:task, a function (config) -> "
                "paramz.Task or (width) -> model"
            ) from None
        if Path(source).exists():
            raise ValueError(f"{source}: {' '.join(str(error).split())[:300]}") from None
        raise ValueError(
            f"{source} is no function (file.py:name), no folder or file with a Hugging Face "
            "config, and no model in the local cache (nothing is downloaded)"
        ) from None
    if large:
        config = scaled_config(
            config,
            large.get("width", config.get_text_config().hidden_size),
            depth=large.get("depth"),
            experts=large.get("experts"),
        )
    names = [name for name in config.architectures or [] if hasattr(transformers, name)]
    with torch.device("meta"):
        if names:
            model = getattr(transformers, names[0])(config)
        else:
            language: Any = transformers.AutoModelForCausalLM
            known = type(config) in language._model_mapping
            model = (language if known else transformers.AutoModel).from_config(config)
    return model, config_factory(model, **small)


def _names_a_function(source: str) -> bool:
    module, colon, name = source.rpartition(":")
    return bool(colon) and name.isidentifier() and not Path(source).exists() and bool(module)


def _sizes(option: str, text: str, short: str, width: int | None) -> dict[str, int]:
    """Sizes by name, as in ``width=256,depth=4``."""
    found: dict[str, int] = {}
    for part in text.split(",") if text else []:
        name, _, number = part.strip().partition("=")
        if name not in _SIZES or not number.isdecimal() or int(number) < 1:
            raise ValueError(f"{option} {part}: write {', '.join(f'{s}=...' for s in _SIZES)}")
        found[name] = int(number)
    if width is not None and found.setdefault("width", width) != width:
        raise ValueError(f"{option} width={found['width']} and {short} {width}: give one of them")
    return found


def _exporting(
    export: str | None, optimizer: str, lr: str | None, **others: float | None
) -> dict[str, Any]:
    """The settings for `Plan.export`, those of two optimizers apart."""
    given = {key: value for key, value in others.items() if value is not None}
    if export is None:
        for name in ["lr"] * (lr is not None) + list(given):
            raise ValueError(f"--{name.replace('_', '-')} is for --export, which is not asked for")
        return {}
    if lr is None:
        raise ValueError("--export needs --lr, the learning rate that was tuned at the base")
    kinds, rates = optimizer.split(","), numbers("--lr", lr)
    if len(kinds) != len(rates):
        raise ValueError(f"--optimizer {optimizer} and --lr {lr}: write one lr for each optimizer")
    if len(kinds) == 1:
        return {"optimizer": kinds[0], "lr": rates[0], **given}
    return {kind: {"lr": rate, **given} for kind, rate in zip(kinds, rates, strict=True)}


def _pairs(names: Path | None) -> list[tuple[str, str]]:
    if names is None:
        return []
    import yaml

    from paramz.sweeps.spec.textfile import read_text

    try:
        found = yaml.safe_load(read_text(names))
    except yaml.YAMLError as error:
        raise ValueError(f"{names}: {' '.join(str(error).split())}") from None
    if not isinstance(found, list) or not all(
        isinstance(pair, list) and [type(each) for each in pair] == [str, str] for pair in found
    ):
        raise ValueError(f"{names}: write a list of pairs, as in - ['^model.layers', 'blocks']")
    return [(pattern, replacement) for pattern, replacement in found]
