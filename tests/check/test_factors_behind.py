"""A factor behind the readout that the plan makes up for is no fault of the readout."""

import pytest
import torch
from torch import nn

import paramz

WIDTHS = [32, 64, 128, 256]


class Scaled(nn.Module):
    """Logits are multiplied by width^-1/2 behind the readout, or what goes into it is."""

    def __init__(self, width, behind, tied=False):
        super().__init__()
        self.width, self.behind = width, behind
        self.embed, self.norm = nn.Embedding(20, width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 20, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids):
        h = self.embed(ids)
        h = self.norm(h + self.down(torch.relu(self.up(h))))
        if self.behind:
            return self.head(h) * self.width**-0.5
        return self.head(h / self.width**0.5)


def verdict(build, **options):
    ids = torch.randint(20, (8, 16), generator=torch.Generator().manual_seed(1))
    df = paramz.coord_check(build, (ids, ids.roll(-1, 1)), widths=WIDTHS, seeds=2, **options)
    return paramz.judge(df)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("behind", [False, True])
def test_a_held_factor_on_logits_is_no_false_alarm(behind, tied):
    found = verdict(lambda width: Scaled(width, behind, tied))
    assert found.outcome == "pass", found.sentence


def test_a_tied_readout_is_held_beside_its_own_multiplier():
    build = lambda width: Scaled(width, True, tied=True)  # noqa: E731
    plan = paramz.make_plan(build(128), "mup", base=build, base_width=32)
    assert plan.multipliers == {"head": pytest.approx(2 / 4)}
    assert plan.behind == {"head": pytest.approx(2)}


def test_a_saved_plan_keeps_what_stands_behind():
    build = lambda width: Scaled(width, True)  # noqa: E731
    plan = paramz.make_plan(build(128), "mup", base=build, base_width=32)
    assert plan.multipliers == plan.behind == {"head": pytest.approx(2)}
    assert paramz.Plan.from_json(plan.to_json()).behind == plan.behind
