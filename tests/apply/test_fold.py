"""Multipliers in hooks, folded into weights, or never there: the same function and the same run."""

import copy

import pytest
import torch
from cases import CASES, attention_classifier, build64, gpt, gpt2, llama, mlp, tied_gpt, train
from torch import nn

import paramz
from paramz.apply.hf import config_factory
from paramz.theory.families import COLUMNS
from paramz.theory.printed import HALF, IN, OUT

TABLES = {
    "readout": paramz.MUP.shift(COLUMNS, output=1 / IN),
    "everywhere": paramz.MUP.shift(COLUMNS, input=OUT**HALF, hidden=IN**-HALF, output=1 / IN),
    "mean field": paramz.MEAN_FIELD,
}


def trained(case, table, fold, optimizer="adamw"):
    model = build64(case.build, 32)
    plan = paramz.parametrize_(model, table, base=lambda w=8: build64(case.build, w), fold=fold)
    eps = {"eps": 1e-3} if optimizer == "adamw" else {}
    groups = plan.param_groups(model, optimizer, lr=0.02, weight_decay=0.1, **eps)
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimizer]
    return model, train(model, kind(groups), case.batch(), steps=6)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("name", CASES)
def test_hooks_and_folding_train_alike(name, optimizer):
    case = CASES[name]
    _, expected = trained(case, paramz.MUP, True, optimizer)
    for key, table in TABLES.items():
        if name == "gpt" and key == "everywhere":
            continue  # a bare position table can hold no multiplier
        _, outputs = trained(case, table, False, optimizer)
        assert torch.allclose(outputs, expected, rtol=0, atol=1e-11), key
        _, outputs = trained(case, table, True, optimizer)
        assert torch.allclose(outputs, expected, rtol=0, atol=1e-11), key


@pytest.mark.parametrize("table", TABLES)
def test_fold_gives_the_plain_model_of_the_same_function(table):
    case = CASES["mlp"]
    model, outputs = trained(case, TABLES[table], fold=False)
    paramz.fold_(model)
    plain = build64(case.build, 32, seed=1)
    plain.load_state_dict(model.state_dict())
    for folded in (model, plain):
        assert torch.allclose(folded(case.batch()[0]), outputs[-1], atol=1e-12)
    assert paramz.plan_of(model) is None
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def attention_models():
    def torch_base(width=8):
        return build64(attention_classifier, width)

    x = torch.randn(2, 5, 32, dtype=torch.float64)
    untied = build64(llama, 64)
    return {
        "torch": (torch_base(32), torch_base, 8, x),
        "plain gpt": (build64(gpt, 32), lambda w: build64(gpt, w), 8, CASES["gpt"].batch()[0]),
        "llama": (untied, config_factory(untied, heads="size"), 16, torch.arange(8)[None]),
    }


@pytest.mark.parametrize("name", ["torch", "plain gpt", "llama"])
def test_attention_scales_go_into_the_queries(name):
    model, base, width, x = attention_models()[name]
    model.eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.5)
        elif name == "torch" and parameter.numel() == 96:
            nn.init.normal_(parameter)
    plain = copy.deepcopy(model)
    plan = paramz.parametrize_(model, "mup", base=base, base_width=width, init=False)
    assert plan.attention

    def outputs(model):
        with torch.no_grad():
            out = model(x)
        return getattr(out, "logits", out)

    expected = outputs(model)
    assert not torch.allclose(expected, outputs(plain), atol=1e-3)
    paramz.fold_(model)
    plain.load_state_dict(model.state_dict())
    assert torch.allclose(outputs(model), expected, atol=1e-12)
    assert torch.allclose(outputs(plain), expected, atol=1e-12)  # scales are the code's own again


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_untouched(model, before, plan):
    assert paramz.plan_of(model) is plan
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


class OddAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale = (width // 2) ** -0.5
        self.everything = nn.Linear(width, 3 * width)


def test_queries_that_cannot_be_found_leave_the_model_as_it_was():
    def build(width=8):
        return nn.ModuleDict({"attn": OddAttention(width), "out": nn.Linear(width, 2)})

    model = build(32)
    plan = paramz.parametrize_(model, TABLES["readout"], base=build, fold=False)
    before = state(model)
    with pytest.raises(ValueError) as error:
        paramz.fold_(model)
    assert str(error.value) == (
        "attn: paramz cannot find the query projection of this OddAttention (looked for q_proj, "
        "query, q, wq, to_q, q_lin, c_attn, qkv, in_proj, qkv_proj in everything), so it cannot "
        "fold its attention scale 0.125; plain code would use 0.25"
    )
    assert_untouched(model, before, plan)


def test_fold_and_remove_need_a_plan():
    for function in (paramz.fold_, paramz.remove_):
        with pytest.raises(
            ValueError, match="this Sequential is under no plan: call paramz.parametr"
        ):
            function(mlp(8))


def test_folding_twice_is_refused():
    model = mlp(32)
    paramz.parametrize_(model, TABLES["readout"], base=mlp, fold=False)
    paramz.fold_(model)
    with pytest.raises(ValueError, match="under no plan"):
        paramz.fold_(model)


@pytest.mark.parametrize("build", [gpt, tied_gpt, gpt2], ids=["gpt", "tied", "gpt2"])
def test_remove_restores_everything_but_the_values(build):
    base = 16 if build is gpt2 else 8
    model = build(32)
    untouched = build(32)
    model.register_forward_pre_hook(print)  # somebody else's hook stays
    plan = paramz.parametrize_(model, "mup", base=build, base_width=base)
    before = state(model)
    assert paramz.remove_(model) == plan
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for module, other in zip(model.modules(), untouched.modules(), strict=True):
        assert getattr(module, "scale", 0) == getattr(other, "scale", 0)
        assert getattr(module, "scaling", 0) == getattr(other, "scaling", 0)
        assert len(module._forward_pre_hooks) == (module is model)
    assert paramz.plan_of(model) is None
    paramz.parametrize_(model, "sp", base=build, base_width=base, init=False)  # may be planned anew


@pytest.mark.parametrize("more", [{"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 6}])
def test_keys_without_a_projection_keep_their_logits(more):
    """Keys that torch adds itself were scaled with the others: the factor went into queries."""

    class Net(nn.Module):
        def __init__(self, width=16):
            super().__init__()
            self.first, self.head = nn.Linear(6, width), nn.Linear(width, 3)
            self.attention = nn.MultiheadAttention(width, 2, batch_first=True, **more)
            nn.init.normal_(self.attention.in_proj_bias)

        def forward(self, x):
            h = self.first(x)
            keys = x if "kdim" in more else h
            return self.head(self.attention(h, keys, h)[0])

    model, x = Net(64), torch.randn(2, 4, 6)
    plan = paramz.parametrize_(model, "mup", base=Net)
    assert "attention logits, key input" in str(plan.summary())
    before = model(x)
    paramz.fold_(model)
    assert torch.allclose(model(x), before, atol=1e-6)


class Attention(nn.Module):
    def __init__(self, width, shared=None):
        super().__init__()
        self.scale = (width // 2) ** -0.5
        maps = (nn.Linear(width, width) for _ in range(3))
        self.q_proj, self.k_proj, self.v_proj = (shared or next(maps), next(maps), next(maps))

    def forward(self, x):
        maps = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (each(x).unflatten(-1, (2, -1)).transpose(1, 2) for each in maps)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return x + mixed.transpose(1, 2).flatten(2)


def sharing(what):
    def build(width=8):
        first = Attention(width)
        second = Attention(width, first.q_proj if what == "module" else None)
        if what == "weight":
            second.q_proj.weight = first.q_proj.weight
        if what == "keys":
            first.k_proj = first.q_proj
        return nn.Sequential(nn.Linear(5, width), first, second, nn.Linear(width, 3)).double()

    return build


@pytest.mark.filterwarnings("ignore:the model:UserWarning")  # of whose heads, a shared map hides
@pytest.mark.parametrize("what", ["module", "weight"])
def test_queries_that_layers_share_take_the_factor_once(what):
    model, x = sharing(what)(32), torch.randn(2, 4, 5, dtype=torch.float64)
    paramz.parametrize_(model, "mup", base=sharing(what), base_width=8)
    before = model(x)
    paramz.fold_(model)
    assert torch.allclose(model(x), before, atol=1e-12)
    paramz.adopt_(model, "mup", base=sharing(what), base_width=8)
    assert torch.allclose(model(x), before, atol=1e-12)
    assert model[1].scale != (32 // 2) ** -0.5  # the plan's


@pytest.mark.filterwarnings("ignore:the model:UserWarning")
def test_queries_that_are_keys_too_are_not_folded():
    model, x = sharing("keys")(32), torch.randn(2, 4, 5, dtype=torch.float64)
    before = model(x)
    plan = paramz.adopt_(model, "mup", base=sharing("keys"), base_width=8)
    assert torch.allclose(model(x), before, atol=1e-12)
    assert any("is that of 1.k_proj, too" in note for note in plan.notes)
    model = sharing("keys")(32)
    paramz.parametrize_(model, "mup", base=sharing("keys"), base_width=8)
    with pytest.raises(ValueError, match=r"1: the weight of its queries is that of 1.k_proj, too"):
        paramz.fold_(model)


@pytest.mark.filterwarnings("ignore:the model:UserWarning")
def test_weights_side_by_side_in_one_memory_are_not_one_weight():
    model, x = sharing("nothing")(32), torch.randn(2, 4, 5, dtype=torch.float64)
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])  # as trainers make it
    for p, part in zip(
        model.parameters(), flat.split([p.numel() for p in model.parameters()]), strict=True
    ):
        p.data = part.view_as(p)
    paramz.parametrize_(model, "mup", base=sharing("nothing"), base_width=8)
    before = model(x)
    paramz.fold_(model)
    assert torch.allclose(model(x), before, atol=1e-12)
