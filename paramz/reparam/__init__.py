"""Weight reparametrizations: weights computed from other tensors, under any parametrization.

Recipes for `reparametrize_`, and layers that are made of such weights.
"""

from paramz.reparam.aol import AOL
from paramz.reparam.apply import reparametrize_, unreparametrize_
from paramz.reparam.compander import Compander
from paramz.reparam.fedpara import FedPara
from paramz.reparam.lipschitz import certified_radius, lipschitz_bound
from paramz.reparam.mean_only import MeanOnlyBatchNorm
from paramz.reparam.mpo import MPO
from paramz.reparam.orthogonal import Orthogonal
from paramz.reparam.relaxed import Relaxed
from paramz.reparam.sandwich import Sandwich
from paramz.reparam.sll import SLL
from paramz.reparam.spectral import SpectralNorm
from paramz.reparam.weight_norm import WeightNorm
from paramz.reparam.weight_norm_init import weight_norm_init_

__all__ = [
    "AOL",
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
    "lipschitz_bound",
    "reparametrize_",
    "unreparametrize_",
    "weight_norm_init_",
]
