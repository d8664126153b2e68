"""What a sweep is: its spec, axes, limits and training function."""
