"""The optimizers that paramz brings, because they need rules of their own to transfer."""

from paramz.optim.constrained import constrained as constrained
from paramz.optim.kfac.kfac import KFAC as KFAC
from paramz.optim.learned.learned import LearnedOptimizer as LearnedOptimizer
from paramz.optim.learned.meta import meta_train as meta_train
from paramz.optim.shampoo.shampoo import Shampoo as Shampoo
