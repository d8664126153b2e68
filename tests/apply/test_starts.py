"""Trained numbers that start at a power of width: their rate stays, and so a plan tells of them."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz

SMALL, LARGE = 16, 64


class ScaleNorm(nn.Module):
    """Vectors of length one times a trained number (Nguyen & Salazar 2019)."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.tensor(start))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.g * F.normalize(x, dim=-1)


def net(start: Callable[[int], float]) -> Callable[[int], nn.Module]:
    return lambda width: nn.Sequential(
        nn.Linear(5, width), ScaleNorm(start(width)), nn.Linear(width, width), nn.Linear(width, 3)
    )


def planned(start: Callable[[int], float], scheme: str = "mup", **asked: object) -> tuple:
    build = net(start)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = paramz.parametrize_(build(LARGE), scheme, base=build, base_width=SMALL, **asked)
    return plan, [str(each.message) for each in caught if each.filename == __file__]


@pytest.mark.parametrize("power", [0.5, -0.5, 0.25])
def test_a_start_that_moves_with_width_is_warned_of_and_noted(power: float) -> None:
    plan, warned = planned(lambda width: width**power)
    (said,) = warned
    share = "smaller" if power > 0 else "larger"
    assert said.startswith(f"1.g starts like width^{power:+g}, ") and f"a {share} share" in said
    assert said in plan.notes


def test_the_line_that_it_gives_says_that_it_is_right() -> None:
    assert planned(lambda width: width**0.5, roles={r"^[0-9]+[.]g$": "scalar"})[1] == []


def test_starts_that_stay_exponents_and_plain_models_are_passed_over() -> None:
    assert planned(lambda width: 3.0)[1] == []
    assert planned(lambda width: 0.5 * torch.tensor(float(width)).log().item())[1] == []
    assert planned(lambda width: width**0.5, "sp")[1] == []


def test_the_coordinate_check_shows_what_the_warning_says() -> None:
    """An update of the number is a share of it that falls like width^-1/2."""
    torch.manual_seed(0)
    batch = torch.randn(64, 5), torch.randint(3, (64,))
    asked = {"widths": [16, 64, 256], "seeds": 1, "steps": 1, "parametrization": "mup"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        df = paramz.coord_check(net(lambda width: width**0.5), batch, **asked)
    own = df[(df.module == "1") & (df.quantity == "update")]
    sizes = own.set_index("width").rms
    assert sizes[256] / sizes[16] == pytest.approx(16**-0.5, rel=0.2)


class Mean(nn.Module):
    """A readout that starts as the mean of what it reads, after a map that starts as one, too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.pool = nn.Linear(5, width), nn.Linear(width, width, bias=False)
        self.readout = nn.Linear(width, 1, bias=False)
        nn.init.constant_(self.pool.weight, 1 / width)
        nn.init.constant_(self.readout.weight, 1 / width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(self.pool(self.embed(x)).relu())


def test_means_start_like_their_learning_rate() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = paramz.parametrize_(Mean(LARGE), "mup", base=Mean, base_width=SMALL)
    assert plan.notes == ()
