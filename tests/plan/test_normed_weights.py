"""Products of data and a parameter that code normalises: a norm holds what init and rate would."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz

BATCH = torch.randn(64, 6, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3


class Readout(nn.Module):
    """Logits from a table of classes, of which one or both sides are normalised."""

    def __init__(self, width: int, data: str, table: str, divided: float = 0.0) -> None:
        super().__init__()
        self.embed, self.mix = nn.Linear(6, width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn(3, width) / width**0.5)
        self.kinds, self.divided = (data, table), (width / 16) ** divided

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.mix(F.relu(self.embed(x)))
        h, table = (self.normed(*one) for one in zip(self.kinds, (h, self.table), strict=True))
        return h @ table.T / self.divided

    @staticmethod
    def normed(kind: str, x: torch.Tensor) -> torch.Tensor:
        if kind == "rms":
            return F.rms_norm(x, x.shape[-1:])
        return {"plain": x, "one": F.normalize(x, dim=-1), "layer": _normed(x)}[kind]


def _normed(x: torch.Tensor) -> torch.Tensor:
    return F.normalize(x, dim=-1) * x.shape[-1] ** 0.5


def told(data: str, table: str, divided: float = 0.0, scheme: str = "mup", **asked) -> list[str]:
    def build(width: int) -> nn.Module:
        return Readout(width, data, table, divided)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = paramz.parametrize_(
            build(64), scheme, base=build, base_width=16, example=BATCH[0], **asked
        )
    said = [str(each.message) for each in caught]
    assert all(each in plan.notes for each in said)
    return [each for each in said if each.startswith("table: forward code normalises it")]


@pytest.mark.parametrize(
    ("data", "table", "power"),
    [("rms", "rms", 1), ("layer", "layer", 1), ("plain", "rms", 1), ("plain", "one", 0.5),
     ("one", "rms", 0.5)],
)  # fmt: skip
def test_a_sum_over_width_that_a_norm_keeps_from_its_rule_is_told(data, table, power) -> None:
    (said,) = told(data, table)
    assert f"goes like width^{power:+g}. Multiply the product in the code by" in said
    assert told(data, table, divided=power) == []


def test_cosines_plain_tables_and_plain_models_are_right() -> None:
    assert told("one", "one") == told("plain", "plain") == told("rms", "plain") == []
    assert told("rms", "rms", scheme="sp") == []


def test_the_line_that_it_gives_says_that_it_is_right() -> None:
    assert told("rms", "rms", roles={"^table$": "output"}) == []


def test_what_is_told_shows_in_a_coordinate_check() -> None:
    def slope(divided: float) -> float:
        df = paramz.coord_check(
            lambda width: Readout(width, "rms", "rms", divided),
            BATCH, widths=[32, 256], seeds=2, steps=2, base_width=16,
            roles={"^table$": "output"}, parametrization="mup",
        )  # fmt: skip
        sizes = df[(df.module == "(model)") & (df.quantity == "delta") & (df.step == 2)]
        sizes = sizes.groupby("width").rms.mean()
        return math.log(sizes[256] / sizes[32]) / math.log(8)

    assert slope(0.0) > 0.5
    assert abs(slope(1.0)) < 0.35


class Chosen(nn.Module):
    """Experts of one unit, which tokens choose by their rows of two tables, as PEER has them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(6, width)
        self.down, self.up = nn.Embedding(9, width), nn.Embedding(9, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, chosen = self.embed(x), x[:, :2].abs().long()
        unit = torch.einsum("bd,bkd->bk", h, self.down(chosen)).relu()
        return self.head(h + torch.einsum("bk,bkd->bd", unit, self.up(chosen)))


def test_of_a_product_the_layer_is_named_that_a_factor_can_be_declared_for() -> None:
    with pytest.warns(UserWarning, match=r"^down: what it puts out is multiplied by another"):
        paramz.parametrize_(Chosen(64), "mup", base=Chosen, base_width=16, example=BATCH[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paramz.parametrize_(
            Chosen(64), "mup", base=Chosen, base_width=16, example=BATCH[0],
            factors={r"^down$": "width^-1"},
        )  # fmt: skip
