"""Planning a large model costs next to nothing beyond the model on the meta device."""

import tracemalloc

import torch

import paramz


def llama70b():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80,
        num_attention_heads=64, num_key_value_heads=8, vocab_size=128256,
    )  # fmt: skip
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def test_planning_a_70b_llama_takes_under_50_megabytes():
    model = llama70b()
    assert sum(p.numel() for p in model.parameters()) > 70e9
    paramz.make_plan(torch.nn.Linear(2, 2), "mup", base=lambda w=2: torch.nn.Linear(2, w))  # warm
    tracemalloc.start()
    plan = paramz.make_plan(model, "mup", base=1024)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6
    assert len(plan.rows) == len(list(model.parameters()))
    assert plan.rows[1].ratios == {"fan_in": 8.0, "fan_out": 8.0}
    assert all(p.is_meta for p in model.parameters())
    groups = plan.param_groups(model, "adamw", lr=3e-3)
    assert len(groups) == 3  # hidden and readout differ in eps alone
