"""A learned optimizer (muLO) and its meta-training."""
