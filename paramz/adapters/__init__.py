"""Adapters that PEFT lacks: factors that layers share, pools of shards, singular vectors' weights.

`attach_` puts them on the linear layers of a trained model, `merge_` adds them to its weights. The
scheme ``lora`` has their rules, as it has those of PEFT's.
"""

from paramz.adapters.attach import attach_, detach_, merge_
from paramz.adapters.closest import share_closest_
from paramz.adapters.mos import MoS
from paramz.adapters.share_lora import ShareLoRA
from paramz.adapters.svft import SVFT

__all__ = ["SVFT", "MoS", "ShareLoRA", "attach_", "detach_", "merge_", "share_closest_"]
