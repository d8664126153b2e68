"""Models under a plan that transformers itself saves: refused by a plain load, or right."""

import copy
import json

import pytest
import torch
import transformers
from cases import llama

import paramz

IDS = torch.randint(40, (2, 8), generator=torch.Generator().manual_seed(3))
REFUSAL = "quantization config from the arguments has no `quant_method`"


def under(scheme, **options):
    """A Llama of four heads under a plan whose factors its config does not hold."""

    def build(width):
        return llama(width, head_dim=width // 4, **options)

    model = build(64).eval()
    paramz.parametrize_(model, scheme, base=build, base_width=32, example=IDS)
    return model


KINDS = {
    "unit-scaled": lambda: under("u-mup"),
    "tied": lambda: under("mup", tied=True),
    "larger heads": lambda: under("mup"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_no_config_holds_is_not_loaded_as_a_plain_model(kind, tmp_path):
    model = KINDS[kind]()
    model.save_pretrained(tmp_path)
    for loader in (type(model), transformers.AutoModelForCausalLM, transformers.AutoModel):
        with pytest.raises(ValueError, match=REFUSAL):
            loader.from_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())["quantization_config"]["paramz"]
    scheme = paramz.plan_of(model).parametrization.name
    assert said.startswith(f"saved under {scheme}, whose factors no config holds: a plain model")


def test_the_weights_are_those_of_the_plain_names_and_load_under_the_plan(tmp_path):
    model = under("u-mup")
    model.save_pretrained(tmp_path)
    from safetensors.torch import load_file

    again = under("u-mup")
    again.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    assert torch.equal(again(IDS).logits, model(IDS).logits)


def test_with_the_plan_beside_them_they_load(tmp_path):
    model = under("mup", tied=True)
    model.save_pretrained(tmp_path)
    paramz.plan_of(model).save(tmp_path / "paramz.json")
    again = paramz.hf.from_pretrained(type(model), tmp_path).eval()
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    again.save_pretrained(tmp_path / "again")
    with pytest.raises(ValueError, match=REFUSAL):
        type(model).from_pretrained(tmp_path / "again")


def test_only_the_model_itself_is_marked():
    plain = llama(64, tied=True)
    config = plain.config
    model = type(plain)(config)
    paramz.parametrize_(model, "mup", base=lambda w: llama(w, tied=True), base_width=32)
    assert model.config.quantization_config
    assert not hasattr(config, "quantization_config")
    # One config for all of the model: an option that is set on it reaches every layer.
    owners = [module for module in model.modules() if hasattr(module, "config")]
    assert len(owners) > 3
    assert all(module.config is model.config for module in owners)
    assert not hasattr(paramz.hf.scaled_config(model.config, 32), "quantization_config")
    assert paramz.plan_of(copy.deepcopy(model)) is not None


def test_models_of_the_plain_function_are_not_marked(tmp_path):
    model = llama(64)
    before = model.config
    paramz.parametrize_(model, "mup", base=32)  # more heads of one size, nothing tied
    assert model.config is before
    assert not hasattr(before, "quantization_config")
    model = under("mup", tied=True)
    paramz.fold_(model)
    model.save_pretrained(tmp_path)
    plain = type(model).from_pretrained(tmp_path).eval()
    assert torch.allclose(plain(IDS).logits, model.eval()(IDS).logits, atol=1e-6)


def test_quantised_weights_keep_what_is_said_of_them():
    model = llama(64, tied=True)
    model.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    paramz.parametrize_(model, "mup", base=lambda w: llama(w, tied=True), base_width=32)
    assert model.config.quantization_config == {"quant_method": "gptq", "bits": 4}
    paramz.remove_(model)
    assert model.config.quantization_config == {"quant_method": "gptq", "bits": 4}


def test_a_model_inside_of_another_is_marked_where_a_factor_is_in_it():
    class Two(torch.nn.Module):
        def __init__(self, width=32):
            super().__init__()
            self.one, self.other = llama(width, tied=True), llama(width)
            self.other.model.layers = self.other.model.layers[:0]  # without attention

        def forward(self, input_ids):
            return self.one(input_ids).logits + self.other(input_ids).logits

    model = Two(64)
    paramz.parametrize_(model, "mup", base=Two, base_width=32, example=IDS)
    assert model.one.config.quantization_config["paramz"]
    assert not hasattr(model.other.config, "quantization_config")


def test_a_trainer_goes_on_from_its_own_checkpoint(tmp_path):
    data = [{"input_ids": row, "labels": row} for row in IDS]

    def trained(steps, **resume):
        torch.manual_seed(0)
        model = under("mup", tied=True)
        arguments = transformers.TrainingArguments(
            str(tmp_path), max_steps=steps, save_steps=1, report_to=[], use_cpu=True,
            per_device_train_batch_size=2, disable_tqdm=True, lr_scheduler_type="constant",
        )  # fmt: skip
        groups = paramz.plan_of(model).param_groups(model, "adamw", lr=0.01)
        optimizers = (torch.optim.AdamW(groups), None)
        transformers.Trainer(model, arguments, train_dataset=data, optimizers=optimizers).train(
            **resume
        )
        return model

    whole = trained(2)
    again = trained(2, resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert torch.equal(again(IDS).logits, whole(IDS).logits)
    with pytest.raises(ValueError, match=REFUSAL):
        type(whole).from_pretrained(tmp_path / "checkpoint-2")
