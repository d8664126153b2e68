"""A base whose own forward pass fails is told with its own error, where a run would help."""

import warnings

import pytest
import torch
from torch import nn

import paramz


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.parts = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (self.parts, -1)) for f in (self.q, self.k, self.v))
        mixed = torch.einsum("thd,shd->hts", q, k).softmax(-1) @ v.transpose(0, 1)
        return self.out(mixed.transpose(0, 1).flatten(1))


class Latent(nn.Module):
    """A map into a fixed size that feeds what stands before it; then six groups."""

    def __init__(self, width):
        super().__init__()
        self.back, self.narrow = nn.Linear(3, width), nn.Linear(width, 3)

    def forward(self, x):
        return self.back(self.narrow(x)).unflatten(-1, (6, -1)).flatten(-2)


def net(*parts):
    def build(width):
        inside = [part(width) for part in parts]
        return nn.Sequential(nn.Linear(4, width), *inside, nn.Linear(width, 3))

    return build


SIX_HEADS = net(lambda width: nn.Sequential(Attention(width, 6), nn.Linear(width, width)))


def said(build, width, base):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = paramz.make_plan(build(width), "mup", base=build, base_width=base)
    failed = [note for note in plan.notes if "does not run" in note]
    assert failed == [str(each.message) for each in caught if "does not run" in str(each.message)]
    return "\n".join(str(each.message) for each in caught)


def test_sizes_that_do_not_divide_in_the_base_are_named():
    # At 16 the base fails, and so does the wider probe at 32; the model itself runs.
    text = said(SIX_HEADS, 48, 16)
    assert text.startswith("the base model itself does not run: RuntimeError: unflatten: Provided")
    assert "[6, -1] don't multiply up to the size of dim 1 (16)" in text
    assert "the size of a head grows with width, but" not in text
    assert "the size of a head grows with width, but" in said(SIX_HEADS, 48, 24)


def test_maps_that_only_a_run_tells():
    assert "the base model itself does not run: RuntimeError: unflatten" in said(
        net(Latent), 48, 16
    )
    assert said(net(Latent), 48, 24) == ""


@pytest.mark.parametrize("example", [None, torch.zeros(2, 4)])
def test_a_model_that_no_input_suits_is_not_called_broken(example):
    class Picky(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.net = SIX_HEADS(width)

        def forward(self, x):
            if not hasattr(x, "batch"):
                raise TypeError("a graph is needed")
            return self.net(x.batch)

    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        plan = paramz.make_plan(Picky(48), "mup", base=Picky, base_width=24, example=example)
    assert not any("does not run" in note for note in plan.notes)
