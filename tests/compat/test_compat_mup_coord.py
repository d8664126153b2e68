"""mup's coordinate check: the same table and the same curves, and what mup's cannot do."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import paramz.compat.mup as ours
from paramz.compat.mup import coord_check

mup = pytest.importorskip("mup", reason="pip install --no-deps mup==1.0.0")
pytest.importorskip("tqdm", reason="mup's coord_check needs it")
from mup import coord_check as theirs  # noqa: E402

matplotlib.use("Agg")

DATA = [(torch.randn(8, 2, 3), torch.arange(8) % 4), (torch.randn(8, 2, 3), torch.arange(8) % 2)]
ALL = {name: name for name in coord_check.FDICT}


def net(width, package):
    return nn.Sequential(
        nn.Linear(6, width), nn.Tanh(), nn.Linear(width, width), package.MuReadout(width, 4)
    )


def models(package, widths=(8, 16, 24)):
    shapes = package.make_base_shapes(net(8, package), net(9, package))
    return {w: lambda w=w: package.set_base_shapes(net(w, package), shapes) for w in widths}


def tables(**options):
    options = {"cuda": False, "show_progress": False, "flatten_input": True, **options}
    return [
        module.get_coord_data(models(package), DATA, **options)
        for module, package in ((theirs, mup), (coord_check, ours))
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nseeds": 2, "nsteps": 2, "lr": 0.3},
        {"mup": False, "optimizer": "adam"},
        {"lossfn": "mse", "fix_data": False, "nsteps": 2},
        {"output_fdict": ALL, "input_fdict": {"l2": "l2"}, "param_fdict": {"l1": "l1"}},
        {
            "filter_module_by_name": lambda n: n == "2",
            "filter_trainable_by_name": lambda n: "2" in n,
        },
    ],
    ids=lambda options: " ".join(options) or "default",
)
def test_the_table_is_mups(options):
    expected, found = tables(**options)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-6)  # float32
    base = expected.width == 8
    numbers = [df[base].select_dtypes("number").to_numpy() for df in (expected, found)]
    assert np.array_equal(*numbers, equal_nan=True)  # bit for bit at the base


def test_adams_table_is_mups():
    expected, found = tables(optimizer="adamw", nsteps=2)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-6)


class Mapped(nn.Module):
    """As Hugging Face models: a mapping in and out, with entries that are None or nested."""

    def __init__(self, width):
        super().__init__()
        self.body, self.head = nn.Linear(6, width), ours.MuReadout(width, 4)

    def forward(self, x, labels):
        hidden = self.body(x)
        out = self.head(hidden)
        loss = nn.functional.cross_entropy(out, labels)
        return {"loss": loss, "logits": out, "past": (hidden, [hidden]), "none": None}


def test_mappings_and_nested_outputs():
    batch = {"x": torch.randn(8, 6), "labels": torch.arange(8) % 4}
    made = {w: lambda w=w: ours.set_base_shapes(Mapped(w), Mapped(4)) for w in (8, 16)}
    df = coord_check.get_coord_data(made, [batch], dict_in_out=True, show_progress=False)
    assert set(df.module) == {
        "body", "head", ":out[loss]", ":out[logits]", ":out[past][0]", ":out[past][1][0]"
    }  # fmt: skip
    assert df.notna().all().all()


def test_batches_that_come_once_reach_the_models_of_all_widths():
    options = {"cuda": False, "show_progress": False, "flatten_input": True, "fix_data": False}
    expected = coord_check.get_coord_data(models(ours), DATA, nsteps=2, **options)
    found = coord_check.get_coord_data(models(ours), iter(DATA), nsteps=2, **options)
    pd.testing.assert_frame_equal(found, expected)


def test_own_optimizers_and_losses():
    """mup's get_coord_data says that it takes a function as optimizer, and does not."""
    made = models(ours, (8, 16))
    options = {"flatten_input": True, "show_progress": False, "nsteps": 2}
    df = coord_check.get_coord_data(
        made,
        DATA,
        optimizer=lambda model: ours.MuAdam(model.parameters(), impl=torch.optim.NAdam, lr=0.1),
        lossfn=nn.functional.cross_entropy,
        **options,
    )
    assert set(df.t) == {1, 2}
    with pytest.raises(ValueError, match="optimizer='nadam' is none of sgd, adam, adamw"):
        coord_check.get_coord_data(made, DATA, optimizer="nadam", **options)
    with pytest.raises(ValueError, match="lossfn='hinge' is none of xent"):
        coord_check.get_coord_data(made, DATA, lossfn="hinge", **options)


def curves(figure):
    return [[line.get_xydata().tolist() for line in axes.lines] for axes in figure.axes]


@pytest.mark.parametrize("options", [{}, {"name_contains": "[02]"}, {"name_not_contains": "2"}])
def test_the_figure_has_mups_curves(options, tmp_path):
    df = tables(nsteps=2)[0]
    file = tmp_path / "coords.png"
    mine = coord_check.plot_coord_data(df, save_to=file, suptitle="title", **options)
    expected = theirs.plot_coord_data(df, **options)
    for one, two in zip(curves(mine), curves(expected), strict=True):
        one, two = ([c for c in lines if c] for lines in (one, two))
        assert one == two and one
    assert [a.get_title() for a in mine.axes] == ["t=1", "t=2"]
    assert file.stat().st_size > 1000
    assert mine.axes[0].get_xscale() == "log"


def test_the_check_tells_sp_from_mup():
    """Sizes at the last step grow with width under SP and do not under muP."""
    widths = (32, 64, 128, 256)
    slopes = {}
    for mup_ in (True, False):
        df = coord_check.get_coord_data(
            models(ours, widths) if mup_ else {w: lambda w=w: net(w, nn_only) for w in widths},
            DATA, optimizer="adam", lr=0.02, mup=mup_, flatten_input=True, nsteps=4, nseeds=3,
            show_progress=False,
        )  # fmt: skip
        last = df[(df.t == 4) & (df.module == "3")].groupby("width").l1.mean()
        slopes[mup_] = np.polyfit(np.log2(last.index), np.log2(last), 1)[0]
    assert abs(slopes[True]) < 0.2 < 0.5 < slopes[False]


class nn_only:  # noqa: N801
    MuReadout = nn.Linear
