"""Sums over width with a function of parameters, with two matrices in one, or with flat vectors."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz

BATCH = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(32) % 3
MATRIX = paramz.Axes(fan_in=(1,), fan_out=(0,))


class Map(nn.Module):
    """A map of width by width, made of parameters in some way."""

    def __init__(self, width: int, kind: str, base: int = 16) -> None:
        super().__init__()
        self.kind, self.width, self.ratio = kind, width, width / base
        self.w = nn.Parameter(torch.randn(width, width) / width**0.5)
        if kind == "splines":  # as in efficient-KAN: several numbers for each entry, and a scale
            self.w = nn.Parameter(torch.randn(width, width, 2) / width**0.5)
        if kind in ("product", "masked", "beside", "noise", "gain", "normalised", "splines"):
            size = 1 if kind in ("gain", "normalised") else width
            self.s = nn.Parameter(torch.zeros(width, size))
        if kind in (sizes := {"flat": width**2, "toeplitz": 2 * width - 1, "circulant": width}):
            del self.w
            self.v = nn.Parameter(torch.randn(sizes[kind]))

    def weight(self) -> torch.Tensor:
        n = torch.arange(self.width)
        kinds = {
            "exp": lambda: self.w.exp(),
            "positive": lambda: F.softplus(self.w),
            "clamped": lambda: self.w.clamp(min=0),
            "square": lambda: self.w * self.w,
            "shares": lambda: self.w.softmax(-1),
            "sign": lambda: self.w + (self.w.sign() - self.w).detach(),
            "elu": lambda: F.elu(self.w) + 1,
            "product": lambda: self.w * self.s,
            "masked": lambda: self.w * self.s.sigmoid(),
            "beside": lambda: self.w * (1 + self.s * self.ratio**-0.5),
            "noise": lambda: self.w + F.softplus(self.s) * torch.randn_like(self.w),
            "flat": lambda: self.v.view(self.width, self.width),
            "toeplitz": lambda: self.v[n[:, None] - n + self.width - 1],
            "plain": lambda: self.w.tanh() * 0.5,
            "gain": lambda: self.w * self.s.exp().expand_as(self.w),
            "normalised": lambda: self.w / self.w.pow(2).sum(1, keepdim=True).sqrt() * self.s.exp(),
            "rounded": lambda: (self.w / self.w.abs().mean()).round() * self.w.abs().mean(),
            "binary": lambda: self.w.sign() * self.w.abs().mean(1, keepdim=True),
        }
        return kinds[self.kind]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "splines":
            basis = torch.stack([x, x.square()], -1).flatten(1)
            return F.linear(basis, (self.w * self.s[..., None]).flatten(1))
        if self.kind == "circulant":
            waves = torch.fft.rfft(x) * torch.fft.rfft(self.v).conj()
            return torch.fft.irfft(waves, n=self.width)
        return F.linear(x, self.weight())


def net(kind: str):
    return lambda width: nn.Sequential(
        nn.Linear(6, width), nn.ReLU(), Map(width, kind), nn.ReLU(), nn.Linear(width, 3)
    )


def told(kind: str, factors=None, **roles) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = paramz.make_plan(
            net(kind)(64), "mup", base=net(kind), base_width=16, example=BATCH, roles=roles,
            factors=factors,
        )  # fmt: skip
    said = [str(each.message) for each in caught]
    assert all(each in plan.notes for each in said)
    return said


@pytest.mark.parametrize(
    ("kind", "function"),
    [("exp", "exp"), ("positive", "softplus"), ("clamped", "clamp at zero"), ("square", "square"),
     ("shares", "softmax"), ("sign", "sign"), ("elu", "a number added to it")],
)  # fmt: skip
def test_a_function_of_a_matrix_that_is_summed_over_is_told(kind, function) -> None:
    (said,) = told(kind, **{"w$": MATRIX})
    assert said.startswith(f"2.w: forward code takes a function of it ({function})")
    assert "say roles={r'^[0-9]+[.]w$': 'vector'}" in said
    assert told(kind, **{"w$": "vector"}) == []


def test_it_is_told_without_a_role_that_the_user_gives() -> None:
    (said,) = told("positive")
    assert "The init and learning rate of hidden weights speak of its entries" in said


@pytest.mark.parametrize(
    ("kind", "named"),
    [("product", "2.s"), ("masked", "2.s"), ("noise", "2.s"), ("splines", "2.s")],
)
def test_a_second_matrix_that_is_multiplied_in_is_told(kind, named) -> None:
    (said,) = told(kind, **{"[ws]$": MATRIX})
    assert said.startswith(f"{named}: forward code")
    assert told(kind, **{"w$": MATRIX, "s$": "vector"}) == []


@pytest.mark.parametrize("kind", ["flat", "toeplitz", "circulant"])
def test_a_vector_that_stands_for_a_matrix_is_told(kind) -> None:
    (said,) = told(kind)
    assert said.startswith("2.v: forward code multiplies data by entries of this vector")
    assert told(kind, **{"v$": "vector"}) == []


def test_waves_over_an_axis_that_stays_are_no_sum_over_width() -> None:
    class Long(nn.Module):
        """A convolution over all of time, one kernel for each channel."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, width), nn.Linear(width, 3)
            self.kernel = nn.Parameter(torch.randn(width, 9) / 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            waves = torch.fft.rfft(self.first(x).mT, n=18) * torch.fft.rfft(self.kernel, n=18)
            return self.last(torch.fft.irfft(waves, n=18)[..., :9].mT)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paramz.make_plan(
            Long(64), "mup", base=Long, base_width=16, example=torch.randn(4, 9, 6),
            roles={"kernel$": "vector"},
        )  # fmt: skip


@pytest.mark.parametrize("kind", ["plain", "gain", "normalised", "rounded", "binary", "beside"])
def test_what_keeps_the_size_of_entries_is_not(kind) -> None:
    roles = {"w$": MATRIX, "s$": "vector"} if hasattr(Map(4, kind), "s") else {"w$": MATRIX}
    assert told(kind, {"^2$": None} if kind == "beside" else None, **roles) == []


class Convex(nn.Module):
    """An input convex network (Amos, Xu and Kolter 2017): positive maps beside plain ones."""

    def __init__(self, width: int, *, divided: bool, base: int = 32) -> None:
        super().__init__()
        self.ratio = width / base if divided else 1.0
        self.x0, self.x1, self.x2 = nn.Linear(6, width), nn.Linear(6, width), nn.Linear(6, 1)
        std = 0.3 if divided else width**-0.5
        self.z1 = nn.Parameter(torch.randn(width, width) * std)
        self.z2 = nn.Parameter(torch.randn(1, width) * std)

    def positive(self, z: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.linear(z, F.softplus(weight)) / self.ratio

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = F.relu(self.positive(F.relu(self.x0(x)), self.z1) + self.x1(x))
        return self.positive(z, self.z2) + self.x2(x)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_what_the_warning_says_makes_a_convex_net_move_alike(optimizer) -> None:
    def verdict(divided: bool, **options) -> str:
        df = paramz.coord_check(
            lambda width: Convex(width, divided=divided),
            (BATCH, BATCH.pow(2).mean(1, keepdim=True)),
            parametrization="mup", optimizer=optimizer, widths=(32, 64, 128, 256), seeds=3,
            lr=2**-9, **options,
        )  # fmt: skip
        return paramz.judge(df).outcome

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert verdict(divided=False) == "fail"
    assert verdict(divided=True, roles={"^z": "vector"}) == "pass"
