"""A learned optimizer in the line of muLO, and its meta-training."""
