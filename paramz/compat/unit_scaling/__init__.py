"""unit_scaling 0.3.5 on paramz's u-muP: ``import paramz.compat.unit_scaling as uu``.

The names, signatures and numbers are those of Graphcore's package (Blake et al. 2024, arXiv
2407.17465). What differs is listed in docs/migration_unit_scaling.md. Names that are left out are
in `ABSENT`; importing one raises an error that says why and what to use.

>>> model = TransformerDecoder(32, vocab_size=11, layers=2, heads=2)
>>> optimizer = optim.AdamW(model.parameters(), lr=1.0, weight_decay=2**-13)
>>> len(optimizer.param_groups)
4
"""

from __future__ import annotations

from typing import NoReturn

import paramz.compat.unit_scaling.constraints as constraints
import paramz.compat.unit_scaling.core as core
import paramz.compat.unit_scaling.functional as functional
import paramz.compat.unit_scaling.optim as optim
import paramz.compat.unit_scaling.parameter as parameter
import paramz.compat.unit_scaling.scale as scale
from paramz.compat.absent import ABSENT as ABSENT
from paramz.compat.absent import refuse
from paramz.compat.unit_scaling._layers import (
    GELU,
    Conv1d,
    CrossEntropyLoss,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    LinearReadout,
    RMSNorm,
    SiLU,
    Softmax,
)
from paramz.compat.unit_scaling._stacks import DepthModuleList, DepthSequential
from paramz.compat.unit_scaling._transformer import (
    MHSA,
    MLP,
    TransformerDecoder,
    TransformerLayer,
)
from paramz.compat.unit_scaling._transformer import TransformerStack as TransformerStack
from paramz.compat.unit_scaling.core.functional import transformer_residual_scaling_rule
from paramz.compat.unit_scaling.parameter import MupType, Parameter

# Of the package whose interface this is.
__version__ = "0.3.5"

__all__ = [
    "Conv1d",
    "CrossEntropyLoss",
    "DepthModuleList",
    "DepthSequential",
    "Dropout",
    "Embedding",
    "GELU",
    "LayerNorm",
    "Linear",
    "LinearReadout",
    "MHSA",
    "MLP",
    "MupType",
    "Parameter",
    "RMSNorm",
    "SiLU",
    "Softmax",
    "TransformerDecoder",
    "TransformerLayer",
    "__version__",
    "core",
    "functional",
    "optim",
    "parameter",
    "transformer_residual_scaling_rule",
    "constraints",
    "scale",
]


def __getattr__(name: str) -> NoReturn:
    refuse(__name__, name)
