"""Schedules are followed to where they break ratios, and to their ends without an error."""

import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

import paramz


def net(width=8):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


@pytest.fixture(scope="module")
def optimizer():
    model = net(32)
    plan = paramz.parametrize_(model, "mup", base=net)
    return lambda: torch.optim.AdamW(plan.param_groups(model, "adamw", lr=1e-3))


class ByEpoch:
    """A cosine that is told the time, as timm's are."""

    def __init__(self, optimizer, length, floor):
        self.optimizer = optimizer
        self.cosine = lr_scheduler.CosineAnnealingLR(optimizer, length, floor)

    def step(self, epoch):
        self.cosine.last_epoch = epoch
        rates = self.cosine._get_closed_form_lr()
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = lr


@pytest.mark.parametrize(
    ("make", "way_out"),
    [
        (lambda o, low: lr_scheduler.CosineAnnealingLR(o, 1_000_000, low), "use eta_min=0"),
        (lambda o, low: lr_scheduler.CosineAnnealingWarmRestarts(o, 10**6, 1, low), "eta_min=0"),
        (lambda o, low: ByEpoch(o, 1_000_000, low), "use LambdaLR"),
        (
            lambda o, low: lr_scheduler.LambdaLR(
                o, [lambda t, k=k: max(k * low, 1 - t / 1e5) for k in range(len(o.param_groups))]
            ),
            "give it one function for all groups",
        ),
    ],
)
def test_a_floor_of_a_long_schedule_is_seen(optimizer, make, way_out):
    """In the first 1000 of a million steps the ratios move by less than rounding does."""
    with pytest.warns(UserWarning, match=f"breaks the ratios .* For this scheduler: .*{way_out}"):
        paramz.check_schedule(make(optimizer(), 1e-5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paramz.check_schedule(make(optimizer(), 0.0))
        paramz.check_schedule(make(optimizer(), 1e-5), steps=500)  # all that is asked for


def asserting(t):
    assert t <= 200
    return 1 - t / 200


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.LambdaLR(o, asserting),
        lambda o: lr_scheduler.LambdaLR(o, lambda t: ([1.0] * 200)[t]),
        lambda o: lr_scheduler.LambdaLR(o, lambda t: (1 - t / 2000) ** 0.5),
        lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 - t / 500),
        lambda o: lr_scheduler.ExponentialLR(o, 0.1),
        lambda o: lr_scheduler.StepLR(o, 7, 0.5),
        lambda o: SWALR(o, [0.1 * group["lr"] for group in o.param_groups]),
    ],
)
def test_a_schedule_that_ends_or_falls_to_nothing_passes(optimizer, make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paramz.check_schedule(make(optimizer()))


def test_one_rate_for_the_average_of_the_weights_is_named(optimizer):
    with pytest.warns(UserWarning, match="SWALR breaks .* pass swa_lr as a list"):
        paramz.check_schedule(SWALR(optimizer(), 0.01))


def test_an_error_at_the_first_step_is_the_schedules_own(optimizer):
    schedule = lr_scheduler.LambdaLR(optimizer(), lambda t: {0: 1.0}[t])
    with pytest.raises(KeyError):
        paramz.check_schedule(schedule)
