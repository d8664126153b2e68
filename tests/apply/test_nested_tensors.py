"""torch's encoder in evaluation, where it would take a path that no hook goes with."""

import copy
import warnings

import pytest
import torch
from torch import nn

import paramz

IDS = torch.arange(14).reshape(2, 7)
PADDING = torch.arange(7).expand(2, 7) >= torch.tensor([[5], [7]])


class Encoder(nn.Module):
    def __init__(self, width=32, activation="relu"):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, activation=activation
        )
        self.embed = nn.Embedding(20, width)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(width, 20)

    def forward(self, ids, mask):
        return self.head(self.encoder(self.embed(ids), src_key_padding_mask=mask))


def visible(model, train):
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that nested tensors are a prototype
        return model.train(train)(IDS, PADDING)[~PADDING]


@pytest.mark.parametrize("scheme", ["mup", "mup+completep"])
def test_evaluation_with_a_padding_mask_gives_what_training_gives(scheme):
    torch.manual_seed(0)
    model = Encoder(128)
    plan = paramz.parametrize_(model, scheme, base=Encoder)
    assert torch.allclose(visible(model, train=False), visible(model, train=True), atol=1e-5)
    assert "encoder: use_nested_tensor 1 -> 0" in str(plan.summary())


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_unit_scaled_layers_are_given_no_nested_tensors(activation):
    torch.manual_seed(0)
    model = Encoder(32, activation)
    example = {"ids": IDS, "mask": PADDING}
    plan = paramz.parametrize_(model, "u-mup", example=example)
    assert torch.allclose(visible(model, train=False), visible(model, train=True), atol=1e-5)
    assert "encoder: use_nested_tensor 1 -> 0" in str(plan.summary())
    before = visible(model, train=False)
    paramz.fold_(model)
    assert torch.allclose(visible(model, train=False), before, atol=1e-5)


def test_the_path_comes_back_when_the_plan_goes():
    model = Encoder(64)
    plain = visible(model, train=False)
    paramz.parametrize_(model, "mup", base=Encoder, init=False)
    assert model.encoder.use_nested_tensor is False
    copied = copy.deepcopy(model)
    paramz.remove_(model)
    assert model.encoder.use_nested_tensor is True
    assert torch.equal(visible(model, train=False), plain)
    before = visible(copied, train=False)
    paramz.fold_(copied)
    assert copied.encoder.use_nested_tensor is True
    assert torch.allclose(visible(copied, train=False), before, atol=1e-5)


def test_without_hooks_inside_nothing_is_switched():
    model = Encoder(32)
    assert paramz.parametrize_(model, "mup", base=Encoder).attention[0].value == 1.0
    assert model.encoder.use_nested_tensor is True
    model = Encoder(64)
    paramz.parametrize_(model, "sp", base=Encoder)
    assert model.encoder.use_nested_tensor is True
