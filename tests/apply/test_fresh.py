"""Models that parametrize_ must not take as they are: wrapped, computed elsewhere, trained."""

import re
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import paramz

transformers = pytest.importorskip("transformers")


def plain(width=8):
    return nn.Sequential(
        nn.Linear(6, width), nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, 3),
    )  # fmt: skip


def under(norm, places=(0, 2, 4)):
    def build(width=8):
        model = plain(width)
        for place in places:
            norm(model[place])
        return model

    return build


COMPUTED = {
    "weight_norm": (parametrizations.weight_norm, "WeightNorm"),
    "spectral_norm": (parametrizations.spectral_norm, "SpectralNorm"),
    "orthogonal": (parametrizations.orthogonal, "Orthogonal"),
    "old weight_norm": (weight_norm, "WeightNorm"),
    "old spectral_norm": (spectral_norm, "SpectralNorm"),
}
WARNS = "ignore:.*weight_norm. is deprecated"


@pytest.mark.filterwarnings(WARNS)
@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("verb", [paramz.parametrize_, paramz.make_plan, paramz.adopt_])
def test_weights_that_torch_computes_are_named_with_the_way_out(name, verb):
    norm, kind = COMPUTED[name]
    build = under(norm)
    with pytest.raises(
        ValueError, match=f"0.weight, 2.weight, 4.weight is computed by torch's {kind}"
    ) as error:
        verb(build(32), "mup", base=build)
    assert "paramz.parametrize_, then paramz.reparametrize_(model, " in str(error.value)


@pytest.mark.filterwarnings(WARNS)
@pytest.mark.parametrize("name", COMPUTED)
def test_the_way_out_pastes_in(name):
    """What the message says is taken from it and run, on a model that has one such layer of two."""
    build = under(COMPUTED[name][0], places=(2,))
    model = build(32)
    with pytest.raises(ValueError) as error:
        paramz.parametrize_(model, "mup", base=build)
    undo = re.search(r"take it off each, as in (.*)\), call paramz", str(error.value))[1]
    eval(undo, {"torch": torch, "model": model})
    plan = paramz.parametrize_(model, "mup", base=plain)
    call = re.search(r"paramz.reparametrize_\(model, .*?where=\[.*?\]\)", str(error.value))[0]
    eval(call, {"paramz": paramz, "model": model})
    model(torch.ones(2, 6))
    assert type(model[2]).__name__ == "ReparametrizedLinear"
    assert type(model[0]) is nn.Linear
    plan = paramz.plan_of(model)
    plan.check(torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1)), model=model)


def test_parts_whose_roles_the_user_gave_are_taken():
    build = under(parametrizations.weight_norm, places=(2,))
    model = build(32)
    roles = {
        r"^2[.]parametrizations[.]weight[.]original0$": "vector",
        r"^2[.]parametrizations[.]weight[.]original1$": "hidden",
    }
    plan = paramz.parametrize_(model, "mup", base=build, roles=roles)
    assert {row.role for row in plan.rows if "original" in row.name} == {"vector", "hidden"}


# ---- Wrapped first -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (torch.compile, "torch.compile"),
        (torch.jit.script, "torch.jit"),
        (lambda model: torch.jit.trace(model, torch.ones(2, 6)), "torch.jit"),
        (nn.DataParallel, "DataParallel"),
        (torch.optim.swa_utils.AveragedModel, "AveragedModel"),
    ],
)
@pytest.mark.parametrize("verb", [paramz.parametrize_, paramz.make_plan])
def test_a_wrapped_model_is_refused_with_the_order(wrap, name, verb):
    with pytest.raises(ValueError, match=f"the model is under {name} already") as error:
        verb(wrap(plain(32)), "mup", base=plain)
    assert f"paramz.parametrize_ the plain model, then apply {name}, then make the" in str(
        error.value
    )
    inner = nn.Sequential(wrap(plain(32)), nn.Linear(3, 3))
    with pytest.raises(ValueError, match=f"0 is under {name} already"):
        verb(inner, "mup", base=lambda w=8: nn.Sequential(plain(w), nn.Linear(3, 3)))


