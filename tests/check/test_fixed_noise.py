"""At a learning rate of zero nothing changes, whatever a model draws, keeps or overwrites."""

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from cases import checked_batch
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.check.noise import Noise, RandomState


class Noisy(nn.Module):
    """An MLP that draws random numbers from one source in its forward pass."""

    def __init__(self, width: int, source: str) -> None:
        super().__init__()
        self.first, self.mix = nn.Linear(16, width), nn.Linear(width, width)
        self.head, self.dropout = nn.Linear(width, 4), nn.Dropout(0.5)
        self.source, self.generator = source, torch.Generator().manual_seed(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.first(x))
        match self.source:
            case "F.dropout":
                h = F.dropout(h, 0.5)
            case "nn.Dropout":
                h = self.dropout(h)
            case "added noise":
                h = h + torch.randn_like(h)
            case "python":
                h = h * random.random()
            case "numpy":
                h = h * np.random.rand()
            case "a generator of its own":
                h = h * torch.rand(h.shape, generator=self.generator)
            case "layer drop":
                h = h if torch.rand(()) < 0.5 else h + self.mix(h)
        return self.head(torch.relu(self.mix(h)))


SOURCES = [
    "F.dropout",
    "nn.Dropout",
    "added noise",
    "python",
    "numpy",
    "a generator of its own",
    "layer drop",
]


def still(build, batch, **options) -> None:
    """Check that nothing changes at a learning rate of zero, and something at another."""
    asked = {"widths": [16, 32], "seeds": 1, "steps": 2, **options}
    df = paramz.coord_check(build, batch, lr=[0.0, 2**-6], **asked)
    changes = df[df.quantity.isin(["delta", "update"]) & (df.lr == 0)]
    assert not changes.empty
    # Rounding: without a graph, nn.LSTM uses another kernel.
    assert changes.rms.max() < 1e-7, changes[changes.rms > 0].to_string()
    moved = df[df.quantity.isin(["delta", "update"]) & (df.lr > 0) & (df.step == 2)]
    assert moved.groupby("quantity").rms.max().min() > 1e-4


@pytest.mark.parametrize("source", SOURCES)
def test_noise_of_the_forward_pass_is_the_same_at_every_step(source: str) -> None:
    still(lambda width: Noisy(width, source), checked_batch())


def test_noise_of_the_loss_is_the_same_at_every_step() -> None:
    def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        x, y = batch
        dropped = torch.where(torch.rand(y.shape) < 0.5, 0, y)  # a label dropout
        return F.cross_entropy(model(x + torch.randn_like(x)), dropped)

    still(lambda width: Noisy(width, "none"), checked_batch(), loss=loss)


def test_noise_differs_between_seeds() -> None:
    df = paramz.coord_check(
        lambda width: Noisy(width, "python"),
        checked_batch(),
        widths=[16, 32],
        seeds=[1, 2],
        steps=1,
    )
    first = df[(df.module == "mix(input)") & (df.step == 0) & (df.width == 16)]
    scales = [random.Random(seed).random() for seed in (1, 2)]
    assert len(first) == 2 and first.rms.iloc[0] / first.rms.iloc[1] == pytest.approx(
        scales[0] / scales[1], rel=0.5
    )


