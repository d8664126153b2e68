"""What a parametrization means for one model: a row per tensor, and the numbers that follow."""
