"""Tied models leave as plain ones: with the same logits, or with an error where people look."""

import copy
import warnings

import pytest
import torch
from cases import tied_gpt
from torch import nn

import paramz

transformers = pytest.importorskip("transformers")
IDS = torch.arange(8)[None] + 4


def llama(width=32, **options):
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=40, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True, **options,
        )
    )  # fmt: skip


def gpt2(width=32):
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=width, n_layer=2, n_head=4)
    )


def gemma(width=32):
    """Its norms multiply by 1 + weight, and its code multiplies embeddings by sqrt(width)."""
    return transformers.Gemma3ForCausalLM(
        transformers.Gemma3TextConfig(
            vocab_size=40, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, head_dim=width // 4,
        )
    )  # fmt: skip


def bert(width=32):
    """A linear map and a norm stand between the encoder and the readout, which has a bias."""
    return transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=40, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=16,
        )
    )  # fmt: skip


def t5(width=32):
    """Its code divides what goes into the tied readout by sqrt(width)."""
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=40, d_model=width, d_kv=width // 4, d_ff=2 * width, num_layers=1,
            num_heads=4, tie_word_embeddings=True, decoder_start_token_id=0,
        )
    )  # fmt: skip


BUILDS = [llama, gpt2, gemma, bert, t5]


def inputs(build):
    return {"input_ids": IDS} | ({"decoder_input_ids": IDS} if build is t5 else {})


def trained(build, steps=3):
    """Under a plan at four times the base's width, with all gains and biases moved."""
    torch.manual_seed(0)
    model = build(128)
    plan = paramz.parametrize_(model, "mup", base=build, base_width=32)
    assert plan.multipliers
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=2**-6))
    for _ in range(steps):
        optimizer.zero_grad()
        model(**inputs(build), labels=IDS).loss.backward()
        optimizer.step()
    return model.eval()


def logits(model, build):
    with torch.no_grad():
        return model(**inputs(build)).logits


@pytest.mark.parametrize("build", BUILDS)
def test_plain_transformers_load_what_was_saved_with_the_same_logits(build, tmp_path):
    model = trained(build)
    right = logits(model, build)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        paramz.hf.save_pretrained(model, tmp_path)
    assert torch.equal(logits(model, build), right)  # the model itself stays under its plan
    plain = type(model).from_pretrained(tmp_path).eval()
    error = (logits(plain, build) - right).abs().max() / right.abs().max()
    assert error < 1e-5
    # And training goes on bit for bit.
    again = paramz.hf.from_pretrained(type(model), tmp_path).eval()
    assert torch.equal(logits(again, build), right)
    assert paramz.plan_of(again) == paramz.plan_of(model)


@pytest.mark.parametrize("build", BUILDS)
def test_fold_keeps_the_tie_and_the_logits(build):
    model = trained(build)
    right = logits(model, build)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    plain = copy.deepcopy(model)
    paramz.fold_(plain)
    assert paramz.plan_of(plain) is None
    assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    assert (logits(plain, build) - right).abs().max() < 1e-5 * right.abs().max()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


def test_without_folding_the_logits_would_be_far_off():
    model = trained(llama)
    right = logits(model, llama)
    paramz.remove_(model)
    assert (logits(model, llama) - right).abs().max() > 0.5 * right.abs().max()


def test_half_precision_folds_too():
    model = trained(llama).to(torch.bfloat16)
    plain = copy.deepcopy(model)
    paramz.fold_(plain)
    assert torch.equal(logits(plain, llama), logits(model, llama))


def test_models_that_are_no_transformers_of_hugging_face_fold():
    torch.manual_seed(0)
    model, ids = tied_gpt(32), torch.arange(6)[None]
    paramz.parametrize_(model, "mup", base=tied_gpt)
    right = model(ids)
    paramz.fold_(model)
    assert torch.allclose(model(ids), right, atol=1e-6)


class WithoutGain(nn.Module):
    """A tied model with a norm that has nothing to put a factor into."""

    def __init__(self, width=8, affine=False):
        super().__init__()
        self.tokens = nn.Embedding(11, width)
        self.inside = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=affine)
        self.head = nn.Linear(width, 11, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids, mask):
        return self.head(self.norm(self.inside(self.tokens(ids))) * mask)


def test_without_a_gain_in_front_it_is_refused_and_the_model_stays():
    model = WithoutGain(32)
    plan = paramz.parametrize_(model, "mup", base=WithoutGain)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        paramz.fold_(model)
    assert str(error.value).startswith(
        "head shares tokens.weight (11, 32) with the embedding and multiplies its input by 0.25, "
        "and paramz finds no norm with a gain (or linear map) right in front of it"
    )
    assert paramz.plan_of(model) is plan
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_an_example_is_called_where_token_ids_are_not_enough():
    build = lambda width=8: WithoutGain(width, affine=True)  # noqa: E731
    model, batch = build(32), {"ids": torch.arange(8)[None], "mask": torch.ones(1, 8, 1)}
    paramz.parametrize_(model, "mup", base=build)
    right = model(**batch)
    with pytest.raises(ValueError, match="pass fold_\\(model, example=a batch\\)"):
        paramz.fold_(model)
    paramz.fold_(model, example=batch)
    assert torch.allclose(model(**batch), right, atol=1e-6)


class NoGain(transformers.LlamaForCausalLM):
    """A Llama whose last norm has no gain."""

    def __init__(self, config):
        super().__init__(config)
        self.model.norm = nn.RMSNorm(config.hidden_size, elementwise_affine=False)


def test_what_has_no_plain_form_is_not_where_plain_transformers_look(tmp_path):
    def build(width=32):
        return NoGain(llama(width).config)

    model = build(64).eval()
    plan = paramz.parametrize_(model, "mup", base=build, base_width=32)
    with pytest.warns(UserWarning, match="no plain NoGain is this model"):
        paramz.hf.save_pretrained(model, tmp_path)
    with pytest.raises(OSError, match="no file named model.safetensors"):
        NoGain.from_pretrained(tmp_path)
    again = paramz.hf.from_pretrained(NoGain, tmp_path).eval()
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    assert paramz.plan_of(again) == plan
    with pytest.raises(ValueError, match="and saved by paramz.hf.save_pretrained"):
        paramz.check_checkpoint(build(64), tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds another model"):
        paramz.hf.save_pretrained(model, tmp_path)
