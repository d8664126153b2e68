"""Layers whose weights are computed from other tensors by construction, and bounds for them."""
