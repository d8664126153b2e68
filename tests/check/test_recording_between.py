"""What a record shows of a model: between modules, before operations in place, and only once."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cases import checked_batch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import paramz
from paramz.check.recording import Record, recording
from paramz.check.values import rms

ASKED = {"widths": [16, 32], "seeds": 1, "steps": 2}


def recorded(model: nn.Module, *args: Any, **kwargs: Any) -> Record:
    with recording(model) as record:
        model(*args, **kwargs)
    return record


class Scaled(nn.Module):
    """Multiplies its embedding by sqrt(d) in the forward pass, as the first Transformer did."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(8, width), nn.Linear(width, width)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids) * self.embed.embedding_dim**0.5
        return self.head(self.norm(self.mix(x)).flatten(0, 0))


def test_an_operation_between_modules_is_seen_where_it_happens() -> None:
    record = recorded(Scaled(16), torch.arange(8))
    assert list(record.sizes) == ["embed", "mix(input)", "mix", "norm", "head"]
    assert record.sizes["mix(input)"] == pytest.approx(4 * record.sizes["embed"], rel=1e-5)


def test_slope_of_a_factor_in_the_forward_pass_is_in_the_table() -> None:
    ids = torch.arange(8).repeat(8)
    left = {"^embed$": None, "^mix$": None}  # else the plan holds the factor
    df = paramz.coord_check(Scaled, (ids, ids), widths=[16, 64], seeds=1, steps=1, factors=left)
    first = df[(df.step == 0) & (df.quantity == "output")].set_index(["module", "width"]).rms
    grown = first["mix(input)", 64] / first["mix(input)", 16]
    assert grown == pytest.approx(2 * first["embed", 64] / first["embed", 16], rel=1e-4)
    assert set(df[df.module == "mix(input)"].role) == {""}
    assert set(df[df.module == "mix(input)"].quantity) == {"output", "delta"}


