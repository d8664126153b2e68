"""Optimizers that paramz brings: those that need width-correct rules of their own."""

from paramz.optim.kfac.kfac import KFAC as KFAC
from paramz.optim.shampoo.shampoo import Shampoo as Shampoo
