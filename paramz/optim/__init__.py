"""Optimizers that paramz brings: those that need width-correct rules of their own."""

from paramz.optim.kfac.kfac import KFAC as KFAC
from paramz.optim.learned.learned import LearnedOptimizer as LearnedOptimizer
from paramz.optim.learned.meta import meta_train as meta_train
from paramz.optim.shampoo.shampoo import Shampoo as Shampoo
