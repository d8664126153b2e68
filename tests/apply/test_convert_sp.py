"""From the standard parametrization to muP and back: the same function all the way."""

import copy

import pytest
import torch
import zoo_hf
from cases import attention_classifier, build64, gpt, gpt2, llama, mlp, tied_gpt
from torch import nn
from transformers import GemmaForCausalLM

import paramz

# Inputs, base width, width; the size of the heads grows in gpt and in torch's attention.
MODELS = {
    "mlp": (mlp, lambda: torch.randn(4, 6), 8, 32),
    "gpt": (gpt, lambda: torch.randint(11, (4, 6)), 8, 32),
    "torch attention": (attention_classifier, lambda: torch.randn(2, 5, 32), 8, 32),
    "llama": (llama, lambda: torch.randint(40, (2, 8)), 32, 64),
    "gpt2, tied": (gpt2, lambda: torch.randint(40, (2, 8)), 32, 64),
}


def outputs(model, x):
    with torch.no_grad():
        out = model.eval()(x)
    return getattr(out, "logits", out)


def trained(build, width, x):
    """Any weights that no init would draw."""
    torch.manual_seed(0)
    model = build(width)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_adopted_and_folded_back(name):
    build, inputs, base, width = MODELS[name]
    x = inputs()
    model = trained(build, width, x)
    plain = copy.deepcopy(model)
    wanted = outputs(plain, x)
    plan = paramz.adopt_(model, "mup", base=build, base_width=base)
    assert torch.allclose(outputs(model, x), wanted, rtol=1e-4, atol=1e-5)
    # Learning rates are those of a model that was muP from the start.
    fresh = build(width)
    started = paramz.parametrize_(fresh, "mup", base=build, base_width=base)
    ratios = [
        [(g["lr"], g["roles"]) for g in p.param_groups(m, "adamw", lr=1.0)]
        for p, m in ((plan, model), (started, fresh))
    ]
    assert ratios[0] == ratios[1]
    paramz.fold_(model)
    assert torch.allclose(outputs(model, x), wanted, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == list(plain.state_dict())
    for key, value in plain.state_dict().items():
        assert torch.allclose(model.state_dict()[key], value, rtol=1e-5, atol=1e-7)


def test_equal_in_double_precision_to_rounding():
    x = torch.randint(11, (4, 6))
    model = build64(gpt, 32)
    wanted = outputs(model, x)
    plan = paramz.adopt_(model, "mup", base=gpt, base_width=8)
    assert any(s.value != s.plain for s in plan.attention)  # the function would have changed
    assert torch.allclose(outputs(model, x), wanted, rtol=1e-12, atol=1e-12)


def test_what_training_went_before_is_kept_and_training_goes_on():
    x, y = torch.randn(16, 6), torch.arange(16) % 3
    model = mlp(32)
    plan = paramz.adopt_(model, "mup", base=mlp, base_width=8)
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=2**-6))
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_factor_that_no_weight_can_take_up_stays_and_is_noted():
    plan = paramz.adopt_(tied_gpt(32), "mup", base=tied_gpt, base_width=8)
    assert plan.multipliers == {}
    assert any("head keeps the factor 1 that it was trained with" in note for note in plan.notes)
    kind, config, _ = zoo_hf.gemma()
    gemma = kind(paramz.hf.scaled_config(config, 128))
    plan = paramz.adopt_(gemma, "mup", base=64)
    assert plan.attention == ()
    assert any("embed_scale stays as it was trained" in note for note in plan.notes)


def test_an_untied_embedding_takes_its_factor_up():
    kind, config, batch = zoo_hf.gemma()
    config.tie_word_embeddings = False
    model = kind(paramz.hf.scaled_config(config, 128))
    ids = batch()["input_ids"]
    wanted = outputs(model, ids)
    plan = paramz.adopt_(model, "mup", base=64)
    assert [s.attribute for s in plan.attention] == ["embed_scale"]
    assert torch.allclose(outputs(model, ids), wanted, rtol=1e-4, atol=1e-5)
    assert isinstance(model, GemmaForCausalLM)


def test_adapters_on_a_trained_model():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        llama(128), peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"])
    )
    ids = torch.randint(40, (2, 8))
    wanted = outputs(model, ids)
    plan = paramz.adopt_(model, "mup", base=32)
    assert torch.equal(outputs(model, ids), wanted)
    groups = plan.param_groups(model, "adamw", lr=1.0)
    assert [(g["roles"], g["lr"]) for g in groups] == [(["latent"], 0.25), (["outward"], 1.0)]


def test_adopting_twice_or_with_unit_scaling_is_refused():
    model = mlp(32)
    paramz.adopt_(model, "mup", base=mlp, base_width=8)
    with pytest.raises(ValueError, match="under a plan already: paramz.fold_ makes it plain"):
        paramz.adopt_(model, "mup", base=mlp, base_width=8)
    with pytest.raises(ValueError, match="u-mup replaces layers and draws their weights"):
        paramz.adopt_(mlp(32), "u-mup", base=mlp)


def test_restored_from_its_file(tmp_path):
    x = torch.randint(11, (4, 6))
    model = tied_gpt(32)
    plan = paramz.parametrize_(model, "mup", base=tied_gpt, base_width=8)
    plan.save(tmp_path / "paramz.json")
    other = tied_gpt(32)
    other.load_state_dict(model.state_dict())
    assert not torch.allclose(outputs(other, x), outputs(model, x))  # all keys matched, silently
    paramz.restore_(other, paramz.Plan.load(tmp_path / "paramz.json"))
    assert torch.equal(outputs(other, x), outputs(model, x))
    paramz.restore_(other, plan)  # again: nothing happens
    with pytest.raises(ValueError, match="of another model: .*tokens.weight is .11, 16., .11, 32."):
        paramz.restore_(tied_gpt(16), plan)
    with pytest.raises(ValueError, match="it has no pos_emb"):
        paramz.restore_(mlp(32), plan)


class Inputs(nn.Module):
    """Takes a mapping that nobody could guess, and has a map whose place only a run shows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inside, self.head = nn.Linear(width, 3), nn.Linear(3, 4)
        self.embed = nn.Linear(5, width)

    def forward(self, given):
        return self.head(self.inside(self.embed(given["x"]).relu()).relu())


def test_an_example_shows_places_when_a_trained_model_is_adopted():
    """adopt_ took none, so that what only a run shows could not be told it."""
    example = {"given": {"x": torch.randn(2, 5)}}
    plan = paramz.adopt_(Inputs(32), "mup", base=Inputs, base_width=8, example=example)
    assert plan.notes == ()
    with pytest.warns(UserWarning, match="by the order of the modules.* Give example="):
        paramz.adopt_(Inputs(32), "mup", base=Inputs, base_width=8)
