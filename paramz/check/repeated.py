"""Seeds that make no difference: those of a model whose code sets torch's seed itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def without_repeats(df: pd.DataFrame) -> tuple[pd.DataFrame, str | None]:
    """The table of a check without seeds that only repeat another, and what to say of them.

    Counted as further draws they would make every interval too narrow.

    Args:
        df: as `paramz.coord_check` measures it.

    >>> import pandas as pd
    >>> one = pd.DataFrame({"seed": 0, "width": [8, 16], "rms": [0.5, 0.25]})
    >>> other = one.assign(seed=2, rms=1.0)
    >>> df, said = without_repeats(pd.concat([one, one.assign(seed=1), other]))
    >>> df.seed.unique().tolist(), said[:46]
    ([0, 2], 'seed 1 gave the very numbers of another seed: ')
    """
    found: dict[tuple[tuple[object, ...], ...], list[int]] = {}
    for seed, rows in df.groupby("seed", sort=True):
        alike = rows.drop(columns="seed").itertuples(index=False, name=None)
        # A number that is none is unequal to itself.
        key = tuple(tuple(None if x != x else x for x in row) for row in alike)
        found.setdefault(key, []).append(int(str(seed)))
    repeats = sorted(seed for alike in found.values() for seed in alike[1:])
    if not repeats:
        return df, None
    named = ", ".join(map(str, repeats))
    said = (
        f"seed{'s' * (len(repeats) > 1)} {named} gave the very numbers of another seed: the "
        "model's code draws the same initial values for every seed (it may call torch.manual_seed "
        f"itself). They count once, so the check has {len(found)} of {df.seed.nunique()} seeds and "
        "wider intervals. Let the code take the seed from outside"
    )
    return df[~df.seed.isin(repeats)].reset_index(drop=True), said
