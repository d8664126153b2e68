"""Fast computation of weights: Triton kernels on a GPU, hand-written gradients in eager mode."""
