"""Tables with more rows in a wider model: each row is looked up by itself, and nothing sums."""

import pytest
import torch
from torch import nn

import paramz


class Memory(nn.Module):
    """A product-key memory (Lample et al. 2019): the number of its values grows with width."""

    def __init__(self, width: int, kind: type[nn.Module] = nn.EmbeddingBag) -> None:
        super().__init__()
        self.count, self.first = width // 2, nn.Linear(6, width)
        self.keys = nn.ModuleList(nn.Linear(width, self.count, bias=False) for _ in range(2))
        self.values, self.last = kind(self.count**2, width), nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x).relu()
        (one, row), (other, column) = (keys(h).topk(2, -1) for keys in self.keys)
        rows = row * self.count + column
        weights = (one + other).softmax(-1)
        if isinstance(self.values, nn.EmbeddingBag):
            return self.last(h + self.values(rows, per_sample_weights=weights))
        return self.last(h + (self.values(rows) * weights[..., None]).sum(1))


class Summed(nn.EmbeddingBag):
    def __init__(self, rows: int, width: int) -> None:
        super().__init__(rows, width, mode="sum")


@pytest.mark.parametrize("kind", [Summed, nn.Embedding])
def test_rows_that_grow_are_no_fan_in_and_numbers_of_rows_no_factor(kind) -> None:
    build = lambda width: Memory(width, kind)  # noqa: E731
    plan = paramz.make_plan(
        build(64), "mup", base=build, base_width=16, example=torch.zeros(5, 6)
    )  # fmt: skip
    (values,) = (row for row in plan.rows if row.name == "values.weight")
    assert (values.role, dict(values.ratios)) == ("input", {"fan_out": 4.0})
    assert not plan.multipliers
    assert not any("held" in note for note in plan.notes)


def test_a_table_of_which_only_the_rows_grow_keeps_its_rates() -> None:
    def build(width: int) -> nn.Module:
        table = nn.Embedding(width, 4)
        return nn.Sequential(table, nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    plan = paramz.make_plan(
        build(64), "mup", base=build, base_width=16, example=torch.zeros(5, dtype=torch.long)
    )
    assert plan.rows[0].role == "scalar"
    assert plan.rows[0].ratios == {}
