"""The control run of a check, in which maps that start faint start at zero."""

import pytest
import torch
from torch import nn

import paramz
from paramz.theory.power import Power

WIDTHS = [16, 32]


class Gate(nn.Module):
    """A map into four numbers and back, beside a skip connection."""

    def __init__(self, width: int, zero: bool) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, 4, bias=False), nn.Linear(4, width, bias=False)
        if zero:
            nn.init.zeros_(self.down.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(torch.tanh(self.down(x)))


class Fused(nn.Module):
    """The same, with a map that grows and the one into four numbers in one weight."""

    def __init__(self, width: int, zero: bool) -> None:
        super().__init__()
        self.both, self.up = nn.Linear(width, width + 4, bias=False), nn.Linear(4, width)
        if zero:
            nn.init.zeros_(self.both.weight[width:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide, few = self.both(x).split([x.shape[-1], 4], -1)
        return torch.relu(wide) + self.up(torch.tanh(few))


def checked(part: type[nn.Module], zero: bool, **options: object):
    def build(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(6, width), part(width, zero), nn.Linear(width, 3))

    torch.manual_seed(0)
    batch = torch.randn(64, 6), torch.arange(64) % 3
    return paramz.coord_check(build, batch, widths=WIDTHS, seeds=2, **options)


@pytest.mark.parametrize("part", [Gate, Fused])
def test_the_control_run_is_that_of_a_model_with_the_maps_at_zero(part):
    drawn, zero = checked(part, False), checked(part, True)
    keys = ["width", "seed", "step", "module"]
    control = drawn[drawn.quantity == "zeroed"].set_index(keys).rms.sort_index()
    plain = zero[zero.quantity == "update"].set_index(keys).rms.sort_index()
    own = drawn[drawn.quantity == "update"].set_index(keys).rms.sort_index()
    assert list(control.index) == list(plain.index)
    assert control.to_numpy() == pytest.approx(plain.to_numpy(), rel=1e-4)
    assert control.to_numpy() != pytest.approx(own.to_numpy(), rel=1e-2)


def test_models_without_such_maps_are_run_once():
    def build(width):
        return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))

    df = paramz.coord_check(
        build, (torch.randn(64, 6), torch.arange(64) % 3), widths=WIDTHS, seeds=1
    )
    assert "zeroed" not in set(df.quantity)


def llama(width):
    import transformers as hf

    config = hf.LlamaConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=width // 16, num_key_value_heads=4, vocab_size=256, pad_token_id=0,
    )  # fmt: skip
    return hf.LlamaForCausalLM(config)


@pytest.mark.slow
def test_fixed_keys_and_values_pass_from_128_on_and_a_rate_that_is_too_small_fails():
    """Updates of later layers fell as width^-0.45 here, as the attention before them faded."""
    draw = torch.Generator().manual_seed(1)
    batch = {
        name: torch.randint(4, 256, (8, 16), generator=draw) for name in ("input_ids", "labels")
    }
    slow = dict(paramz.MUP.rules)
    rule = slow["adam", "inward"]
    slow["adam", "inward"] = paramz.Rule(
        init_std=rule.init_std, lr=rule.lr * Power(fan_in="-1/2"), eps=rule.eps
    )
    for table, outcome in (
        (paramz.MUP, "pass"),
        (
            paramz.Parametrization(
                name="slow", source="", rules=slow, attention=paramz.MUP.attention
            ),
            "fail",
        ),
    ):
        df = paramz.coord_check(llama, batch, widths=[128, 256, 512, 1024], parametrization=table)
        assert paramz.judge(df).outcome == outcome
