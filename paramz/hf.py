"""Hugging Face models: configs at another width (`paramz.integrations.hf` under a short name)."""

from paramz.integrations.hf import config_factory as config_factory
from paramz.integrations.hf import scaled_config as scaled_config
