"""What paramz suggests for a model, and the list of schemes."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import paramz
from paramz.theory.tables import PARAMETRIZATIONS


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.up, self.down = (
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.Linear(width, width),
        )

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Residual(nn.Module):
    def __init__(self, width, depth=2, vocabulary=16):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_width_alone_needs_mup_alone():
    found = paramz.suggest(Residual(32), base=Residual, base_width=16)
    assert (found.scheme, found.because, found.warnings) == ("mup", ("width times 2",), ())
    assert "paramz.parametrize_(model, 'mup', base=..., base_width=16)" in str(found)


def test_a_target_that_is_smaller_than_its_base_differs_too():
    found = paramz.suggest(Residual(32, 2), base=partial(Residual, depth=4), base_width=64)
    assert found.because == ("width times 0.5", "depth times 0.5")


def test_the_lines_for_a_family_of_ones_own_take_the_family():
    own = paramz.Family("signmomentum", "adam", lr_shift=1, decay="decoupled")
    found = paramz.suggest(Residual(32), own, base=Residual, base_width=16)
    plan = paramz.make_plan(Residual(32), "mup", base=Residual, base_width=16)
    assert found.code.endswith("plan.param_groups(model, family, lr=...)")
    assert plan.param_groups(Residual(32), own, lr=0.1)


def test_depth_and_experts_add_their_schemes():
    found = paramz.suggest(Residual(32, 8), base=Residual, base_width=16)
    assert found.scheme == "mup+completep"
    assert found.because == ("width times 2", "depth times 4")


def test_what_the_optimizer_cannot_take_is_split():
    found = paramz.suggest(Residual(32), "muon", base=Residual, base_width=16)
    assert "plan.split_groups(model, muon=dict(lr=...), adamw=dict(lr=...))" in found.code
    assert any("muon has no rule for scalar, vector" in warning for warning in found.warnings)
    with pytest.raises(ValueError, match="there is no rule for prodigy"):
        paramz.suggest(Residual(32), "prodigy", base=Residual, base_width=16)


def test_a_large_vocabulary_is_mentioned():
    build = lambda width: Residual(width, vocabulary=1024)  # noqa: E731
    (warning,) = paramz.suggest(build(32), base=build, base_width=16).warnings
    assert (
        "embed.weight has 1024 rows at a width of 32: 'mup+large-vocab' is the published" in warning
    )


def test_a_model_that_no_scheme_can_plan_says_why():
    with pytest.raises(ValueError, match="the target model and the base model have diff"):
        paramz.suggest(nn.Linear(3, 4), base=lambda w: Residual(w), base_width=16)


def test_every_scheme_is_listed_with_its_axes():
    listed = {scheme.name: scheme for scheme in paramz.schemes()}
    assert list(listed) == list(PARAMETRIZATIONS)
    assert listed["mup"].axes == ("width",) and listed["completep"].axes == ("depth", "loops")
    assert "experts" in listed["moe"].axes and set(listed["u-mup"].axes) == {"width", "depth"}
    for scheme in listed.values():
        assert (
            scheme.status
            and scheme.source
            and scheme.optimizers == PARAMETRIZATIONS[scheme.name].columns
        )


def test_masks_of_another_density_need_their_rule():
    def net(width, density=1.0):
        layers = [nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 2)]
        if density < 1:
            prune.custom_from_mask(layers[1], "weight", torch.eye(width).roll(1, 0))
        return nn.Sequential(*layers)

    found = paramz.suggest(net(32, density=1 / 32), base=net, base_width=16)
    assert found.scheme == "mup+s-mup"
    assert found.because == ("width times 2", "density times 0.03125")
    assert paramz.suggest(net(32), base=net, base_width=16).scheme == "mup"


def test_few_inputs_of_a_first_layer_are_no_large_vocabulary():
    def net(width):
        return nn.Sequential(nn.Linear(2, width), nn.Linear(width, 2))

    assert paramz.suggest(net(64), base=net, base_width=16).warnings == ()


def test_a_base_as_deep_as_the_model_is_told_of():
    """A base that is a width has the model's own depth, so nothing differed, without a word."""
    deep = partial(Residual, depth=8)
    (said,) = paramz.suggest(deep(32), base=deep, base_width=32).warnings
    assert "config_factory(model, depth=2), base_width=..." in said
    notes = paramz.make_plan(deep(32), "mup+completep", base=deep, base_width=16).notes
    (said,) = (note for note in notes if "depth times 1" in note)
    assert "rules for depth do nothing here. If you tuned with fewer blocks" in said


@pytest.mark.parametrize("wider", [{}, {"wider": Residual(32, 8)}])
def test_a_shallow_module_as_base_is_told_the_way(wider):
    with pytest.raises((TypeError, ValueError)) as error:
        paramz.suggest(Residual(32, 8), base=Residual(16, 2), **wider)
    assert "base=lambda width: Net(width, depth=2)" in str(error.value)
    assert "config_factory(model, depth=2)" in str(error.value)