@pytest.mark.parametrize("inside", ["attention", "lstm", "own"])
def test_own_update_is_measured_under_the_noise_of_the_forward_pass(inside: str) -> None:
    class Own(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(F.dropout(x, 0.5)) * random.random()

    class Net(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(16, width), nn.Linear(width, 4)
            self.attention = nn.MultiheadAttention(width, width // 8, dropout=0.5)
            self.lstm = nn.LSTM(width, width, num_layers=2, dropout=0.5)
            self.own = Own(width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)[:, None]
            if inside == "attention":
                h = self.attention(h, h, h)[0]
            else:
                h = self.lstm(h)[0] if inside == "lstm" else self.own(h)
            return self.head(F.dropout(h[:, 0], 0.5))

    still(Net, checked_batch())
    df = paramz.coord_check(Net, checked_batch(), widths=[16, 32], seeds=1, steps=1)
    assert (df[(df.module == inside) & (df.quantity == "update")].rms > 1e-4).sum() == 2


@dataclass
class Cache:
    """Keys of earlier calls, as models for generation keep them."""

    keys: list[torch.Tensor] = field(default_factory=list)

    def add(self, keys: torch.Tensor) -> torch.Tensor:
        self.keys.append(keys.detach())
        return torch.cat(self.keys)


class Cached(nn.Linear):
    """A layer with weights of its own that reads all that its cache holds."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)
        self.counter: list[int] = []

    def forward(self, x: torch.Tensor, cache: Cache) -> torch.Tensor:
        self.counter.append(1)
        keys = cache.add(x)
        return torch.softmax(super().forward(x) @ keys.T, -1) @ keys


class WithCache(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.mix, self.head = nn.Linear(16, width), Cached(width), nn.Linear(width, 4)

    def forward(
        self, x: torch.Tensor, cache: Cache | None = None, y: torch.Tensor | None = None
    ) -> dict[str, object]:
        cache = Cache() if cache is None else cache
        logits = self.head(self.mix(self.first(x), cache))
        return {"cache": cache, "logits": logits, "loss": F.cross_entropy(logits, y)}


@pytest.mark.parametrize("given", [True, False])
def test_a_cache_is_filled_once_a_pass_and_not_handed_to_the_next(given: bool) -> None:
    x, y = checked_batch()
    cache = Cache()
    still(WithCache, {"x": x, "y": y, **({"cache": cache} if given else {})})
    assert cache.keys == []


def test_running_a_module_again_for_its_update_leaves_it_as_it_was() -> None:
    trained: dict[nn.Module, int] = {}

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        trained.setdefault(model, len(model.mix.counter))
        return model(**batch)["loss"]

    x, y = checked_batch()
    paramz.coord_check(WithCache, {"x": x, "y": y}, loss=loss, widths=[16, 32], seeds=1, steps=2)
    ran = [len(model.mix.counter) - before for model, before in trained.items()]
    assert ran == [3, 3]  # steps 0, 1 and 2, of either width


def test_batch_that_the_model_changes_in_place_is_whole_again_at_the_next_step() -> None:
    class Greedy(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.mul_(2.0))

    x, y = checked_batch()
    before = x.clone()
    still(lambda w: Greedy(nn.Linear(16, w), nn.ReLU(inplace=True), nn.Linear(w, 4)), (x, y))
    torch.testing.assert_close(x, before)


def test_noise_leaves_the_random_state_of_the_process_alone() -> None:
    noise = Noise.of(nn.Linear(1, 1), seed=7)
    before = RandomState.now()
    with noise.fixed():
        first = torch.rand(3).tolist(), random.random(), np.random.rand()
    assert torch.equal(before.cpu, torch.get_rng_state())
    assert random.getstate() == before.python
    torch.rand(5), random.random(), np.random.rand()
    with noise.fixed():
        assert first == (torch.rand(3).tolist(), random.random(), np.random.rand())


def test_seeds_of_a_model_that_seeds_itself_count_once():
    """Every draw of such a model is the same: three of them tell no more than one."""

    def build(width):
        torch.manual_seed(1024)
        return nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 4))

    batch = torch.randn(32, 16), torch.arange(32) % 4
    widths = [16, 32, 64, 128]
    with pytest.warns(UserWarning, match="seeds 1, 2 gave the very numbers of another seed"):
        df = paramz.coord_check(build, batch, widths=widths, seeds=3, lr=2**-6)
    alone = paramz.coord_check(build, batch, widths=widths, seeds=1, lr=2**-6)
    assert df.equals(alone)
