"""In one process: compile, export, checkpointing, mixed precision, accumulation, EMA, adapters."""

import copy
from contextlib import nullcontext

import pytest
import torch
from cases import VOCABULARY, gpt, llama, tied_gpt
from gloo import join
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import paramz

BASE, WIDTH = 8, 32
IDS = torch.randint(VOCABULARY, (4, 6), generator=torch.Generator().manual_seed(1))


def planned(build=gpt, width=WIDTH):
    torch.manual_seed(0)
    model = build(width)
    return model, paramz.parametrize_(model, "mup", base=build, base_width=BASE)


def optimizer_for(plan, model):
    return torch.optim.AdamW(plan.param_groups(model, "adamw", lr=2**-6))


def settings(optimizer):
    return [(g["lr"], g["eps"], g["roles"], len(g["params"])) for g in optimizer.param_groups]


def train(model, optimizer, steps=3, context=nullcontext, parts=1, scaler=None):
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        total = 0.0
        for ids in IDS.chunk(parts):
            with context():
                out = model(ids)
                loss = F.cross_entropy(out.flatten(0, 1).float(), ids.roll(-1, 1).flatten()) / parts
            (loss if scaler is None else scaler.scale(loss)).backward()
            total += loss.item()
        losses.append(total)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
    return losses


def plain_run(build=gpt):
    model, plan = planned(build)
    optimizer = optimizer_for(plan, model)
    return settings(optimizer), train(model, optimizer)


@pytest.mark.parametrize("build", [gpt, tied_gpt])
def test_compile_in_one_graph(build):
    groups, wanted = plain_run(build)
    model, plan = planned(build)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    optimizer = optimizer_for(plan, compiled)
    assert settings(optimizer) == groups
    assert train(compiled, optimizer) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("hooked_first", [False, True])
def test_compile_does_not_mistake_a_plain_model_for_one_with_hooks(hooked_first):
    """torch.compile leaves hooks out of its guards by default, so the second would be the first."""
    torch._dynamo.reset()
    hooked, plan = planned(tied_gpt)
    plain = tied_gpt(WIDTH)
    plain.load_state_dict(hooked.state_dict())
    for scale in plan.attention:  # only the hook is left to tell them apart
        plain.get_submodule(scale.module).scale = scale.value
    wanted = [model(IDS) for model in (plain, hooked)]
    assert not torch.allclose(*wanted)
    pairs = list(zip((plain, hooked), wanted, strict=True))
    for model, expected in reversed(pairs) if hooked_first else pairs:
        assert torch.equal(torch.compile(model, backend="eager")(IDS), expected)


@pytest.mark.slow
def test_compile_with_inductor():
    groups, wanted = plain_run()
    model, plan = planned()
    compiled = torch.compile(model, fullgraph=True)
    optimizer = optimizer_for(plan, compiled)
    assert train(compiled, optimizer) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("build", [gpt, tied_gpt])
def test_export_holds_scales_and_hooks(build):
    model, _ = planned(build)
    exported = torch.export.export(model, (IDS,)).module()
    assert torch.allclose(exported(IDS), model(IDS), atol=1e-6)
    paramz.remove_(model)
    assert not torch.allclose(exported(IDS), model(IDS), atol=1e-6)


def test_what_fold_exports_has_the_graph_of_the_plain_model():
    model, _ = planned()
    paramz.fold_(model)

    def calls(module):
        graph = torch.export.export(module, (IDS,)).graph
        return [str(node.target) for node in graph.nodes if node.op == "call_function"]

    assert calls(model) == calls(gpt(WIDTH))


@pytest.mark.parametrize("order", ["checkpoint", "compile and DDP's prefixes", "EMA of DDP"])
def test_names_under_wrappers(order):
    groups, _ = plain_run()
    model, plan = planned()
    if order == "checkpoint":
        for i, block in enumerate(model.blocks):
            model.blocks[i] = checkpoint_wrapper(block)
    elif order == "EMA of DDP":
        model = nn.ModuleDict({"module": nn.ModuleDict({"module": model})})
    else:
        model = nn.ModuleDict({"_orig_mod": nn.ModuleDict({"module": model})})
    assert settings(optimizer_for(plan, model)) == groups


class Named(nn.Module):
    """A model with a ``module`` of its own."""

    def __init__(self, width=8):
        super().__init__()
        self.module = nn.Linear(3, width)
        self.out = nn.Linear(width, 2)


def test_a_module_named_module_is_not_mistaken_for_a_wrapper():
    plan = paramz.parametrize_(model := Named(32), "mup", base=Named)
    wanted = plan.param_groups(model, "adamw", lr=1.0)
    wrapped = nn.ModuleDict({"module": model})
    found = plan.param_groups(wrapped, "adamw", lr=1.0)
    assert [g["params"] for g in found] == [g["params"] for g in wanted]


