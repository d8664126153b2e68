"""A run that only looks leaves nothing behind."""

import functools
import random

import numpy as np
import pytest
import torch
from torch import nn

import paramz
from paramz.anatomy.runs import short_lists


@functools.lru_cache
def causal(length: int) -> torch.Tensor:
    """A mask as many models keep it, for every length once."""
    return torch.tril(torch.ones(length, length))


KEPT: dict[int, torch.Tensor] = {}


def positions(length: int) -> torch.Tensor:
    """The same in a dictionary of one's own."""
    if length not in KEPT:
        KEPT[length] = torch.arange(length).float()
    return KEPT[length]


class Masked(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.mix, self.head = (
            nn.Linear(3, width),
            nn.Linear(width, width),
            nn.Linear(width, 2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        scores = self.mix(h) @ h.transpose(-1, -2)
        return self.head((scores * causal(x.shape[1])) @ h * positions(x.shape[1])[:, None])


def test_a_mask_that_was_made_on_meta_is_forgotten() -> None:
    causal.cache_clear()
    with torch.device("meta"):
        model = Masked(32)
    plan = paramz.make_plan(model, "mup", base=Masked, base_width=8, example=torch.zeros(2, 5, 3))
    assert plan.rows
    assert not causal(5).is_meta and not KEPT
    model.to_empty(device="cpu")
    assert not model(torch.zeros(2, 5, 3)).is_meta


def test_what_a_real_run_has_cached_stays() -> None:
    causal.cache_clear()
    Masked(8)(torch.zeros(2, 7, 3))
    kept = causal(7)
    paramz.make_plan(Masked(32), "mup", base=Masked, base_width=8, example=torch.zeros(2, 7, 3))
    assert causal(7) is kept


@functools.lru_cache
def angles(length: int) -> torch.Tensor:
    """A table that a model takes when it is built."""
    return torch.arange(length).float()


class Built(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(3, width), nn.Linear(width, 2))
        self.register_buffer("angles", angles(4))


def test_a_table_that_was_made_for_a_base_on_meta_is_forgotten() -> None:
    angles.cache_clear()
    with torch.device("meta"):
        model = Built(32)
    angles.cache_clear()  # what building the target did is the caller's
    paramz.parametrize_(model, "mup", base=Built, base_width=8)
    assert not Built(8).angles.is_meta


class InStep(nn.Module):
    """Norms and blocks in lists of their own; the last block is of another kind than the others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, width), nn.Linear(width, 2)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        blocks = [nn.Linear(width, width), nn.Linear(width, width), nn.Module()]
        blocks[-1].stacked = nn.Parameter(torch.randn(2, width, width))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.in_step(x, self.norms)

    def in_step(self, x: torch.Tensor, norms: nn.ModuleList) -> torch.Tensor:
        x = self.first(x)
        for norm, block in zip(norms, self.blocks, strict=False):
            y = norm(x)
            x = x + (block(y) if isinstance(block, nn.Linear) else (y @ block.stacked).sum(0))
        return self.head(x)


def test_lists_that_code_goes_through_in_step_are_cut_alike() -> None:
    """Of three equal norms two ran, and with them two blocks: the third one was never seen."""
    with short_lists(model := InStep(8), kept=2):
        assert len(model.norms) == len(model.blocks) == 3
    plan = paramz.make_plan(InStep(32), "mup", base=InStep, base_width=8)
    assert {row.name: row.role for row in plan.rows}["blocks.2.stacked"] == "hidden"


class Elsewhere(InStep):
    """The norms are in another module, so that nothing tells that both lists belong together."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.inner = nn.Module()
        self.inner.norms = self.norms
        del self.norms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.in_step(x, self.inner.norms)


def test_what_a_run_of_some_blocks_does_not_show_one_of_all_does() -> None:
    plan = paramz.make_plan(Elsewhere(32), "mup", base=Elsewhere, base_width=8)
    assert {row.name: row.role for row in plan.rows}["blocks.2.stacked"] == "hidden"


class WithPlaces(nn.Module):
    """Blocks in lists of their parts, one of which may be left out: None keeps its place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, width), nn.Linear(width, 2)
        self.blocks = nn.ModuleList(
            nn.ModuleList([None, nn.LayerNorm(width), nn.Linear(width, width)]) for _ in range(3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for mixer, norm, layer in self.blocks:
            x = x if mixer is None else mixer(x)
            x = x + layer(norm(x)).relu()
        return self.head(x)


def test_a_base_keeps_its_blocks_where_a_list_holds_none_in_a_place() -> None:
    """The look at None failed behind the cut: the base had one block left, and no init was read."""
    base = WithPlaces(8)
    plan = paramz.parametrize_(WithPlaces(32), "mup", base=base, wider=WithPlaces(16))
    assert len(base.blocks) == 3
    assert {row.role for row in plan.rows if row.name.endswith("2.weight")} == {"hidden"}
    with short_lists(base, kept=1):
        assert len(base.blocks) == 1 and base.blocks[0][0] is None


class Scaled(nn.Module):
    """A number that code draws multiplies what a layer puts out."""

    def __init__(self, width: int, draws: str) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, width, bias=False), nn.Linear(width, 2)
        self.second, self.draws = nn.Linear(width, width, bias=False), draws

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        number = random.random() if self.draws == "python" else float(np.random.rand())
        return self.head(self.second(self.first(x) * number).relu())


@pytest.mark.parametrize("draws", ["python", "numpy"])
def test_a_number_that_code_draws_is_none_that_moves_with_width(draws: str) -> None:
    """And the user's own draws go on as they would have."""
    random.seed(3), np.random.seed(3)
    wanted = random.random(), np.random.rand()
    random.seed(3), np.random.seed(3)
    plan = paramz.make_plan(
        Scaled(32, draws), "mup", base=lambda width: Scaled(width, draws), base_width=8
    )
    assert (dict(plan.multipliers), plan.notes) == ({}, ())
    assert (random.random(), np.random.rand()) == wanted
