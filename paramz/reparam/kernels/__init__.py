"""How weight maps are computed: Triton kernels where there is a GPU, plain torch elsewhere."""
