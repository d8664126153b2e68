"""Hugging Face: configs at another width, checkpoints with their plan, what the Trainer needs."""

from typing import Any

from paramz.integrations.hf import check_arguments as check_arguments
from paramz.integrations.hf import config_factory as config_factory
from paramz.integrations.hf import from_pretrained as from_pretrained
from paramz.integrations.hf import save_pretrained as save_pretrained
from paramz.integrations.hf import scaled_config as scaled_config


def __getattr__(name: str) -> Any:
    if name == "Clip":  # imports transformers
        from paramz.integrations.clip import Clip

        return Clip
    raise AttributeError(f"module 'paramz.hf' has no attribute {name!r}")
