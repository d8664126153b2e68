"""scaled_config over all families, by number and by size of heads; factors written in code."""

import math
import warnings

import pytest
import zoo_hf
import zoo_torch
from torch import nn
from zoo import ZOO

import paramz

WIDTH = 2 * zoo_hf.BASE
HEADS = ("num_attention_heads", "n_head", "num_heads", "encoder_attention_heads")
SIZES = ("head_dim", "d_kv")
FEED_FORWARD = ("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim")
STAY = ("vocab_size", "num_hidden_layers", "num_layers", "num_local_experts", "state_size",
        "time_step_rank", "num_mel_bins", "max_position_embeddings", "image_size")  # fmt: skip


def sizes(config, names):
    synonyms = getattr(config, "attribute_map", {})
    values = {n: getattr(config, n, None) for n in names if n not in synonyms}
    return {n: v for n, v in values.items() if isinstance(v, int)}


@pytest.mark.parametrize("heads", ["count", "size"])
@pytest.mark.parametrize("family", zoo_hf.FAMILIES)
def test_every_family_scales(family, heads):
    kind, config, batch = zoo_hf.FAMILIES[family]()
    before = config.to_dict()
    scaled = paramz.hf.scaled_config(config, width=WIDTH, heads=heads)
    assert config.to_dict() == before
    assert scaled.hidden_size == WIDTH
    assert sizes(scaled, STAY) == sizes(config, STAY)
    for names, twice in ((HEADS, heads == "count"), (SIZES, heads == "size"), (FEED_FORWARD, True)):
        factor = 2 if twice else 1
        assert sizes(scaled, names) == {n: factor * v for n, v in sizes(config, names).items()}
    groups = [sizes(c, ("num_key_value_heads",)) for c in (config, scaled)]
    assert groups[1] == {n: v * (2 if heads == "count" else 1) for n, v in groups[0].items()}
    assert kind(scaled)(**batch()).loss.isfinite()


@pytest.mark.parametrize("family", zoo_hf.FAMILIES)
def test_heads_that_grow_have_their_scale_set_or_are_warned_about(family):
    build = zoo_hf.factory(family, heads="size")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = paramz.make_plan(build(WIDTH), "mup", base=build, base_width=zoo_hf.BASE)
    attention = [s for s in plan.attention if s.attribute != "embed_scale"]
    if family == "Mamba":
        assert not attention
    elif family == "T5":  # its scale is 1: 1/sqrt(d_kv) is in its init, which the plan replaces
        assert {(s.plain, s.value) for s in attention} == {(1.0, 0.5)}
    else:
        assert attention and not caught
        assert all(s.value / s.plain == pytest.approx(2**-0.5) for s in attention)


class Tutorial(zoo_torch.Translator):
    """With the factor that some tutorials put on embeddings."""

    def __init__(self, width):
        super().__init__(width)
        old = self.embed
        self.embed = nn.Sequential(old, Root(width))


class Root(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, x):
        return x * math.sqrt(self.width)


def checked(**options):
    batch, widths = ZOO["nn.Transformer"].batch(), [32, 64, 128, 256]
    df = paramz.coord_check(Tutorial, batch, widths=widths, seeds=2, steps=1, **options)
    return paramz.judge(df)


def test_a_factor_in_a_users_forward_pass_is_held_and_passes_the_check():
    plan = paramz.make_plan(Tutorial(128), "mup", base=Tutorial, base_width=32)
    assert plan.multipliers == {"embed.0": pytest.approx(0.5)}
    assert checked().outcome == "pass"


def test_a_factor_in_a_users_forward_pass_that_is_not_held_fails_the_check():
    verdict = checked(factors={r"^embed[.]0$": None})
    assert verdict.outcome == "fail"
    assert verdict.culprit == "embed.1"
    assert "sqrt(d_model)" in verdict.sentence
    slope = next(s.slope for s in verdict.slopes if s.module == "embed.1" and s.quantity == "delta")
    assert slope == pytest.approx(0.5, abs=0.05)


def test_widths_that_fit_are_listed():
    _, config, _ = zoo_hf.llama()
    with pytest.raises(ValueError, match="Widths that keep every size whole: .32."):
        paramz.hf.scaled_config(config, width=20)


def test_the_alias_is_the_module():
    from paramz.anatomy import hf_config

    assert paramz.hf.scaled_config is hf_config.scaled_config
    with pytest.raises(AttributeError, match="paramz.hf. has no attribute 'nothing'"):
        _ = paramz.hf.nothing
