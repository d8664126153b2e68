"""Shampoo, which preconditions with roots of the gradients' second moments."""
