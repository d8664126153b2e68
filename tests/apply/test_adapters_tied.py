"""Adapters on models whose readout is the embedding: what PEFT shares, copies and wraps."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from torch import nn

import paramz
from paramz.anatomy.sound import require_apart

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

TIED = "two parameters over one memory"
TABLE, HEAD = (
    f"base_model.model.{layer}.modules_to_save.default.weight"
    for layer in ("model.embed_tokens", "lm_head")
)


def llama(width: int, tie: bool = True, **options) -> nn.Module:
    torch.manual_seed(0)
    heads = width // 8
    config = transformers.LlamaConfig(
        vocab_size=17, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=1,
        num_attention_heads=heads, num_key_value_heads=heads, tie_word_embeddings=tie,
    )  # fmt: skip
    options = {"target_modules": ["q_proj"], **options}
    with warnings.catch_warnings():  # of PEFT's, that merging unties
        warnings.simplefilter("ignore")
        return peft.get_peft_model(
            transformers.LlamaForCausalLM(config), peft.LoraConfig(r=4, lora_alpha=4, **options)
        )


def planned(roles=None, **options):
    return paramz.make_plan(
        llama(64, **options),
        "mup+lora",
        base=lambda width: llama(width, **options),
        base_width=16,
        roles=roles,
    )


def rate(plan, name: str) -> float:
    (row,) = (row for row in plan.rows if row.name == name)
    return plan.rule(row, paramz.family("adamw")).lr(row.ratios)


def test_tied_adapters_are_two_parameters_over_one_memory():
    options = {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True}
    with pytest.raises(ValueError, match=f"{TIED}.*leave it out"):
        planned(**options)


def test_adapters_of_their_own_on_both_sides_of_a_tied_table_are_planned():
    plan = planned(target_modules=["embed_tokens", "lm_head"])
    roles = {row.name.split(".default")[0].rpartition("model.")[2]: row.role for row in plan.rows}
    assert roles["embed_tokens.lora_embedding_B"] == "outward"
    assert roles["lm_head.lora_A"] == "latent"


def test_weights_that_are_tied_by_their_data_are_refused_unless_nothing_moves_them():
    def net(width: int = 8) -> nn.Module:
        model = nn.Sequential(nn.Embedding(5, width), nn.Linear(width, 5, bias=False))
        model[1].weight.data = model[0].weight.data
        return model

    for scheme in ("mup", "u-mup"):
        with pytest.raises(ValueError, match=f"0.weight.* 1.weight.*{TIED}"):
            paramz.make_plan(net(16), scheme, base=net)
    require_apart(net().requires_grad_(False))


def test_a_table_trained_whole_that_is_the_readout_too_is_refused_unless_a_role_is_given():
    options = {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    with pytest.raises(ValueError, match="a factor of 0.25, which would change") as refused:
        planned(**options)
    (pattern,) = re.findall(r"roles=\{'(.*)': 'output'\}", str(refused.value))
    for role, wanted in (("output", 0.25), ("input", 1.0)):
        assert rate(planned({pattern: role}, **options), TABLE) == wanted


def test_copies_of_their_own_have_the_rates_of_an_embedding_and_of_a_readout():
    plan = planned(modules_to_save=["embed_tokens", "lm_head"])
    assert (rate(plan, TABLE), rate(plan, HEAD)) == (1.0, 0.25)


def test_a_tied_table_that_is_left_trainable_beside_adapters_is_refused():
    def thawed(width: int) -> nn.Module:
        model = llama(width)
        model.get_input_embeddings().requires_grad_(True)
        return model

    with pytest.raises(ValueError, match="an embedding that is trained beside adapters"):
        paramz.make_plan(thawed(64), "mup+lora", base=thawed, base_width=16)
    paramz.make_plan(thawed(16), "mup+lora", base=thawed, base_width=16)  # nothing is wider


@pytest.mark.parametrize(
    ("layer", "wanted"), [("embed_tokens", ("input", 1.0)), ("lm_head", ("output", 0.25))]
)
def test_trained_token_rows_have_the_role_of_the_table_that_they_are_rows_of(layer, wanted):
    plan = planned(tie=False, trainable_token_indices={layer: [1, 2]})
    (row,) = (row for row in plan.rows if "trainable_tokens" in row.name)
    assert (row.role, rate(plan, row.name)) == wanted


def test_trained_token_rows_of_a_tied_table_are_refused_with_the_roles_to_choose_from():
    with pytest.raises(ValueError, match="a factor of 0.25") as refused:
        planned(trainable_token_indices=[1, 2])
    (pattern,) = re.findall(r"roles=\{'(.*)': 'output'\}", str(refused.value))
    plan = planned({pattern: "output"}, trainable_token_indices=[1, 2])
    (row,) = (row for row in plan.rows if "trainable_tokens" in row.name)
    assert rate(plan, row.name) == 0.25


def test_freed_memory_is_not_shared_memory():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    for parameter in model.parameters():
        parameter.untyped_storage().resize_(0)
    require_apart(model)


@pytest.mark.parametrize("layer", ["lm_head", "embed_tokens"])
def test_a_rank_alone_builds_the_base_of_a_tied_model_with_a_trained_copy(layer):
    """PEFT's unload unties it. Under a plan of width the copy has the readout's factor, once."""
    ids = torch.arange(5)[None]
    model = llama(32).unload()
    paramz.parametrize_(model, "mup", base=16)
    before = model(ids).logits
    config = peft.LoraConfig(r=8, lora_alpha=8, target_modules=["q_proj"], modules_to_save=[layer])
    model = peft.get_peft_model(model, config)
    plan = paramz.parametrize_(model, "lora", base=4)
    assert torch.equal(model(ids).logits, before)
    assert {group["lr"] for group in plan.param_groups(model, "adamw", lr=1.0)} == {1.0}


def test_a_copy_of_a_readout_that_has_a_plans_factor_makes_up_for_it():
    """The copy takes the hook along: the readout's factor counted twice in what it learns."""
    model = llama(64).unload()
    assert paramz.parametrize_(model, "mup", base=16).multipliers == {"lm_head": 0.25}
    config = dict(target_modules=["q_proj"], modules_to_save=["lm_head"])
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=4, **config))
    plan = paramz.parametrize_(
        model, "mup+lora", base=lambda width: llama(width, **config), base_width=16
    )
    groups = plan.param_groups(model, "adamw", lr=1.0)
    copied = next(group for group in groups if "output" in group["roles"])
    assert copied["lr"] == 1.0  # 1/4 of muP, over 1/4 in the hook
