"""From mup, unit-scaling, Megatron-LM and Cerebras to paramz: what each thing becomes."""

from paramz.conversion.code import Finding as Finding
from paramz.conversion.convert import Conversion as Conversion
from paramz.conversion.convert import convert as convert
