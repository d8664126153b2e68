"""Hyperparameter transfer for PyTorch models nobody rewrote."""
