"""Numbers that code makes of trained vectors by a sum over width, and that meet data by entries."""

import math
import warnings

import pytest
import torch
from torch import nn

import paramz

X = torch.randn(8, 5, 4, generator=torch.Generator().manual_seed(0))


class Differential(nn.Module):
    """A factor exp(q . k) of two trained vectors of a head's size, as differential attention's."""

    def __init__(self, width: int, size: int, way: str = "sum") -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, width), nn.Linear(width, 3)
        self.mix, self.way = nn.Linear(width, width), way
        self.q, self.k = (nn.Parameter(torch.randn(size) * 0.1) for _ in range(2))

    def number(self) -> torch.Tensor:
        product = torch.dot(self.q, self.k) if self.way == "dot" else (self.q * self.k).sum(-1)
        return product.exp() - 0.2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x)
        return self.head(h - self.number() * self.mix(h))


def told(build, scheme: str = "mup", **asked) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = paramz.parametrize_(build(64), scheme, base=build, base_width=16, example=X, **asked)
    said = [str(each.message) for each in caught]
    assert all(each in plan.notes for each in said)
    return said


@pytest.mark.parametrize("way", ["sum", "dot"])
def test_a_sum_of_products_of_trained_vectors_that_grow_is_told(way: str) -> None:
    (said,) = told(lambda width: Differential(width, width // 2, way))
    assert said.startswith("k, q: forward code multiplies these with each other and no input")
    assert "like width while it is trained" in said


def test_vectors_that_stay_and_plain_models_are_passed_over() -> None:
    assert told(lambda width: Differential(width, 8)) == []
    assert told(lambda width: Differential(width, width // 2), "sp") == []


def test_the_line_that_it_gives_says_that_it_is_right() -> None:
    class Outer(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.inside = Differential(width, width // 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inside(x)

    assert len(told(Outer)) == 1
    assert told(Outer, factors={"^inside$": None}) == []


def test_what_is_told_shows_in_training() -> None:
    """A first step moves the exponent by the sum of lr |q| + lr |k|: in proportion to the size."""

    def moved(width: int) -> float:
        torch.manual_seed(0)
        model = Differential(width, width // 2)
        with torch.no_grad():
            before = math.log(model.number() + 0.2)
            up = 1e-4 * model.k.sign()  # as Adam's first step goes
            model.k += 1e-4 * model.q.sign()
            model.q += up
            return math.log(model.number() + 0.2) - before

    assert moved(4096) / moved(256) == pytest.approx(16, rel=0.2)
