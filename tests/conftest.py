"""One thread per test process, quiet libraries, and property tests that repeat exactly."""

import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import hypothesis
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "paramz", deadline=None, derandomize=True, database=None, max_examples=30
)
hypothesis.settings.load_profile("paramz")
