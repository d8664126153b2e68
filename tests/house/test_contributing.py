"""CONTRIBUTING.md: an optimizer and an attention module added from outside, and the map."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import paramz

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def added():
    """What the page's Python block defines."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    space = {}
    torch.manual_seed(0)
    exec(compile(block, "CONTRIBUTING.md", "exec"), space)
    return space


def test_the_block_uses_public_names_only(added):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    used = set(re.findall(r"paramz\.(\w+)", block))
    assert used and used <= set(paramz.__all__)
    assert not re.search(r"(from|import) paramz\.", block)


def test_an_attention_module_of_ones_own_gets_its_scale(added):
    assert added["model"][1].temperature == pytest.approx(8**-0.5 / 4)


def test_an_optimizer_of_ones_own_has_the_rates_of_its_family(added):
    model, plan = added["model"], added["plan"]
    groups = plan.param_groups(model, added["SIGN_MOMENTUM"], lr=0.01)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    for row, parameter in zip(plan.rows, model.parameters(), strict=True):
        assert rates[id(parameter)] == pytest.approx(0.01 / row.ratios.get("fan_in", 1.0))
    with pytest.raises(TypeError, match="momentun=0.8 is no option of signmomentum.*momentum"):
        plan.param_groups(model, added["SIGN_MOMENTUM"], lr=0.01, momentun=0.8)


def test_it_trains(added):
    model, optimizer = added["model"], added["optimizer"]
    torch.manual_seed(1)
    x, y = torch.randn(16, 4, 5), torch.randn(16, 4, 3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_the_update_does_not_grow_with_width_and_does_without_the_family(added):
    """One step changes the hidden activations as much at 256 as at 16, which one lr does not."""
    net, x = added["net"], torch.randn(8, 4, 5, generator=torch.Generator().manual_seed(0))

    def change(width, scheme):
        torch.manual_seed(0)
        model = net(width)
        plan = paramz.parametrize_(model, scheme, base=net, base_width=16)
        optimizer = added["SignMomentum"](plan.param_groups(model, added["SIGN_MOMENTUM"], lr=1e-3))
        before = model[1](model[0](x)).detach()
        model(x).square().mean().backward()
        optimizer.step()
        return (model[1](model[0](x)) - before).square().mean().sqrt().item()

    growth = {scheme: change(256, scheme) / change(16, scheme) for scheme in ("mup", "sp")}
    assert 0.5 < growth["mup"] < 2 < growth["sp"]


def test_every_file_that_the_page_names_is_there():
    named = set(
        re.findall(r"`((?:theory|anatomy|plan|nn|reparam|apply|optim|cli)/[\w/]+\.py)`", PAGE)
    )
    assert named and [file for file in named if not (ROOT / "paramz" / file).is_file()] == []


def test_the_tree_names_every_module():
    """A file that is added or moved is added to the map."""
    tree = PAGE[PAGE.index("paramz/\n") : PAGE.index("__init__.py  every")]
    for folder in (
        "theory",
        "anatomy",
        "plan",
        "reparam",
        "adapters",
        "apply",
        "check",
        "slurm",
        "tuning",
    ):
        start = tree.index(f"  {folder}/ ")
        part = re.split(r"\n  \w+/ ", tree[start + 2 :])[0]
        for path in (ROOT / "paramz" / folder).glob("*.py"):
            if path.stem != "__init__":
                assert re.search(rf"\b{path.stem}\b", part), (
                    f"{folder}/{path.stem} is not in the map"
                )


def test_no_two_test_files_have_the_same_name():
    """Pytest imports them by their names alone, and collects nothing where two are alike."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
