"""What a sweep asks for: the training function, its configs, and what each trial may use."""
