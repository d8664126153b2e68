"""One tensor, two roles: the embedding keeps its size, and the readout made of it does not grow."""

import pytest
import torch
from cases import VOCABULARY, gpt2, llama, tied_gpt
from torch import nn

import paramz
from paramz.theory.families import COLUMNS
from paramz.theory.printed import HALF, OUT

mup = pytest.importorskip("mup", reason="pip install --no-deps mup==1.0.0")

WIDTHS = (16, 64, 256, 1024)
BASE = WIDTHS[0]


class Bigram(nn.Module):
    """Embedding, norm and a readout that shares the embedding's weight."""

    def __init__(self, width, readout=None):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.norm = nn.LayerNorm(width)
        if readout is None:
            self.head = nn.Linear(width, VOCABULARY, bias=False)
            self.head.weight = self.tokens.weight
        else:
            self.head = readout(self.tokens.weight, bias=False)

    def forward(self, ids):
        return self.head(self.norm(self.tokens(ids)))


IDS = torch.arange(VOCABULARY)


def slope(values):
    """Of log value against log width."""
    x = torch.tensor(WIDTHS, dtype=torch.float64).log()
    y = torch.tensor(values, dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def own_logits(logits):
    """The logit of a token for itself: the part that a tied readout adds up coherently."""
    return logits.diagonal().abs().mean().item()


def test_embedding_and_logits_keep_their_size_and_mups_grow():
    ours, ours_logits, mups, mups_logits = [], [], [], []
    for width in WIDTHS:
        torch.manual_seed(0)
        model = Bigram(width)
        paramz.parametrize_(model, "mup", base=Bigram, base_width=BASE)
        ours.append(model.tokens.weight.std().item())
        ours_logits.append(own_logits(model(IDS)))

        torch.manual_seed(0)
        other = Bigram(width, mup.MuSharedReadout)
        small, delta = (Bigram(w, mup.MuSharedReadout) for w in (BASE, BASE + 1))
        mup.set_base_shapes(other, small, delta=delta)
        mups.append(other.tokens.weight.std().item())
        mups_logits.append(own_logits(other(IDS)))
    assert abs(slope(ours)) < 0.05
    assert abs(slope(ours_logits)) < 0.05
    assert slope(mups) == pytest.approx(0.5, abs=0.05)  # its issue 55
    assert slope(mups_logits) == pytest.approx(0.5, abs=0.1)


def test_readout_and_embedding_are_one_tensor_in_one_group():
    model = tied_gpt(32)
    plan = paramz.parametrize_(model, "mup", base=tied_gpt)
    assert model.head.weight is model.tokens.weight
    assert plan.multipliers == {"head": 0.25}
    groups = plan.param_groups(model, "adamw", lr=1.0)
    (group,) = (g for g in groups if any(p is model.head.weight for p in g["params"]))
    assert group["lr"] == 1.0
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("build", "base", "width"),
    [(lambda w: llama(w, tied=True), 32, 64), (gpt2, 16, 64)],
    ids=["llama", "gpt2"],
)
def test_huggingface_readout_std(build, base, width):
    torch.manual_seed(0)
    model = build(width)
    plan = paramz.parametrize_(model, "mup", base=build, base_width=base)
    assert plan.multipliers == {"lm_head": base / width}
    assert model.get_input_embeddings().weight.std().item() == pytest.approx(0.02, rel=0.1)
    hidden = torch.randn(1, width)
    expected = hidden @ model.get_input_embeddings().weight.T * (base / width)
    assert torch.allclose(model.lm_head(hidden), expected, atol=1e-6)


def test_a_shifted_table_gives_the_same_logits():
    # The embedding's own multiplier must not leak into the readout that shares its tensor.
    torch.manual_seed(0)
    folded = tied_gpt(32).double()
    torch.manual_seed(0)
    shifted = tied_gpt(32).double()

    def base(width=8):
        return tied_gpt(width).double()

    roles = {"pos_emb": "scalar"}  # a bare table can hold no multiplier
    paramz.parametrize_(folded, "mup", base=base, roles=roles)
    table = paramz.MUP.shift(COLUMNS, input=OUT**HALF)
    plan = paramz.parametrize_(shifted, table, base=base, roles=roles, fold=False)
    assert plan.multipliers == {"tokens": 2.0, "head": 0.5}
    ids = torch.arange(6)[None]
    assert torch.allclose(shifted(ids), folded(ids), atol=1e-12)
