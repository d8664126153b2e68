"""Unit-scaled layers and operations (u-muP), and the conversion of a plain model to them."""

from __future__ import annotations

from paramz.nn.convert.fold import fold_scales_ as fold_scales_
from paramz.nn.convert.low_precision import fp8_ as fp8_
from paramz.nn.convert.unit_plan import unit_plan as unit_plan
from paramz.nn.convert.unit_scale import unit_scale_ as unit_scale_
from paramz.nn.fp8 import Fp8 as Fp8
from paramz.nn.layers.convolution import Conv1d as Conv1d
from paramz.nn.layers.convolution import Conv2d as Conv2d
from paramz.nn.layers.linear import Conv1D as Conv1D
from paramz.nn.layers.linear import Linear as Linear
from paramz.nn.layers.linear import Readout as Readout
from paramz.nn.layers.modules import GELU as GELU
from paramz.nn.layers.modules import Embedding as Embedding
from paramz.nn.layers.modules import LayerNorm as LayerNorm
from paramz.nn.layers.modules import RMSNorm as RMSNorm
from paramz.nn.layers.modules import SiLU as SiLU
from paramz.nn.layers.multihead import MultiheadAttention as MultiheadAttention
from paramz.nn.layers.transformer import TransformerDecoder as TransformerDecoder
from paramz.nn.residual import Alphas as Alphas
from paramz.nn.residual import taus as taus
from paramz.nn.scale import Scale as Scale
from paramz.nn.scale import scale as scale
