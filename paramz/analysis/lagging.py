"""Tensors without a width, whose gradients fall with width until what is behind them has learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramz.theory.families import family

if TYPE_CHECKING:
    import pandas as pd


def lagging_of(df: pd.DataFrame) -> frozenset[str]:
    """What has no width itself, under an optimizer whose steps are as large as gradients.

    Such a gradient is a sum over the width behind it. Before the maps there have learnt, its terms
    have random signs: the sum starts like width^-1/2, and grows to one size as they align. So what
    such modules put out, maps from width into a bottleneck among them, and what goes into a map
    from a fixed size to width, may change less in wider models. A readout has the loss behind it.

    Args:
        df: as returned by `paramz.coord_check`, of one optimizer.

    Returns:
        names in the column module.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"module": ["emb", "up"], "role": ["scalar", "input"]})
    >>> sorted(lagging_of(table.assign(optimizer="sgd")))
    ['emb', 'emb(input)', 'up(input)']
    >>> sorted(lagging_of(table.assign(optimizer="adamw")))
    []
    """
    if not _sums_gradients(str(df.optimizer.iloc[0])):
        return frozenset()
    roles = df[["module", "role"]].drop_duplicates().itertuples(index=False, name=None)
    found = set()
    for module, role in roles:
        if role in ("scalar", "inward", "latent"):
            found.add(module)
        if role in ("scalar", "input", "outward"):
            found.add(f"{module}(input)")
    return frozenset(found)


def lag_of(df: pd.DataFrame) -> float:
    """By how much slopes of what lags may lie below zero at most, as an exponent.

    It is 1/2 for the tensor itself and for each bottleneck behind it, and 1/2 more for maps whose
    outputs start like width^-1/2. What falls faster has a rate or a factor that falls with width.

    Args:
        df: as for `lagging_of`.

    >>> import pandas as pd
    >>> lag_of(pd.DataFrame({"module": ["emb", "down"], "role": ["scalar", "inward"]}))
    1.5
    """
    bottlenecks = df.loc[df.role.isin(("inward", "latent")), "module"].nunique()
    return 0.5 * (2 + int(bottlenecks))


def _sums_gradients(optimizer: str) -> bool:
    """Whether an optimizer, by its name in the table, takes gradients as large as they are."""
    try:
        return family(optimizer).column == "sgd"
    except ValueError:  # one of the user's own
        return False
