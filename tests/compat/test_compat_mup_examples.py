"""mup's documented examples run on paramz unchanged but for the import, with equal trajectories.

Each example is a file that imports from mup; it runs once as it is and once with paramz.compat.mup
in place of mup. Adam's are equal under mup's one epsilon (the default), and under paramz's, which
follows the size of the gradients, if mup's groups are given the same ones.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

mup = pytest.importorskip("mup", reason="pip install --no-deps mup==1.0.0")

EXAMPLES = Path(__file__).parent / "mup_examples"
WIDTHS = {"mlp": (16, 48), "resnet": (1, 1.5), "transformer": (16, 48)}
STEPS = 20


def load(name, package):
    """Run an example's file with another package in its imports."""
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    source, changed = re.subn(r"^from mup\b", f"from {package}", source, flags=re.MULTILINE)
    assert changed >= 1
    space = {}
    exec(compile(source, f"{name}.py", "exec"), space)
    return SimpleNamespace(**space)


def theirs_and_ours(name):
    return load(name, "mup"), load(name, "paramz.compat.mup")


def model_of(example, width, file):
    torch.manual_seed(0)
    return example.make(width, str(file)).double()


def trajectory(example, model, optimizer):
    """Outputs before each of 20 steps and after the last."""
    x, y = example.batch()
    outputs = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        out = model(x)
        outputs.append(out.detach().clone())
        example.loss(out, y).backward()
        optimizer.step()
    with torch.no_grad():
        outputs.append(model(x))
    return torch.stack(outputs)


def run(example, width, file, optimizer, **options):
    model = model_of(example, width, file)
    settings = {**example.SETTINGS[optimizer], **options}
    return trajectory(example, model, example.OPTIMIZERS[optimizer](model.parameters(), **settings))


def with_scaled_eps(example, model, optimizer):
    """mup's learning rates and decays, and an epsilon that follows the size of the gradient."""
    made = example.OPTIMIZERS[optimizer](model.parameters(), **example.SETTINGS[optimizer])
    groups = []
    for group in made.param_groups:
        for p in group["params"]:
            axis = 0 if p.infshape.ninf() == 2 else p.infshape.main_idx
            factor = 1 if axis is None else p.infshape[axis].width_mult()
            own = {key: group[key] for key in ("lr", "weight_decay")}
            groups.append({"params": [p], **own, "eps": group["eps"] / factor})
    return type(made)(groups)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("name", WIDTHS)
def test_trajectories_are_mups(name, optimizer, tmp_path):
    theirs, ours = theirs_and_ours(name)
    base, wide = WIDTHS[name]
    theirs.save(str(tmp_path / "mup.bsh"), base)
    ours.save(str(tmp_path / "paramz.bsh"), base)
    own_epsilon = {} if optimizer == "sgd" else {"as_mup": False}
    for width in (base, wide):
        expected = run(theirs, width, tmp_path / "mup.bsh", optimizer)
        assert (expected[-1] - expected[0]).abs().mean() > 0.01  # it does train
        # either package reads the other's file
        assert torch.equal(run(theirs, width, tmp_path / "paramz.bsh", optimizer), expected)
        got = run(ours, width, tmp_path / "mup.bsh", optimizer)
        assert torch.allclose(got, expected, rtol=0, atol=1e-12)
        if width == base:
            unchanged = run(ours, width, tmp_path / "mup.bsh", optimizer, **own_epsilon)
            assert torch.equal(unchanged, expected)  # bit for bit, whatever the epsilon


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("name", WIDTHS)
def test_what_differs_under_adam_is_epsilon(name, optimizer, tmp_path):
    theirs, ours = theirs_and_ours(name)
    base, wide = WIDTHS[name]
    file = tmp_path / "base.bsh"
    theirs.save(str(file), base)
    got = run(ours, wide, file, optimizer, as_mup=False)
    model = model_of(theirs, wide, file)
    expected = trajectory(theirs, model, with_scaled_eps(theirs, model, optimizer))
    assert torch.allclose(got, expected, rtol=0, atol=1e-12)
    as_mup = run(theirs, wide, file, optimizer)
    assert (got - as_mup).abs().max() > 1e-5  # up to 0.08 in the transformer's log probabilities


def test_the_oracle_tells_sp_from_mup(tmp_path):
    """The same comparison fails when the learning rates are torch's."""
    theirs, _ = theirs_and_ours("mlp")
    base, wide = WIDTHS["mlp"]
    file = tmp_path / "base.bsh"
    theirs.save(str(file), base)
    expected = run(theirs, wide, file, "adam")
    model = model_of(theirs, wide, file)
    plain = trajectory(theirs, model, torch.optim.Adam(model.parameters(), lr=0.003))
    assert (plain - expected).abs().max() > 0.1
