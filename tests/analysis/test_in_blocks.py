"""What lies in blocks of a check over depth: a number may end the name of a whole model, too."""

import numpy as np
import pandas as pd
import pytest

from paramz.analysis.coordinates import judge
from paramz.analysis.in_blocks import in_blocks


@pytest.mark.parametrize("prefix", ["", "gpt.", "gpt2."])
def test_a_state_that_grows_with_depth_fails_whatever_the_model_is_called(prefix: str) -> None:
    """With gpt2 in front all of the model was taken for the inside of a block, and passed."""
    noise = np.random.default_rng(0)
    sizes = (("emb", "input", 0), ("h.0", "", 1), ("h.0.fc", "hidden", 1), ("head", "output", 1))
    df = pd.DataFrame(
        {
            "parametrization": "mup",
            "optimizer": "adamw",
            "depth": depth,
            "seed": seed,
            "lr": 0.01,
            "step": 1,
            "module": f"{prefix}{module}",
            "role": role,
            "quantity": quantity,
            "rms": depth ** (exponent * (quantity == "delta"))
            * np.exp(0.01 * noise.standard_normal()),
            "last": role == "output",
        }
        for depth in (2, 4, 8)
        for seed in range(3)
        for module, role, exponent in sizes
        for quantity in ("delta", "update")
    )
    verdict = judge(df)
    assert verdict.outcome == "fail"
    judged = {slope.module for slope in verdict.slopes if slope.passed is False}
    assert judged == {f"{prefix}h.0", f"{prefix}head"}


@pytest.mark.parametrize(
    ("modules", "inside"),
    [
        (["layer0", "layer0.fc", "layer1", "layer1.fc", "head1"], ["layer0.fc", "layer1.fc"]),
        (["layer0", "layer0.mlp.0", "layer0.fc"], ["layer0.mlp.0", "layer0.fc"]),
        (["layer0.mix.0.fc", "layer1.mix.0", "layer1"], ["layer0.mix.0.fc", "layer1.mix.0"]),
        (["vit2.layers.0.fc", "vit2.layers.0", "vit2"], ["vit2.layers.0.fc"]),
    ],
)
def test_numbered_attributes_are_blocks_where_they_are_several_or_hold_none(
    modules: list[str], inside: list[str]
) -> None:
    assert in_blocks(modules) == {*inside}
