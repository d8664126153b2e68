"""Plain models converted in place: what is found, what is refused, what survives."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from umup_models import VOCABULARY, Plain, mean_loss, tokens

import paramz
from paramz.nn import Alphas, Conv1D, Embedding, Linear, Readout, unit_scale_


def llama(layers=2):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=layers, vocab_size=VOCABULARY,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
        )
    )  # fmt: skip


def gpt2(layers=2):
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=32, n_layer=layers, n_head=4, vocab_size=VOCABULARY, n_positions=32,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


@pytest.mark.parametrize("build", [llama, gpt2])
def test_hugging_face_models_have_unit_scale_where_it_is_due(build):
    torch.manual_seed(0)
    model = build()
    names = list(model.state_dict())
    ids = tokens(16, batch=32)
    paramz.parametrize_(model, "u-mup", example={"input_ids": ids})
    assert list(model.state_dict()) == names
    outputs = {}
    for path, module in model.named_modules():
        if isinstance(module, Linear | Conv1D) and not isinstance(module, Readout):
            module.register_forward_hook(lambda m, a, out, p=path: outputs.update({p: out}))
    model(input_ids=ids)
    ends = ("o_proj", "down_proj", "c_proj")
    for path, out in outputs.items():
        if not path.endswith(ends):  # these join the stream, which is not renormalised
            assert 0.8 < out.std() < 1.25, path
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, Embedding)
    assert isinstance(model.get_output_embeddings(), Readout)


@pytest.mark.parametrize("build", [llama, gpt2])
def test_a_converted_hugging_face_model_trains(build):
    torch.manual_seed(0)
    model = build()
    ids = (torch.arange(16) + torch.arange(8)[:, None]) % VOCABULARY  # the next is the last plus 1
    plan = paramz.parametrize_(model, "u-mup", example={"input_ids": ids})
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=1.0))
    losses = []
    for _ in range(15):
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_the_alphas_do_what_the_layers_of_paramz_nn_do():
    alphas = Alphas(ffn_act=0.5, attn_softmax=2.0, res=0.7, res_attn_ratio=1.5, loss_softmax=3.0)
    ids = tokens()
    ours = paramz.nn.TransformerDecoder(32, VOCABULARY, 3, 4, alphas).double()
    model = Plain().double()
    unit_scale_(model, ids[:, :-1], alphas=alphas)
    from umup_models import copy_weights_, weights

    copy_weights_(model, ours)
    logits = ours(ids[:, :-1])
    # The converted model's own loss has no multiplier, so its logits carry it.
    torch.testing.assert_close(model(ids[:, :-1]), 3.0 * logits, rtol=1e-10, atol=1e-10)
    mean_loss(model, ids).backward()
    loss = paramz.nn.functional.cross_entropy(
        logits.flatten(end_dim=1), ids[:, 1:].flatten(), alphas.loss_softmax
    )
    loss.backward()
    expected = weights(ours)
    for name, parameter in weights(model).items():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-9, atol=1e-9)


class FixedScale(nn.Module):
    """Attention that leaves the factor on its logits to torch."""

    def __init__(self, width=32):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, VOCABULARY)

    def forward(self, ids):
        x = self.embed(ids)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.readout(x + self.out(y.transpose(1, 2).flatten(2)))


def test_where_attention_keeps_its_factor_queries_and_keys_take_up_the_difference():
    model = FixedScale()
    unit_scale_(model, tokens())
    missing = (1 / 8) / 8**-0.5
    assert model.qkv.scale.output == pytest.approx(32**-0.5 * missing**0.5)


def test_operations_without_a_rule_are_listed_and_nothing_is_changed():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.ConvTranspose2d(1, 4, 3), nn.Linear(4, 2)
            self.side = nn.Linear(4, 4)

        def forward(self, x):
            x = self.first(x).amax((-1, -2))
            return self.last(torch.sin(self.side(x)) + x)

    model = Odd()
    before = copy.deepcopy(model.state_dict())
    message = "(?s)no rule.*conv_transpose2d, called in first\n.*sin, called in the model itself\n"
    with pytest.raises(ValueError, match=message):
        paramz.parametrize_(model, "u-mup", example=torch.randn(2, 1, 5, 5))
    assert type(model.last) is nn.Linear
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_eager_attention_is_refused_with_the_remedy():
    model = llama()
    model.set_attn_implementation("eager")
    with pytest.raises(ValueError, match="(?s)softmax.*attn_implementation='sdpa'"):
        paramz.parametrize_(model, "u-mup", example=tokens())


def test_layers_called_twice_in_different_places_are_refused():
    layer = nn.Linear(8, 8)
    model = nn.Sequential(layer, nn.GELU(), layer, nn.Linear(8, 2))
    with pytest.raises(ValueError, match="called more than once"):
        unit_scale_(model, torch.randn(4, 8))


def test_bare_parameters_that_are_no_tables_are_refused():
    class Extra(nn.Linear):
        forward = nn.Linear.forward

        def __init__(self):
            super().__init__(4, 4)
            self.offset = nn.Parameter(torch.zeros(3))

    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model.register_parameter("offset", nn.Parameter(torch.zeros(3)))
    with pytest.raises(ValueError, match=r"no role for offset \(3,\)"):
        unit_scale_(model, torch.randn(2, 4))


def test_a_model_that_is_a_single_layer_is_refused_and_stays_as_it_is():
    for convert in (lambda m: unit_scale_(m, torch.randn(2, 4)), paramz.nn.fp8_):
        model = nn.Linear(4, 4)
        with pytest.raises(ValueError, match="this Linear is a single layer.*wrap it"):
            convert(model)
        assert list(model.children()) == []


def test_an_example_is_asked_for():
    with pytest.raises(TypeError, match="example is missing.*pass example=batch"):
        paramz.parametrize_(Plain(), "u-mup")


def test_converting_twice_changes_nothing_and_another_plan_is_refused():
    model = Plain()
    plan = paramz.parametrize_(model, "u-mup", example=tokens())
    before = copy.deepcopy(model.state_dict())
    assert paramz.parametrize_(model, "u-mup", example=tokens()) is plan
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="u-mup has replaced the model's layers"):
        paramz.remove_(model)


def test_what_other_schemes_need_changes_nothing():
    widths = []

    def build(width):
        widths.append(width)
        return Plain(width)

    plan = paramz.parametrize_(Plain(), "u-mup", example=tokens())
    model = Plain()
    same = paramz.parametrize_(
        model, "u-mup", base=build, base_width=8, roles={}, branches=None, example=tokens()
    )
    assert same == plan
    assert widths == []


def test_roles_are_refused():
    for function in (paramz.parametrize_, paramz.make_plan):
        with pytest.raises(ValueError, match=r"roles={'qkv': 'input'} cannot be given to u-mup"):
            function(Plain(), "u-mup", roles={"qkv": "input"}, example=tokens())


def test_alphas_are_refused_where_they_would_do_nothing():
    alphas = Alphas(res=2.0)
    with pytest.raises(ValueError, match="alphas are hyperparameters of u-mup, and mup has none"):
        paramz.parametrize_(Plain(), "mup", base=Plain, base_width=8, alphas=alphas)
    model = Plain()
    paramz.parametrize_(model, "u-mup", example=tokens(), alphas=alphas)
    decoder = paramz.nn.TransformerDecoder(32, VOCABULARY, 3, 4)
    for built in (model, decoder):
        with pytest.raises(ValueError, match=r"Alphas\(.*res=2.0.* comes too late: the layers of"):
            paramz.parametrize_(built, "u-mup", example=tokens(), alphas=alphas)


def test_copies_pickles_and_plans_survive():
    ids = tokens()
    model = Plain()
    plan = paramz.parametrize_(model, "u-mup", example=ids)
    expected = model(ids)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(ids), expected)
        assert paramz.plan_of(other) == plan
    stored = io.BytesIO()
    torch.save(model.state_dict(), stored)
    stored.seek(0)
    fresh = Plain()
    paramz.parametrize_(fresh, "u-mup", example=ids, init=False)
    fresh.load_state_dict(torch.load(stored))
    assert torch.equal(fresh(ids), expected)
    assert paramz.Plan.from_json(plan.to_json()) == plan


def test_folded_models_are_plain_ones():
    ids = tokens()
    torch.manual_seed(0)
    model = llama().double()
    paramz.parametrize_(model, "u-mup", example=ids)
    expected = model(ids).logits
    paramz.fold_(model)
    plain = llama().double()
    plain.load_state_dict(model.state_dict())
    # All but the eps of the norms, which stays that of the plain model's config.
    torch.testing.assert_close(plain(ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_tied_models_are_not_folded():
    model = gpt2()
    paramz.parametrize_(model, "u-mup", example=tokens())
    with pytest.raises(ValueError, match="share one weight.*Give the readout its own copy"):
        paramz.fold_(model)


def test_planning_touches_nothing():
    model = Plain()
    plan = paramz.make_plan(model, "u-mup", example=tokens())
    assert type(model.readout) is nn.Linear
    assert [row.role for row in plan.rows][-1] == "output"


def test_products_with_other_schemes_are_refused():
    with pytest.raises(ValueError, match="rules for width and depth that start from size 1"):
        paramz.parametrization("u-mup+completep")


def test_compiles_without_graph_breaks():
    ids = tokens()
    model = Plain()
    paramz.parametrize_(model, "u-mup", example=ids[:, :-1])
    mean_loss(model, ids).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    mean_loss(torch.compile(model, backend="aot_eager", fullgraph=True), ids).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4)


def test_autocast_computes_in_bfloat16_forward_and_backward():
    model = Plain()
    paramz.parametrize_(model, "u-mup", example=tokens())
    with torch.autocast("cpu", torch.bfloat16):
        loss = mean_loss(model, tokens())
    loss.backward()
    assert all(
        p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters()
    )


class Clones(TorchDispatchMode):
    """Notes how many entries each copy of a tensor has."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ == "clone":
            self.sizes.append(args[0].numel())
        return func(*args, **(kwargs or {}))


def test_a_plan_alone_copies_no_weights_and_leaves_them_as_they_are():
    model = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 2))
    before = {name: (one, one.clone(), one._version) for name, one in model.named_parameters()}
    with Clones() as clones:
        plan = paramz.make_plan(model, "u-mup", example=torch.zeros(3, 4))
    assert len(plan.rows) == 6 and 64 * 64 not in clones.sizes
    for name, now in model.named_parameters():
        one, value, version = before[name]
        assert now is one and torch.equal(now, value) and now._version == version
    assert [type(layer) for layer in model] == [nn.Linear, nn.ReLU, nn.Linear, nn.Linear]
