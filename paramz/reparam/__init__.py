"""Weight reparametrizations: weights computed from other tensors, under any parametrization.

There are recipes for `reparametrize_`, and layers that are made of such weights.
"""

from paramz.reparam.layers.lipschitz import certified_radius, lipschitz_bound
from paramz.reparam.layers.mean_only import MeanOnlyBatchNorm
from paramz.reparam.layers.sandwich import Sandwich
from paramz.reparam.layers.sll import SLL
from paramz.reparam.maps.aol import AOL
from paramz.reparam.maps.compander import Compander
from paramz.reparam.maps.fedpara import FedPara
from paramz.reparam.maps.masa import MASA
from paramz.reparam.maps.mpo import MPO
from paramz.reparam.maps.orthogonal import Orthogonal
from paramz.reparam.maps.relaxed import Relaxed
from paramz.reparam.maps.spectral import SpectralNorm
from paramz.reparam.maps.weight_norm import WeightNorm
from paramz.reparam.maps.weight_norm_init import weight_norm_init_
from paramz.reparam.once import computed_once
from paramz.reparam.reparametrize import reparametrize_, unreparametrize_

__all__ = [
    "AOL",
    "MASA",
    "MPO",
    "SLL",
    "Compander",
    "FedPara",
    "MeanOnlyBatchNorm",
    "Orthogonal",
    "Relaxed",
    "Sandwich",
    "SpectralNorm",
    "WeightNorm",
    "certified_radius",
    "computed_once",
    "lipschitz_bound",
    "reparametrize_",
    "unreparametrize_",
    "weight_norm_init_",
]
