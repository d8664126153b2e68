"""The recipes, one per file: how a weight is computed from other tensors."""