def test_views_copies_data_and_weights_are_no_inputs_of_their_own() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Linear(6, 6) for _ in range(3))
            self.scale, self.of_weight = nn.Linear(6, 6), nn.Linear(6, 6)
            self.latent = nn.Parameter(torch.randn(3, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            data = self.scale(2 * x - 1)  # of data alone: the same at all times
            h = self.second(self.first(x).view(-1, 6).unsqueeze(1))
            h = self.third(h.squeeze(1).contiguous().clone())
            return h + self.of_weight(self.latent[:1]) + data

    record = recorded(Net(), torch.randn(4, 6))
    rows = ["scale", "first", "second", "third", "of_weight", "(model)"]
    assert list(record.sizes) == rows


@pytest.mark.parametrize("how", ["add_", "relu_", "inplace module", "view", "zero_"])
def test_output_is_measured_before_an_operation_in_place_changes_it(how: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Linear(5, 6), nn.BatchNorm1d(6)
            self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.norm(self.first(x))
            match how:
                case "add_":
                    h += 7.0
                case "relu_":
                    F.relu_(h)
                case "inplace module":
                    h = self.relu(h)
                case "view":
                    h[:, :3] *= 0.0
                case "zero_":
                    h.zero_()
            return self.head(h)

    model, x = Net(), torch.randn(64, 5)
    record = recorded(model, x)
    assert record.sizes["norm"] == pytest.approx(1.0, abs=1e-3)
    changed = "relu" if how == "inplace module" else "head(input)"
    assert changed in record.sizes
    seen = rms(F.linear(record.outputs[changed], model.head.weight, model.head.bias))
    assert record.sizes["head"] == pytest.approx(seen, rel=1e-5)
    still = [row for row in record.sizes if row in ("first", "norm", changed, "head")]
    assert still == list(record.sizes)


def test_change_and_own_update_are_those_of_before_an_operation_in_place() -> None:
    def net(width: int, inplace: bool) -> nn.Module:
        return nn.Sequential(
            nn.Linear(16, width),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=inplace),
            nn.Linear(width, 4),
        )

    tables = [
        paramz.coord_check(lambda w, i=inplace: net(w, i), checked_batch(), **ASKED)
        for inplace in (False, True)
    ]
    assert (tables[0].module == tables[1].module).all()
    assert (tables[0].rms - tables[1].rms).abs().max() < 1e-6


def test_own_update_of_a_module_that_overwrites_its_input() -> None:
    class Greedy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.mul_(0.5))

    class Plain(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x * 0.5)

    def net(width: int, kind: type) -> nn.Module:
        return nn.Sequential(nn.Linear(16, width), kind(width, width), nn.Linear(width, 4))

    tables = [
        paramz.coord_check(lambda w, k=kind: net(w, k), checked_batch(), **ASKED)
        for kind in (Greedy, Plain)
    ]
    # What goes in before training is not told of a module that overwrites it.
    measured = ["output", "delta", "update"]
    tables = [t[t.quantity.isin(measured)].reset_index(drop=True) for t in tables]
    assert (tables[0].rms - tables[1].rms).abs().max() < 1e-6
    assert (tables[0].quantity == "update").sum() == 6


@dataclass
class Output:
    """A record of a model's own, its prediction last."""

    loss: torch.Tensor
    aux: Any
    logits: torch.Tensor


WRAPPED = {
    "tuple": lambda loss, logits: (logits, loss),
    "tuple, loss first": lambda loss, logits: (loss, logits),
    "tuple, more after it": lambda loss, logits: (logits, loss, None, [logits.argmax(-1)]),
    "dict": lambda loss, logits: {"loss": loss, "logits": logits},
    "dict, loss only": lambda loss, logits: {"loss": loss},
    "dataclass": lambda loss, logits: Output(loss, {"hidden": logits * 2}, logits),
    "object": lambda loss, logits: SimpleNamespace(loss=loss, logits=logits),
    "loss": lambda loss, logits: loss,
}


class OwnLoss(nn.Module):
    """Computes its loss itself and returns it in some form."""

    def __init__(self, width: int, form: str) -> None:
        super().__init__()
        self.form = form
        self.body, self.head = nn.Linear(16, width), nn.Linear(width, 4)
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        logits = self.head(torch.relu(self.body(x)))
        return WRAPPED[self.form](self.criterion(logits.reshape(-1, 4).clone(), y), logits)


@pytest.mark.parametrize("form", WRAPPED)
def test_loss_is_found_in_whatever_a_model_returns(form: str) -> None:
    x, y = checked_batch()
    df = paramz.coord_check(lambda w: OwnLoss(w, form), {"x": x, "y": y}, **ASKED)
    plain = paramz.coord_check(
        lambda w: OwnLoss(w, "tuple"), {"x": x, "y": y}, loss=lambda m, b: m(**b)[1], **ASKED
    )
    assert set(df.module) == {"body", "head(input)", "head"}  # no loss, and no logits twice
    assert (df.rms - plain.rms).abs().max() < 1e-7


def test_a_model_without_a_loss_and_targets_that_do_not_fit_are_refused() -> None:
    class NoLoss(nn.Linear):
        def forward(self, x: torch.Tensor, **more: Any) -> Any:
            return {"logits": super().forward(x), "hidden": x, "loss": None}

    def build(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(16, width), NoLoss(width, 4))

    class Last(nn.Sequential):
        def forward(self, x: torch.Tensor, **more: Any) -> Any:
            return super().forward(x)

    x, y = checked_batch()
    with pytest.raises(TypeError, match="no loss in dict with logits, hidden, loss: return"):
        paramz.coord_check(lambda w: Last(*build(w)), {"x": x, "y": y}, **ASKED)
    with pytest.raises(ValueError, match=r"output \(32, 4\) .* targets \(32, 2\)"):
        paramz.coord_check(build, (x, torch.stack([y, y], 1)), **ASKED)


@pytest.mark.parametrize("kind", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_weights_under_torch_s_parametrizations_are_no_activations(kind: Any) -> None:
    def build(width: int) -> nn.Module:
        hidden = nn.Linear(width, width, bias=False)
        return nn.Sequential(nn.Linear(16, width), kind(hidden), nn.Linear(width, 4))

    model, x = build(16), torch.randn(8, 16)
    first = recorded(model, x)
    assert list(first.sizes) == ["0", "1", "2"]
    start = {name: value.clone() for name, value in model.state_dict().items()}
    before = model[1](model[0](x)).detach()
    with torch.no_grad():
        for parameter in model[1].parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        change = rms(model[1](model[0](x)) - before)
        with recording(model, first, start=start) as record:
            model(x)
    assert record.updates["1"] == pytest.approx(change, rel=1e-4)


def test_role_of_a_layer_under_torch_s_parametrization_is_that_of_its_weight() -> None:
    def build(width: int) -> nn.Module:
        hidden = parametrizations.orthogonal(nn.Linear(width, width))
        return nn.Sequential(nn.Linear(16, width), hidden, nn.Linear(width, 4))

    square = {"original$": paramz.Axes(fan_in=(1,), fan_out=(0,))}
    df = paramz.coord_check(build, checked_batch(), roles=square, **ASKED)
    roles = df.groupby("module").role.unique().map(list).to_dict()
    assert roles == {"0": ["input"], "1": ["hidden"], "2": ["output"]}


def test_own_update_of_a_recurrent_layer_is_that_of_its_weights() -> None:
    model = nn.Sequential(nn.LSTM(5, 6))
    x = torch.randn(3, 2, 5)
    with recording(model) as first:
        before = model(x)[0].detach()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
        change = rms(model(x)[0] - before)
        with recording(model, first, start=start) as record:
            model(x)
    assert record.updates["0"] == pytest.approx(change, rel=1e-4)
    assert change > 0.01


def test_complex_activations_have_the_size_of_their_magnitudes() -> None:
    class Waves(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first = nn.Linear(16, width, dtype=torch.complex64)
            self.head = nn.Linear(width, 4, dtype=torch.complex64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.first(x.to(torch.complex64))).abs()

    df = paramz.coord_check(Waves, checked_batch(), **ASKED)
    assert set(df.module) == {"first", "head", "(model)"}
    first = df[(df.step == 0) & (df.width == 32)].set_index("module").rms
    assert first["head"] == pytest.approx(first["(model)"], rel=1e-5)
    assert (df[df.quantity == "update"].groupby("module").rms.max() > 1e-4).all()


def test_no_module_twice_unless_blocks_are_compared() -> None:
    inner = nn.Sequential(nn.Linear(4, 6), nn.Identity(), nn.Dropout(0.0))
    model, x = nn.Sequential(inner, nn.Flatten(0), nn.Unflatten(0, (-1, 6))), torch.randn(3, 4)
    assert list(recorded(model, x).sizes) == ["0.0"]
    with recording(model, repeats=True) as record:
        model(x)
    assert list(record.sizes) == ["0.0", "0.1", "0.2", "0", "1", "2"]


class Bypass(nn.Module):
    """A tied readout that its forward pass may go around, in training, where no plan sees it."""

    def __init__(self, width: int, how: str = "") -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(64, width), nn.Linear(width, 64, bias=False)
        self.head.weight, self.how = self.embed.weight, how

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.embed(ids))
        match self.how if self.training else "":
            case "functional":
                return F.linear(x, self.head.weight)
            case "forward":
                return self.head.forward(x)
            case "keyword":
                return self.head(input=x)
        return self.head(x)


@pytest.mark.parametrize("how", ["functional", "forward"])
def test_a_factor_of_the_plan_that_was_never_applied_is_an_error(how: str) -> None:
    ids = torch.arange(64)
    wanted = (
        r"head \(Linear\): the plan multiplies its input by 0.5 in a hook, and the hook never ran"
    )
    with pytest.raises(ValueError, match=wanted + r".*Call it as head\(x\)"):
        paramz.coord_check(lambda w: Bypass(w, how), (ids, ids), **ASKED)


def test_a_factor_of_the_plan_reaches_an_input_by_keyword() -> None:
    ids = torch.arange(64)
    plain, by_keyword = (
        paramz.coord_check(lambda w, h=how: Bypass(w, h), (ids, ids), **ASKED)
        for how in ("", "keyword")
    )
    assert (plain.module == by_keyword.module).all()
    assert (plain.rms - by_keyword.rms).abs().max() < 1e-7


def test_an_expert_that_no_token_chose_is_no_factor_that_was_not_applied() -> None:
    class Experts(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.unused = nn.Embedding(64, width), Bypass(width)
            self.head = nn.Linear(width, 64)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.first(ids))

    ids = torch.arange(64)
    df = paramz.coord_check(Experts, (ids, ids), **ASKED)
    assert set(df.module) == {"first", "head"}


def test_activations_recomputed_in_the_backward_pass_are_not_recorded_again() -> None:
    class Checkpointed(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(16, width), nn.Linear(width, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            run = torch.utils.checkpoint.checkpoint
            return self.head(run(self.first, x, use_reentrant=False))

    df = paramz.coord_check(Checkpointed, checked_batch(), **ASKED)
    assert set(df.module) == {"first", "head"}


def test_what_is_made_of_a_readout_that_starts_at_zero_is_measured_too() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = nn.Linear(16, 16), nn.Linear(16, 8)
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 4 * self.head(self.mix(x))

    # Both are zero before training, and move apart after it.
    assert list(recorded(Net(), torch.randn(8, 16)).sizes) == ["mix", "head", "(model)"]


class SoftmaxAttention(nn.Module):
    """Attention of two heads whose size grows, with its softmax as a module behind a mask."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads, self.scale = 2, (width // 2) ** -0.5
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        logits = q @ k.mT * self.scale
        hidden = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
        weights = self.softmax(logits.masked_fill(hidden, float("-inf")))
        return self.out((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.filterwarnings("ignore:the token ids")
@pytest.mark.parametrize(("scheme", "passes"), [("mup", True), ("sp", False)])
def test_logits_of_a_softmax_module_may_be_masked_and_fall_before_training(scheme, passes) -> None:
    """They were no finite activations, and with 1/d_head they fall like width^-1/2."""

    def build(width: int) -> nn.Module:
        return nn.Sequential(
            nn.Embedding(20, width), nn.LayerNorm(width), SoftmaxAttention(width),
            nn.LayerNorm(width), nn.Linear(width, 20),
        )  # fmt: skip

    ids = torch.randint(20, (8, 8), generator=torch.Generator().manual_seed(1))
    df = paramz.coord_check(
        build, (ids, ids.roll(-1, 1)), widths=[32, 64, 128, 256], seeds=2, parametrization=scheme
    )
    verdict = paramz.judge(df)
    assert verdict.passed is passes, verdict.sentence
    assert set(df[df.module == "2.softmax(input)"].role) == {"logits"}
    if not passes:
        assert "Cause: the attention scale of 2.softmax" in verdict.sentence


class Cosines(nn.Module):
    """Attention by cosines, in a module of its own that has no weights."""

    class Attend(nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return (10 * q @ k.mT).softmax(-1) @ v

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed, self.qkv = nn.Embedding(8, width), nn.Linear(width, 3 * width)
        self.attend, self.head = self.Attend(), nn.Linear(width, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.embed(ids)).chunk(3, dim=-1)
        return self.head(self.attend(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v))


def test_vectors_of_length_one_that_no_weight_multiplies_are_not_judged_by_their_entries() -> None:
    """Their entries fall like width^-1/2, and cosines do not."""
    record = recorded(Cosines(), torch.arange(8))
    assert list(record.sizes) == ["embed", "qkv", "attend", "head"]


def test_vectors_of_length_one_that_a_weight_multiplies_are_seen() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(F.normalize(self.mix(x), dim=-1))

    assert list(recorded(Net(), torch.randn(3, 4)).sizes) == ["mix", "head(input)", "head"]
