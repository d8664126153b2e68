"""The width of a base: what is none is said so, and sizes that a model's code rounds are named."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Lfm2Config, Lfm2ForCausalLM, LlamaConfig, LlamaForCausalLM

import paramz


def net(width):
    return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 3))


def llama():
    sizes = {"intermediate_size": 512, "num_hidden_layers": 1, "vocab_size": 50}
    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(hidden_size=256, num_attention_heads=4, **sizes))


@pytest.mark.parametrize("model", [lambda: net(64), llama], ids=["net", "llama"])
@pytest.mark.parametrize(
    ("base", "error", "text"),
    [
        (2.5, TypeError, "base=2.5 is no width: a width is a whole number, such as 256"),
        ("256", TypeError, "base must be a factory, a module or a width, not str: base=build with"),
        (True, TypeError, "base=True is no width"),
        (0, ValueError, "base=0 is no width: it has to be above zero"),
        (-4, ValueError, "base=-4 is no width: it has to be above zero"),
        ([16], TypeError, "base must be a factory, a module or a width, not list: base=build with"),
    ],
)
def test_what_is_no_base_is_said_so(model, base, error, text):
    with pytest.raises(error, match=re.escape(text)):
        paramz.make_plan(model(), "mup", base=base)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"base_width": 0}, ValueError, "base_width=0 is no width: it has to be above zero"),
        ({"base_width": "16"}, TypeError, "base_width='16' is no width: a width is a number"),
        ({"base_width": 16, "wider": -1}, ValueError, "wider=-1 is no width"),
        ({"base_width": 16, "wider": 16}, ValueError, "wider=16 is the base width itself"),
    ],
)
def test_what_is_no_width_for_a_factory_is_said_so(options, error, text):
    with pytest.raises(error, match=re.escape(text)):
        paramz.make_plan(net(64), "mup", base=net, **options)


def test_a_width_beside_a_module_is_refused():
    with pytest.raises(TypeError, match="base is a module, .* base_width=8 would do nothing"):
        paramz.make_plan(net(64), "mup", base=net(16), base_width=8, wider=net(32))


def test_a_flag_is_no_default_width():
    def factory(bias=True):
        return nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 3, bias=bias))

    with pytest.raises(TypeError, match="is a factory and paramz must know the base width"):
        paramz.make_plan(net(64), "mup", base=factory)


def test_widths_of_a_config():
    model = llama()
    with pytest.raises(TypeError, match="base=128 is a width, and base_width=64 another"):
        paramz.make_plan(model, "mup", base=128, base_width=64)
    with pytest.raises(TypeError, match=r"wider=160\.5 is no width: a width is a whole number"):
        paramz.make_plan(model, "mup", base=128, wider=160.5)
    one, other = (paramz.make_plan(model, "mup", base=base) for base in (np.int64(128), 128))
    assert one == other


def test_a_factory_may_take_a_factor():
    plan = paramz.make_plan(net(64), "mup", base=lambda f: net(int(64 * f)), base_width=0.25)
    assert plan.rows[0].ratios == {"fan_out": 4.0}


def lfm2(width, inner, multiple=256):
    config = Lfm2Config(
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        vocab_size=50,
        intermediate_size=inner,
        layer_types=["conv"],
        block_multiple_of=multiple,
    )
    with torch.device("meta"):
        return Lfm2ForCausalLM(config)


def test_a_size_that_the_models_code_rounds_is_named():
    # Two thirds of 1664, 3328 and 6656, as multiples of 256.
    (note,) = paramz.make_plan(lfm2(1024, 6656), "mup", base=256).notes
    assert note.startswith(
        "model.layers.0.feed_forward.w1.weight (axis 0: 1280, 2304 and 4608), "
        "model.layers.0.feed_forward.w3.weight (axis 0: 1280, 2304 and 4608) and 1 more at width "
        "256, 512 and 1024: the model's own code rounds these sizes (block_multiple_of = 256), so "
        "that they do not follow the width."
    )
    assert "With a smaller block_multiple_of in the config" in note
    # What the note says: of 3072 and 768 two thirds are multiples of 256.
    assert paramz.make_plan(lfm2(1024, 3072), "mup", base=256).notes == ()


def test_a_size_that_is_rounded_to_the_same_in_both_probes_is_an_error_with_a_way_out():
    with pytest.raises(ValueError, match="256, 256 and 1024") as refused:
        paramz.make_plan(lfm2(1024, 1536), "mup", base=64)
    text = str(refused.value)
    assert "the same in the base and in the wider model. Set a smaller block_multiple_of" in text
    paramz.make_plan(lfm2(1024, 1536, multiple=16), "mup", base=64)
    paramz.make_plan(lfm2(1024, 1536), "mup", base=256)
