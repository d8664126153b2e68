"""A batch on which right plans may look wrong is named beforehand; of a large one, part is used."""

import warnings

import pytest
import torch
from cases import checked_net as net

import paramz
from paramz.check.batch import batch_of, concerns, thinned

TEXT = (
    "A coordinate check trains small models of several widths for a few steps on one batch and "
    "looks at every activation: does its change keep its size while the model grows wider, or not?"
)


def ids(kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    match kind:
        case "bytes of text":
            return torch.tensor(list(TEXT.encode()))[:160].view(4, 40)
        case "frequent words":  # Zipf's law over a large vocabulary, as of subwords
            weights = 1.0 / torch.arange(1, 50_001)
            return torch.multinomial(weights, 256, True, generator=generator).view(4, 64)
        case "a rule":  # uniform, but each token determines the next
            first = torch.randint(0, 97, (8, 1), generator=generator)
            steps = [first]
            for _ in range(63):
                steps.append((5 * steps[-1] + 3) % 97)
            return torch.cat(steps, 1)
        case "random":
            return torch.randint(0, 256, (8, 32), generator=generator)
        case "random, large vocabulary":
            return torch.randint(0, 50_000, (4, 64), generator=generator)
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["bytes of text", "frequent words", "a rule"])
def test_tokens_with_something_to_learn_raise_no_concern(kind: str) -> None:
    assert concerns({"input_ids": ids(kind), "labels": ids(kind)}) == []
    assert concerns((ids(kind), ids(kind).roll(-1, 1))) == []


@pytest.mark.parametrize("kind", ["random", "random, large vocabulary"])
def test_random_tokens_are_named_with_the_figures(kind: str) -> None:
    tokens = ids(kind)
    mask = torch.ones_like(tokens)
    (found,) = concerns({"input_ids": tokens, "labels": tokens, "attention_mask": mask})
    assert "the token ids in 'input_ids' look drawn at random" in found
    assert "pairs of 256 are equal, by chance it would be" in found
    assert "give a batch of real data" in found
    (found,) = concerns((tokens, tokens))
    assert "the token ids in the inputs" in found


def test_few_targets_are_counted_without_those_that_are_ignored() -> None:
    images = torch.randn(8, 3, 4, 4)
    (found,) = concerns({"pixel_values": images, "labels": torch.arange(8)})
    assert "a mean over 8 targets only: its gradient is off by 1/sqrt(8) = 35 %" in found
    labels = ids("bytes of text").clone()
    assert concerns({"input_ids": ids("bytes of text"), "labels": labels}) == []
    labels[:, 3:] = -100
    assert "over 12 targets" in concerns({"input_ids": ids("bytes of text"), "labels": labels})[0]
    assert "over 4 targets" in concerns((torch.randn(4, 16), torch.randn(4, 100)))[0]


def test_what_is_not_understood_raises_no_concern() -> None:
    for batch in (None, [], "text", {}, {"x": torch.randn(2, 3)}, (torch.ones(2), None), [1, 2, 3]):
        assert concerns(batch) == []


def test_the_check_warns_its_caller_before_it_measures() -> None:
    small = torch.randn(8, 16), torch.arange(8) % 4
    asked = {"widths": [16, 32], "seeds": 1, "steps": 1}
    with pytest.warns(UserWarning, match="over 8 targets only") as caught:
        paramz.coord_check(net, small, **asked)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paramz.coord_check(net, (torch.randn(32, 16), torch.arange(32) % 4), **asked)


def test_what_is_said_of_every_model_is_shown_once() -> None:
    def doubtful(width: int) -> torch.nn.Module:
        warnings.warn(f"a doubt of all, at {min(width, 0)}", stacklevel=1)
        warnings.warn(f"a doubt of {width}", stacklevel=1)
        return net(width)

    batch = torch.randn(32, 16), torch.arange(32) % 4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        paramz.coord_check(doubtful, batch, widths=[16, 32], seeds=2, steps=1)
    said = [str(each.message) for each in caught]
    assert {"a doubt of all, at 0", "a doubt of 16", "a doubt of 32"} <= set(said)
    assert len(said) == len(set(said))


def test_progress_grows_to_one() -> None:
    batch = torch.randn(32, 16), torch.arange(32) % 4
    for workers in (1, 2):
        told: list[float] = []
        paramz.coord_check(
            net, batch, widths=[16, 32], seeds=1, steps=2, workers=workers, progress=told.append
        )
        assert told == sorted(told) and told[0] > 0 and told[-1] == pytest.approx(1.0)
        assert len(told) == (6 if workers == 1 else 2)


@pytest.mark.parametrize(
    ("rows", "targets", "kept"),
    [
        (1024, (1024,), 256),
        (16, (16, 64), 4),
        (8, (8, 1000), 4),
        (300, (300,), 300),
        (2, (2, 900), 2),
    ],
)
def test_rows_with_enough_targets_are_taken(rows: int, targets: tuple[int, ...], kept: int) -> None:
    x, y = torch.arange(rows), torch.ones(targets, dtype=torch.long)
    pair = thinned((x, y))
    assert [len(each) for each in pair] == [kept, kept]
    assert pair[0].tolist() == sorted(set(pair[0].tolist()))
    named = thinned({"ids": x, "labels": y})
    assert all(torch.equal(a, b) for a, b in zip(named.values(), pair, strict=True))


def test_rows_in_an_order_of_their_own_are_drawn_from_all_of_it() -> None:
    """Every tenth of classes by turns would be one class."""
    assert len(thinned((torch.ones(2560), torch.arange(2560) % 10))[1].unique()) == 10


def test_targets_without_a_loss_do_not_count() -> None:
    y = torch.full((64, 64), -100)
    y[:, :2] = 1
    assert len(thinned((torch.ones(64, 64), y))[1]) == 64


@pytest.mark.parametrize(
    "batch",
    [
        {"ids": torch.ones(1000), "labels": torch.ones(1000).long(), "at": torch.ones(1, 3)},
        {"ids": torch.ones(1000), "labels": torch.ones(1000).long(), "mode": "train"},
        {"x": torch.ones(600, 4), "near": torch.ones(600, 600), "y": torch.ones(600).long()},
        torch.ones(1000),
        (torch.ones(1000), torch.ones(1000), torch.ones(1000)),
    ],
    ids=["one of another length", "not a tensor", "a graph", "a tensor", "three"],
)
def test_a_batch_that_may_not_be_cut_stays_whole(batch: object) -> None:
    assert thinned(batch) is batch


def test_all_of_a_batch_is_used_with_a_loss_of_its_own_and_over_experts() -> None:
    batch = torch.ones(1000, 4), torch.ones(1000).long()
    task = paramz.Task(net, lambda step: batch)
    assert len(batch_of(task)[1]) == 256
    assert batch_of(task, experts=True) is batch
    own = paramz.Task(net, lambda step: batch, loss=lambda model, pair: model(pair[0]).mean())
    assert batch_of(own) is batch
