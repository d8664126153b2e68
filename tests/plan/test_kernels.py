"""Axes of convolutions that only their growth tells: long kernels, groups, transposed ones."""

import pytest
import torch
from torch import nn

import paramz


def rows_of(build, base, target, **options):
    plan = paramz.make_plan(build(target), "mup", base=build, base_width=base, **options)
    return {row.name: (row.role, dict(row.ratios)) for row in plan.rows}


class Texts(nn.Module):
    """Filters over words and all of their embedding (Kim 2014)."""

    def __init__(self, width=8, filters=None):
        super().__init__()
        filters = width if filters is None else filters
        self.tokens = nn.Embedding(11, width)
        self.filters, self.head = nn.Conv2d(1, filters, (3, width)), nn.Linear(filters, 2)

    def forward(self, ids):
        seen = self.filters(self.tokens(ids)[:, None]).relu()
        return self.head(seen.squeeze(3).amax(2))


def test_a_kernel_as_long_as_width_sums_over_it():
    ids = torch.zeros(2, 6, dtype=torch.long)
    found = rows_of(Texts, 8, 24, example=ids)
    assert found["filters.weight"] == ("hidden", {"fan_in": 3.0, "fan_out": 3.0})
    found = rows_of(lambda width: Texts(width, filters=5), 8, 24, example=ids)
    assert found["filters.weight"] == ("output", {"fan_in": 3.0})


@pytest.mark.parametrize(
    ("layer", "known"),
    [
        (lambda w: nn.Conv1d(w, w, 3, groups=8), ("hidden", {"fan_in": 0.25, "fan_out": 0.25})),
        (
            lambda w: nn.ConvTranspose1d(w, w, 3, groups=8),
            ("hidden", {"fan_in": 0.25, "fan_out": 0.25}),
        ),
        (lambda w: nn.ConvTranspose1d(2, w, 3, groups=2), ("vector", {"fan_out": 0.25})),
        (lambda w: nn.ConvTranspose1d(w, w, 3, groups=w), ("vector", {"fan_out": 0.25})),
    ],
    ids=["as many groups by chance", "transposed", "some filters a channel", "a filter a channel"],
)
def test_groups_are_told_by_what_grows(layer, known):
    build = lambda width: nn.ModuleDict({"groups": layer(width), "mix": nn.Linear(width, width)})  # noqa: E731
    assert rows_of(build, 32, 8)["groups.weight"] == known


def test_a_transposed_convolution_out_of_a_bottleneck_is_no_table():
    build = lambda width: nn.Sequential(  # noqa: E731
        nn.Conv1d(3, width, 1), nn.Conv1d(width, 4, 1),
        nn.ConvTranspose1d(4, width, 2, stride=2), nn.Conv1d(width, 3, 1),
    )  # fmt: skip
    found = rows_of(build, 8, 24)
    assert [found[f"{i}.weight"][0] for i in range(4)] == ["input", "inward", "outward", "output"]
