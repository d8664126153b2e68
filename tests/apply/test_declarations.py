"""What is no declaration of branches is refused at once, with the line that is one."""

import pytest
import torch
from torch import nn

import paramz
from paramz import Branches


def net(width=16, depth=2):
    return nn.Sequential(
        nn.Linear(8, width), *[nn.Linear(width, width)] * depth, nn.Linear(width, 4)
    )


BATCH = torch.ones(4, 8), torch.zeros(4, dtype=torch.long)
GIVEN = {"inside": "^[0-9]+", "ends": "[0-9]$"}
ENTRIES = {
    "parametrize_": lambda given, scheme: paramz.parametrize_(
        net(32), scheme, base=net, branches=given, example=BATCH
    ),
    "make_plan": lambda given, scheme: paramz.make_plan(net(32), scheme, base=net, branches=given),
    "adopt_": lambda given, scheme: paramz.adopt_(
        net(32), "mup+completep", base=net, branches=given
    ),
    "coord_check": lambda given, scheme: paramz.coord_check(
        net, BATCH, parametrization=scheme, widths=[8, 16], seeds=1, steps=1, branches=given
    ),
    "Task": lambda given, scheme: paramz.Task(net, lambda step: BATCH, branches=given).make_plan(
        net(32), scheme, base_width=16
    ),
}


@pytest.mark.parametrize("scheme", ["mup", "mup+completep", "u-mup"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_dict_for_branches_is_refused_with_the_line_to_write(entry, scheme):
    """It died of "'dict' object has no attribute 'inside'", or was not looked at."""
    with pytest.raises(TypeError, match=r"branches=paramz\.Branches\(") as refused:
        ENTRIES[entry](GIVEN, scheme)
    said = str(refused.value)
    line = said[said.index("Branches(") : said.index(". (What")]
    assert eval(line) == Branches(**GIVEN)


@pytest.mark.parametrize("given", [{}, {r"out_proj$": 0.5}, "depth", (r"^layers", r"out$")])
def test_anything_else_is_refused_with_what_to_say(given):
    with pytest.raises(TypeError, match=r"inside=r'\^<regex of parameter names>', ends="):
        ENTRIES["make_plan"](given, "mup+completep")
