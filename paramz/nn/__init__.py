"""Unit-scaled layers and operations (u-muP), and the conversion of a plain model to them."""

from paramz.nn.convert import unit_scale_ as unit_scale_
from paramz.nn.fold import fold_scales_ as fold_scales_
from paramz.nn.fp8 import Fp8 as Fp8
from paramz.nn.low_precision import fp8_ as fp8_
from paramz.nn.modules import GELU as GELU
from paramz.nn.modules import Conv1D as Conv1D
from paramz.nn.modules import Conv1d as Conv1d
from paramz.nn.modules import Conv2d as Conv2d
from paramz.nn.modules import Embedding as Embedding
from paramz.nn.modules import LayerNorm as LayerNorm
from paramz.nn.modules import Linear as Linear
from paramz.nn.modules import Readout as Readout
from paramz.nn.modules import RMSNorm as RMSNorm
from paramz.nn.modules import SiLU as SiLU
from paramz.nn.multihead import MultiheadAttention as MultiheadAttention
from paramz.nn.plan import unit_plan as unit_plan
from paramz.nn.residual import Alphas as Alphas
from paramz.nn.residual import taus as taus
from paramz.nn.scale import Scale as Scale
from paramz.nn.scale import scale as scale
from paramz.nn.transformer import TransformerDecoder as TransformerDecoder
