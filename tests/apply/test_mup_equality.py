"""The trajectory is that of microsoft/mup, to rounding: same seed, same data, double precision.

mup needs its MuReadout in the model and 1/d attention written by the user; paramz takes the plain
model. Adam's decay is left out because mup scales coupled decay as if it were decoupled, and eps
is tiny because mup does not scale it.
"""

import pytest
import torch
from cases import CASES, build64, train
from torch import nn

import paramz
from paramz.theory.families import COLUMNS
from paramz.theory.printed import IN

mup = pytest.importorskip("mup", reason="pip install --no-deps mup==1.0.0")

STEPS = 12
OPTIMIZERS = {
    "sgd": (mup.MuSGD, torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.05}, {"momentum": 0.9}),
    "adam": (mup.MuAdam, torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.0, "eps": 1e-18}, {}),
    "adamw": (mup.MuAdamW, torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1, "eps": 1e-18}, {}),
}
FORMS = {
    "folded": (paramz.MUP, True),  # form A
    "readout multiplier": (paramz.MUP.shift(COLUMNS, output=1 / IN), False),  # form B, as in mup
    "mean field": (paramz.MEAN_FIELD, False),  # multipliers on hidden matrices, too
}


def train_with_mup(case, base, width, optimizer):
    """Outputs over time and the final effective weights."""
    model = build64(case.build, width, readout=mup.MuReadout)
    small, delta = (build64(case.build, w, readout=mup.MuReadout) for w in (base, base + 2))
    mup.set_base_shapes(model, small, delta=delta)
    for module, reference in zip(model.modules(), small.modules(), strict=True):
        if hasattr(module, "scale"):
            module.scale = reference.scale * (module.scale / reference.scale) ** 2  # 1/d
    make, _, options, settings = OPTIMIZERS[optimizer]
    outputs = train(model, make(model.parameters(), **options, **settings), case.batch(), STEPS)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    for path, module in model.named_modules():
        if isinstance(module, mup.MuReadout):
            weights[f"{path}.weight"] /= module.width_mult()
    return outputs, weights


def train_with_paramz(case, base, width, optimizer, form):
    table, fold = FORMS[form]
    model = build64(case.build, width)
    plan = paramz.parametrize_(
        model, table, base=build64(case.build, base), wider=build64(case.build, 2 * base), fold=fold
    )
    assert bool(plan.multipliers) == (not fold and base != width)
    _, kind, options, settings = OPTIMIZERS[optimizer]
    groups = plan.param_groups(model, optimizer, **options)
    outputs = train(model, kind(groups, **settings), case.batch(), STEPS)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    for path, factor in plan.multipliers.items():
        weights[f"{path}.weight"] *= factor
    return outputs, weights


@pytest.mark.parametrize(("base", "width"), [(8, 8), (8, 32), (24, 32), (16, 8)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", CASES)
def test_trajectory_equals_mups(name, optimizer, base, width):
    case = CASES[name]
    expected, expected_weights = train_with_mup(case, base, width, optimizer)
    assert (expected[-1] - expected[0]).abs().mean() > 0.01  # it does train
    for form in FORMS:
        outputs, weights = train_with_paramz(case, base, width, optimizer, form)
        assert torch.allclose(outputs, expected, rtol=0, atol=1e-10), form
        for key, value in expected_weights.items():
            assert torch.allclose(weights[key], value, rtol=0, atol=1e-10), (form, key)


def test_the_oracle_tells_sp_from_mup():
    case = CASES["gpt"]
    expected, _ = train_with_mup(case, 8, 32, "adamw")
    torch.manual_seed(0)
    plain = build64(case.build, 32)
    outputs = train(plain, torch.optim.AdamW(plain.parameters(), lr=0.01), case.batch(), STEPS)
    assert (outputs - expected).abs().max() > 0.1


def test_readout_init_is_mups():
    assert isinstance(mup.MuReadout(4, 2), nn.Linear)
    case = CASES["mlp"]
    model = build64(case.build, 32)
    paramz.parametrize_(model, "mup", base=lambda w=8: build64(case.build, w))
    _, weights = train_with_mup(case, 8, 32, "sgd")
    assert weights["6.weight"].std() < model[0].weight.std()
