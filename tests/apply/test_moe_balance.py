"""The biases that balance experts without an auxiliary loss: found, said, counted, moved."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import paramz


class Router(nn.Linear):
    """Chooses two of sigmoid scores, and returns the choice as Hugging Face's routers do."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__(width, experts, bias=False)
        self.e_score_correction_bias = nn.Buffer(torch.zeros(experts))

    def forward(self, x):
        scores = super().forward(x).sigmoid()
        chosen = (scores + self.e_score_correction_bias).topk(2, dim=-1).indices
        return scores, scores.gather(-1, chosen), chosen


class Layer(nn.Module):
    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.gate = Router(width, experts)
        self.experts = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(experts))

    def forward(self, x):
        _, gates, chosen = self.gate(x)
        every = torch.stack([expert(x) for expert in self.experts], 1)
        picked = every.gather(1, chosen[..., None].expand(-1, -1, x.shape[-1]))
        return (gates[..., None] * picked).sum(1)


def net(width: int, experts: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, width), Layer(width, experts), nn.Linear(width, 3))


def test_the_rule_balances_what_all_tokens_want():
    torch.manual_seed(0)
    model, x = net(16), torch.randn(512, 6) + 1
    found = []
    for _ in range(200):
        with paramz.moe.counting(model) as loads:
            model(x)
        assert int(loads["1"].sum()) == 2 * 512
        found.append(paramz.moe.balance_(model, loads, rate=2**-8)["1"])
    assert found[0] > 1.5
    assert sum(found[-10:]) / 10 < 1.2
    assert not model[1].gate._forward_hooks


def test_one_step_moves_every_bias_by_the_rate_towards_the_mean():
    model = net(16, experts=4)
    loads = {"1": torch.tensor([4, 1, 0, 3])}
    assert paramz.moe.balance_(model, loads, rate=0.25) == {"1": 2.0}
    assert model[1].gate.e_score_correction_bias.tolist() == [-0.25, 0.25, 0.25, -0.25]


def test_the_plan_says_what_the_biases_are():
    plan = paramz.make_plan(net(32, 16), "mup+moe", base=net, base_width=16)
    assert any(
        "experts of 1 are balanced by biases on their scores (buffers)" in n for n in plan.notes
    )
    assert not any("correction" in row.name for row in plan.rows)


class OfParameter(Layer):
    """Keeps the bias beside router and experts, as a parameter, as AFMoE does."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__(width, experts)
        self.expert_bias = nn.Parameter(torch.zeros(experts), requires_grad=False)


def test_a_bias_that_is_a_parameter_may_have_as_many_entries_as_there_are_experts():
    def build(width: int, experts: int = 8) -> nn.Module:
        return nn.Sequential(nn.Linear(6, width), OfParameter(width, experts), nn.Linear(width, 3))

    model = build(32, 16)
    plan = paramz.parametrize_(model, "mup+moe", base=build, base_width=16)
    row = next(row for row in plan.rows if row.name == "1.expert_bias")
    assert (row.role, row.why) == ("scalar", "balances experts: no gradient reaches it")
    groups = plan.param_groups(model, "adamw", lr=0.1)
    assert all("1.expert_bias" not in group["names"] for group in groups)


LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8}


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("DeepseekV3", {**LATENT, "v_head_dim": 16}),
        ("Dots1", {"head_dim": 16}),
        ("Glm4Moe", {"head_dim": 16}),
    ],
)
def test_hugging_faces_heirs_of_deepseek_are_counted_and_planned(kind, sizes):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=32, hidden_size=32, intermediate_size=32, moe_intermediate_size=16,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, n_routed_experts=8,
        num_experts_per_tok=2, n_shared_experts=1, n_group=1, topk_group=1, first_k_dense_replace=1,
        **sizes,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    plan = paramz.make_plan(model, "mup+moe", base=16)
    said = [note for note in plan.notes if "balanced by biases" in note]
    assert len(said) == 1
    assert "model.layers.1.mlp" in said[0]
    with paramz.moe.counting(model) as loads:
        model(torch.arange(32)[None])
    assert {path: int(load.sum()) for path, load in loads.items()} == {"model.layers.1.mlp": 64}
    paramz.moe.balance_(model, loads)
    bias = model.model.layers[1].mlp.gate.e_score_correction_bias
    assert bias.abs().max() == pytest.approx(1e-3)


def test_what_cannot_be_counted_or_moved_is_said():
    with pytest.raises(ValueError, match="this Linear has no biases on the scores"):
        paramz.moe.balance_(nn.Linear(2, 2), {})
    model = net(16)
    with pytest.raises(ValueError, match=r"'2' has no bias on scores; there are 1"):
        paramz.moe.balance_(model, {"2": torch.ones(8)})
    with pytest.raises(ValueError, match=r"1: loads \(8,\) with a sum of 0, for 8 experts"):
        paramz.moe.balance_(model, {"1": torch.zeros(8)})

    class Silent(Router):
        def forward(self, x):
            return nn.Linear.forward(self, x)

    model[1].gate = Silent(16, 8)
    with (
        pytest.raises(ValueError, match=r"1\.gate \(Silent\) returns 0 tensors of integers.*1"),
        paramz.moe.counting(model),
    ):
        model[1].gate(torch.ones(1, 16))


def test_a_bias_in_so_low_a_precision_that_it_would_stand_still_is_refused():
    model, loads = net(16, experts=4).bfloat16(), {"1": torch.tensor([4, 1, 0, 3])}
    bias = model[1].gate.e_score_correction_bias
    paramz.moe.balance_(model, loads)
    assert bias.tolist() == pytest.approx([-1e-3, 1e-3, 1e-3, -1e-3], rel=2**-8)
    bias.fill_(0.5)
    with pytest.raises(
        ValueError, match=r"1: its bias is torch.bfloat16, which rounds moves of 0.0"
    ):
        paramz.moe.balance_(model, loads)
    assert set(bias.tolist()) == {0.5}
    bias.data = bias.data.float()
    paramz.moe.balance_(model, loads)
    assert bias.tolist() == pytest.approx([0.499, 0.501, 0.501, 0.499])
