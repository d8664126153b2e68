"""Glue for libraries that own their training loop or their configs."""
