"""Hyperparameters that were drawn along with the learning rate were noise without a word."""

import warnings

import numpy as np
import pandas as pd
import pytest

from paramz.analysis.transfer import transfer


def random_search(decay: str) -> pd.DataFrame:
    """Three widths of 24 draws each; the best decay is 0.1, whatever the rate."""
    rng = np.random.default_rng(0)
    rows = []
    for width in (64, 128, 256):
        for x in rng.uniform(-10, -3, 24):
            wd = {"drawn": 10 ** rng.uniform(-3, 0), "one": 0.1, "of width": 6.4 / width,
                  "of lr": 1e-3 / 2**x}[decay]  # fmt: skip
            off = 0.0 if decay == "of lr" else 0.1 * np.log10(wd / 0.1) ** 2
            loss = 2 + 9 / width + 0.05 * (x + 6) ** 2 + off
            rows.append({"width": width, "lr": 2**x, "weight_decay": wd, "loss": loss})
    return pd.DataFrame(rows)


def test_a_decay_that_was_drawn_beside_the_rate_is_told_of() -> None:
    df = random_search("drawn")
    with pytest.warns(UserWarning, match=r"differ in weight_decay, too \(0.00\d+ to 0.9\d+\)"):
        found = transfer(df, draws=50)
    (note,) = (note for note in found.notes if "weight_decay" in note)
    best = df.loc[df["loss"].idxmin(), "weight_decay"]
    assert f"({best:.3g} has the lowest loss), or sweep lr at one" in note


@pytest.mark.parametrize("decay", ["one", "of width", "of lr"])
def test_a_decay_that_goes_with_the_width_or_the_rate_is_not(decay: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notes = transfer(random_search(decay), draws=50).notes
    assert "weight_decay" not in " ".join(notes)


def test_a_decay_that_names_the_groups_is_not() -> None:
    one = random_search("one")
    df = pd.concat([one, one.assign(weight_decay=0.2), one.assign(weight_decay=0.4)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(transfer(df, by="weight_decay", draws=50).groups) == 3
