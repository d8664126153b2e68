"""What the words of a plan's table mean that a reader may not know, below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from paramz.plan.row import Row

# Roles beside the usual ones (input, hidden, output, vector), and ratios that have not the name of
# a size of the model.
_ROLES: Mapping[str, str] = MappingProxyType(
    {
        "inward": "from width into a size that stays, inside the network",
        "latent": "from width into a size that stays, if a norm follows or what goes in is frozen",
        "outward": "from a size that stays back to width",
        "router": "chooses experts",
        "expert": "a matrix of an expert",
        "scalar": "no axis grows",
    }
)
_RATIOS: Mapping[str, str] = MappingProxyType(
    {
        "thin": "the number of active experts whose own size stays",
        "entries": "entries in a row of a sparse adapter",
        "scaling": "the factor on what an adapter puts out",
        "code": "the factor that the model's code has there",
        "uses": "layers that share a tensor",
        "mixed": "those with other partners in each",
    }
)


def legend(rows: Sequence[Row]) -> list[str]:
    """One note on the roles in a plan, and one on its ratios, as far as they need words.

    Args:
        rows: the plan's.
    """
    trained = [row for row in rows if not row.is_frozen]
    roles = {row.role for row in trained}
    ratios = {scale for row in trained for scale, ratio in row.ratios.items() if ratio != 1.0}
    said = []
    for name, words, used in (("roles", _ROLES, roles), ("ratios", _RATIOS, ratios)):
        found = [f"{word}, {meaning}" for word, meaning in words.items() if word in used]
        if found:
            said.append(f"{name}: {'; '.join(found)}")
    return said