def test_activation_checkpointing():
    _, wanted = plain_run()
    model, plan = planned()
    for i, block in enumerate(model.blocks):
        model.blocks[i] = checkpoint_wrapper(block)
    assert train(model, optimizer_for(plan, model)) == pytest.approx(wanted, abs=1e-6)


def test_bf16_autocast_and_gradient_scaling():
    _, wanted = plain_run()
    model, plan = planned()
    mixed = train(
        model,
        optimizer_for(plan, model),
        context=lambda: torch.autocast("cpu", torch.bfloat16),
    )
    assert mixed == pytest.approx(wanted, rel=0.02)  # bf16 has 8 bits
    model, plan = planned()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    scaled = train(model, optimizer_for(plan, model), scaler=scaler)
    assert scaled == pytest.approx(wanted, abs=1e-5)


def test_bf16_weights_have_the_same_groups():
    groups, _ = plain_run()
    model, plan = planned()
    assert settings(optimizer_for(plan, model.to(torch.bfloat16))) == groups


def test_gradient_accumulation():
    _, wanted = plain_run()
    model, plan = planned()
    assert train(model, optimizer_for(plan, model), parts=2) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("build", [gpt, tied_gpt])
def test_an_ema_copy_computes_what_the_plan_says(build):
    model, plan = planned(build)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.0))  # 0: the last weights
    optimizer = optimizer_for(plan, model)
    for _ in range(2):
        train(model, optimizer, steps=1)
        average.update_parameters(model)
    assert torch.allclose(average(IDS), model(IDS), atol=1e-6)  # scales and hooks were copied too
    assert paramz.plan_of(average.module) == plan
    assert settings(optimizer_for(plan, average)) == settings(optimizer)


def test_deepcopy_and_state_dict():
    model, plan = planned(tied_gpt)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(IDS), model(IDS))
    other, _ = planned(tied_gpt)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(IDS), model(IDS))
    assert set(model.state_dict()) == set(tied_gpt(WIDTH).state_dict())


def adapted(width=32):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], lora_alpha=8)
    return peft.get_peft_model(llama(width), config)


LORA = "base_model.model.model.layers.0.self_attn.q_proj."


def test_lora_reads_the_width_into_its_rank_and_back():
    """A (rank, in) reads features out into the rank, B (out, rank) feeds them in again."""
    model = adapted(128)
    plan = paramz.parametrize_(model, "mup", base=32)  # the config scaled, the same adapters
    roles = {row.name: row.role for row in plan.rows}
    assert roles[f"{LORA}lora_A.default.weight"] == "latent"
    assert roles[f"{LORA}lora_B.default.weight"] == "outward"
    assert roles[f"{LORA}base_layer.weight"] == "hidden"
    a, b = plan.param_groups(model, "adamw", lr=1.0)
    assert (a["roles"], a["lr"]) == (["latent"], 0.25)
    assert (b["roles"], b["lr"]) == (["outward"], 1.0)  # the ratio of LoRA+ (Hayou et al. 2024)
    assert not any("could not be run" in note for note in plan.notes)
    by_width, by_factory = (
        paramz.make_plan(adapted(128), "mup", base=base, base_width=32) for base in (32, adapted)
    )
    assert by_width.rows == by_factory.rows


def test_adapters_put_on_after_planning_are_named():
    model = llama(64)
    plan = paramz.parametrize_(model, "mup", base=32)
    peft = pytest.importorskip("peft")
    late = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="added after planning .adapters") as error:
        plan.param_groups(late, "adamw", lr=1.0)
    text = str(error.value)
    assert f"{LORA}lora_A.default.weight (4, 64)" in text
    assert "embed_tokens" not in text  # only what is new is named
    assert "not in the model: none" in text
    assert "paramz.adopt_(final, ...) if its weights are trained" in text


def test_a_new_head_is_named():
    model, plan = planned()
    model.value_head = nn.Linear(WIDTH, 1)
    with pytest.raises(ValueError, match=r"value_head.weight \(1, 32\), value_head.bias"):
        plan.param_groups(model, "adamw", lr=1.0)


def test_the_plan_survives_ddp_in_one_process(tmp_path):
    import torch.distributed as dist

    join(0, 1, str(tmp_path))
    try:
        groups, wanted = plain_run()
        model, plan = planned()
        compiled = torch.compile(DistributedDataParallel(model), backend="eager")
        optimizer = optimizer_for(plan, compiled)
        assert settings(optimizer) == groups
        assert train(compiled, optimizer) == pytest.approx(wanted, abs=1e-6)
    finally:
        dist.destroy_process_group()
