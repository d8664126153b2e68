"""The public names of the mup package (1.0.0, and what its main branch adds), over paramz's plans.

``from paramz.compat.mup import set_base_shapes, MuReadout, MuAdam`` instead of ``from mup import``:
the same results bit for bit at the base width, to rounding at others. What differs, on purpose, is
listed in docs/migration.md.
"""

from paramz.compat.mup import coord_check as coord_check
from paramz.compat.mup import infshape as infshape
from paramz.compat.mup import init as init
from paramz.compat.mup import layer as layer
from paramz.compat.mup import optim as optim
from paramz.compat.mup import shape as shape
from paramz.compat.mup.infshape import InfDim as InfDim
from paramz.compat.mup.infshape import InfShape as InfShape
from paramz.compat.mup.infshape import zip_infshape as zip_infshape
from paramz.compat.mup.init import calculate_gain as calculate_gain
from paramz.compat.mup.init import constant_std_init_ as constant_std_init_
from paramz.compat.mup.init import eye_ as eye_
from paramz.compat.mup.init import kaiming_normal_ as kaiming_normal_
from paramz.compat.mup.init import kaiming_uniform_ as kaiming_uniform_
from paramz.compat.mup.init import normal_ as normal_
from paramz.compat.mup.init import ones_ as ones_
from paramz.compat.mup.init import trunc_normal_ as trunc_normal_
from paramz.compat.mup.init import uniform_ as uniform_
from paramz.compat.mup.init import xavier_normal_ as xavier_normal_
from paramz.compat.mup.init import xavier_uniform_ as xavier_uniform_
from paramz.compat.mup.layer import MuReadout as MuReadout
from paramz.compat.mup.layer import MuSharedReadout as MuSharedReadout
from paramz.compat.mup.layer import rescale_linear_bias as rescale_linear_bias
from paramz.compat.mup.optim import MuAdam as MuAdam
from paramz.compat.mup.optim import MuAdamW as MuAdamW
from paramz.compat.mup.optim import MuSGD as MuSGD
from paramz.compat.mup.optim import process_param_groups as process_param_groups
from paramz.compat.mup.shape import apply_infshapes as apply_infshapes
from paramz.compat.mup.shape import assert_hidden_size_inf as assert_hidden_size_inf
from paramz.compat.mup.shape import clear_dims as clear_dims
from paramz.compat.mup.shape import get_infshapes as get_infshapes
from paramz.compat.mup.shape import get_shapes as get_shapes
from paramz.compat.mup.shape import load_base_shapes as load_base_shapes
from paramz.compat.mup.shape import make_base_shapes as make_base_shapes
from paramz.compat.mup.shape import save_base_shapes as save_base_shapes
from paramz.compat.mup.shape import set_base_shapes as set_base_shapes
from paramz.compat.mup.shape import zip_infshapes as zip_infshapes
from paramz.compat.mup.tensors import infshape_of as infshape_of
