"""The public names of the mup package (1.0.0, and what its main branch adds), over paramz's plans.

``from paramz.compat.mup import set_base_shapes, MuReadout, MuAdam`` instead of ``from mup import``:
the same results bit for bit at the base width, to rounding at others. What differs, on purpose, is
listed in docs/migration.md.
"""

from __future__ import annotations

import paramz.compat.mup.coord_check as coord_check
import paramz.compat.mup.infshape as infshape
import paramz.compat.mup.init as init
import paramz.compat.mup.layer as layer
import paramz.compat.mup.optim as optim
import paramz.compat.mup.shape as shape
from paramz.compat.mup.infshape import InfDim, InfShape, zip_infshape
from paramz.compat.mup.init import (
    calculate_gain,
    constant_std_init_,
    eye_,
    kaiming_normal_,
    kaiming_uniform_,
    normal_,
    ones_,
    trunc_normal_,
    uniform_,
    xavier_normal_,
    xavier_uniform_,
)
from paramz.compat.mup.layer import MuReadout, MuSharedReadout, rescale_linear_bias
from paramz.compat.mup.optim import MuAdam, MuAdamW, MuSGD, process_param_groups
from paramz.compat.mup.shape import (
    apply_infshapes,
    assert_hidden_size_inf,
    clear_dims,
    get_infshapes,
    get_shapes,
    load_base_shapes,
    make_base_shapes,
    save_base_shapes,
    set_base_shapes,
    zip_infshapes,
)
from paramz.compat.mup.tensors import infshape_of

__all__ = [
    "apply_infshapes",
    "assert_hidden_size_inf",
    "calculate_gain",
    "clear_dims",
    "constant_std_init_",
    "coord_check",
    "eye_",
    "get_infshapes",
    "get_shapes",
    "InfDim",
    "InfShape",
    "infshape",
    "infshape_of",
    "init",
    "kaiming_normal_",
    "kaiming_uniform_",
    "layer",
    "load_base_shapes",
    "make_base_shapes",
    "MuAdam",
    "MuAdamW",
    "MuReadout",
    "MuSGD",
    "MuSharedReadout",
    "normal_",
    "ones_",
    "optim",
    "process_param_groups",
    "rescale_linear_bias",
    "save_base_shapes",
    "set_base_shapes",
    "shape",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zip_infshape",
    "zip_infshapes",
]
