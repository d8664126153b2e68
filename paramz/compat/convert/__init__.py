"""From mup, unit-scaling, Megatron-LM and Cerebras to paramz: what each thing becomes."""

from __future__ import annotations

from paramz.compat.convert.code import Finding as Finding
from paramz.compat.convert.convert import Conversion as Conversion
from paramz.compat.convert.convert import convert as convert
