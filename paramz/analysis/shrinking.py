"""Which modules of a coordinate check theory lets shrink with scale, for its picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramz.analysis.faint import FAINT
from paramz.analysis.lagging import lagging_of
from paramz.analysis.slopes import Slope, axis_of, last_maps, may_fall

if TYPE_CHECKING:
    import pandas as pd

_NAN = float("nan")
_NEEDED = {"parametrization", "optimizer", "role"}


def may_shrink(df: pd.DataFrame, quantity: str) -> frozenset[str]:
    """The modules of which a fall of this quantity is no failure: what only reads out, above all.

    What a measurement excuses afterwards (`paramz.analysis.slopes`) is not among them.

    Args:
        df: as returned by `paramz.coord_check`, of one optimizer.
        quantity: which rows.

    Returns:
        names in the column ``module``; none for a table without roles.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"module": ["up", "head"], "role": ["hidden", "output"], "width": 8,
    ...                       "quantity": "delta", "parametrization": "mup", "optimizer": "adamw"})
    >>> sorted(may_shrink(table, "delta")), sorted(may_shrink(table, "update"))
    (['head'], [])
    """
    if not set(df.columns) >= _NEEDED:
        return frozenset()
    axis, scheme, last = axis_of(df), str(df.parametrization.iloc[0]), last_maps(df)
    lagging = lagging_of(df) if axis == "width" else frozenset()

    def shrinks(module: str, role: str) -> bool:
        slope = Slope(module, role, 0, quantity, _NAN, _NAN, _NAN, None, last=module in last)
        lags = module in lagging and quantity in ("update", "delta")
        faint = axis == "width" and role == FAINT and quantity != "update"
        return lags or faint or may_fall(slope, axis, scheme)

    rows = df.loc[df["quantity"] == quantity, ["module", "role"]].drop_duplicates()
    return frozenset(m for m, role in rows.itertuples(index=False, name=None) if shrinks(m, role))
