"""Weight reparametrizations: weights computed from other tensors, under any parametrization."""

from paramz.reparam.apply import reparametrize_, unreparametrize_
from paramz.reparam.compander import Compander
from paramz.reparam.weight_norm import WeightNorm

__all__ = ["Compander", "WeightNorm", "reparametrize_", "unreparametrize_"]
