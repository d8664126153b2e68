"""One weight map per file: how a weight is computed from other tensors."""
