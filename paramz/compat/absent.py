"""Names of unit_scaling that `paramz.compat.unit_scaling` leaves out, and what to use instead.

It stands here and imports no torch, so that source code is converted without loading torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NoReturn

_CONVERT = (
    "use paramz.parametrize_(model, 'u-mup', example=batch), which converts a plain model in place "
    "with u-muP's learning rates. unit_scale is the older scheme without them, with residual "
    "weights fixed at 0.5 and 0.01, and works through private parts of torch's compiler"
)
_FP8 = (
    "use paramz.nn.fp8_(model), whose formats are torch's own float8 types, simulated anywhere and "
    "real on a GPU that has them. The package's rounding is stochastic and its largest E4M3 number "
    "240, not the hardware's 448"
)
_TRACK = (
    "use paramz.coord_check, which measures sizes over widths and steps and judges them, or "
    "forward hooks; unit_scaling.transforms still traces a model made of these layers"
)
_PLOT = (
    "use paramz.coord_check and its plots; the package's own needs a tokenizer and downloads text"
)
_GRAPH = (
    "paramz rewrites no graphs: parametrize_ exchanges layers, so torch.compile and torch.fx see "
    "an ordinary model"
)

ABSENT: Mapping[str, str] = MappingProxyType(
    {
        "analysis.example_batch": _PLOT,
        "analysis.graph_to_dataframe": _PLOT,
        "analysis.plot": _PLOT,
        "analysis.visualiser": _PLOT,
        "docs": "it edits the package's own docstrings and has no other use",
        "formats.FPFormat": _FP8,
        "formats.format_to_tuple": _FP8,
        "formats.tuple_to_format": _FP8,
        "functional.torch_map": _GRAPH,
        "transforms.Metrics": _TRACK,
        "transforms.compile": (
            "use torch.compile(model): these layers compile without graph breaks, and there are no "
            "transforms here that it would have to be nested with"
        ),
        "transforms.prune_non_float_tensors": _TRACK,
        "transforms.prune_same_scale_tensors": _TRACK,
        "transforms.prune_selected_nodes": _TRACK,
        "transforms.simulate_format": _FP8,
        "transforms.simulate_fp8": _FP8,
        "transforms.track_scales": _TRACK,
        "transforms.unit_scale": _CONVERT,
        "transforms.utils": _GRAPH,
        "utils.ScalePair": _TRACK,
        "utils.ScaleTracker": _TRACK,
        "utils.ScaleTrackingInterpreter": _TRACK,
        "utils.analyse_module": _TRACK,
    }
)


def refuse(module: str, name: str) -> NoReturn:
    """Say why a name of unit_scaling is not in one of these modules.

    Raises:
        ImportError: the name is in `ABSENT`; ``from module import name`` shows it as it is.
        AttributeError: unit_scaling has no such name either.
    """
    within = module.removeprefix("paramz.compat.unit_scaling").removeprefix(".")
    full = f"{within}.{name}" if within else name
    if full in ABSENT:
        raise ImportError(f"unit_scaling.{full} is not in {module}: {ABSENT[full]}.")
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