def test_the_order_that_it_names_works():
    model = plain(32)
    plan = paramz.parametrize_(model, "mup", base=plain)
    wrapped = torch.compile(model)
    plan.check(torch.optim.AdamW(plan.param_groups(wrapped, "adamw", lr=0.1)), model=wrapped)


# ---- Trained -------------------------------------------------------------------------------------


def trained(model, steps=5):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("how", ["in place", "loaded"])
def test_a_trained_plain_model_is_refused_by_its_gains_and_biases(how):
    torch.manual_seed(0)
    model = trained(plain(32))
    if how == "loaded":
        state, model = model.state_dict(), plain(32)
        model.load_state_dict(state)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="are not as the base draws them") as error:
        paramz.parametrize_(model, "mup", base=plain)
    assert "paramz.adopt_(model, ...)" in str(error.value)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert paramz.plan_of(model) is None


def test_a_trained_model_is_refused_though_one_layer_still_looks_uniform():
    """Its readout grew and kept its shape: two of three layers are evidence enough."""

    def build(width=32):
        widths = 16, width, width, 10
        return nn.Sequential(*(nn.Linear(*size) for size in pairwise(widths)))

    torch.manual_seed(0)
    model, x, y = build(128), torch.randn(256, 16), torch.randint(0, 10, (256,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        model[2].weight.uniform_(-0.3, 0.3)
    with pytest.raises(ValueError, match=r"are not as the base draws them .2 of 3 tensors"):
        paramz.parametrize_(model, "mup", base=build)


def test_who_insists_is_heard():
    model = trained(plain(32))
    plan = paramz.parametrize_(model, "mup", base=plain, trained=True)
    assert any(row.factor not in (None, 1.0) for row in plan.rows)
    again = trained(plain(32))
    assert paramz.parametrize_(again, "mup", base=plain, init=False).rows


def test_adopting_it_is_the_way_out():
    model, x = trained(plain(32)), torch.randn(4, 6)
    before = model(x)
    paramz.adopt_(model, "mup", base=plain)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("width", [8, 16, 32, 128])
def test_fresh_models_pass_at_any_size(width):
    for seed in range(20):
        torch.manual_seed(seed)
        paramz.parametrize_(plain(width), "mup", base=plain)


def test_a_model_with_another_init_of_one_layer_passes():
    model = plain(32)
    nn.init.normal_(model[0].weight)
    paramz.parametrize_(model, "mup", base=plain)


@pytest.mark.parametrize("recipe", [paramz.reparam.Orthogonal(), paramz.reparam.FedPara(3)])
def test_a_fresh_model_whose_weights_are_computed_passes_and_a_trained_one_does_not(recipe):
    torch.manual_seed(0)
    fresh = plain(32)
    paramz.reparametrize_(fresh, recipe)
    paramz.parametrize_(fresh, "mup", base=plain)
    model = plain(32)
    paramz.reparametrize_(model, recipe)
    with pytest.raises(ValueError, match="1.weight, 1.bias of this .* are not as the base"):
        paramz.parametrize_(trained(model), "mup", base=plain)
    assert type(model[2]).__name__ == "ReparametrizedLinear"


def llama_config(width=64):
    return transformers.LlamaConfig(
        vocab_size=40, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4,
    )  # fmt: skip


@pytest.mark.parametrize("scheme", ["mup", "u-mup"])
def test_what_from_pretrained_loaded_is_refused(scheme, tmp_path):
    kind = transformers.LlamaForCausalLM
    kind(llama_config()).save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    ids = {"input_ids": torch.arange(8)[None]}
    with pytest.raises(ValueError, match="of this LlamaForCausalLM .* were loaded from") as error:
        paramz.parametrize_(loaded, scheme, base=32, example=ids)
    assert "paramz.adopt_(model, ...)" in str(error.value)
    # Fresh ones of the loaded model's own config, or of the config in the folder, are planned.
    for config in (loaded.config, transformers.LlamaConfig.from_pretrained(tmp_path)):
        paramz.parametrize_(kind(config), scheme, base=32, example=ids)
    if scheme == "mup":
        paramz.parametrize_(loaded, scheme, base=32, trained=True)
