"""Masked tensors in a plan: the ratio of their densities, their names, and what looks wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from paramz.anatomy.masks import Densities, close
from paramz.anatomy.probes import Probes
from paramz.anatomy.tensors import is_trainable_kind, listed
from paramz.plan.row import Row
from paramz.theory.rules import Parametrization

# Roles of matrices that sum over inputs, and whose outputs are many. What a mask does to the few
# outputs of a readout reaches the gradients of all that is before it, in another way for SGD than
# for Adam, so no init is right for both.
SPARSE = ("hidden", "input", "expert", "latent", "outward")

# What a weight's zeros, or the size of what a mask leaves, may differ by without a word.
HALF, OFF = 0.5, 0.1
# Entries that are looked at first, so that a plan need not read all weights of a large model.
_FIRST = 4096


def with_densities(
    rows: Sequence[Row], scheme: Parametrization, densities: Densities, probes: Probes
) -> list[Row]:
    """The rows with densities and, where the scheme has rules for them, their ratios.

    Args:
        rows: of tensors by their names without masks.
        scheme: the parametrization.
        densities: of the model and its base.
        probes: which tensor of the base is whose twin.

    Raises:
        ValueError: a tensor is as sparse as no rule covers; the message says what would be right.
    """
    return [_with_density(row, scheme, densities, probes) for row in rows]


def _with_density(row: Row, scheme: Parametrization, densities: Densities, probes: Probes) -> Row:
    own = densities.model.get(row.name, 1.0)
    base = densities.base.get(probes.twin_name(row.name) or row.name, 1.0)
    if own == base == 1.0:
        return row
    row = replace(row, density=own)
    if close(own, base):
        return row
    what = f"{row.name} {row.shape} has the density {own:.4g}, and {base:.4g} in the base"
    if "density" not in scheme.scales:
        raise ValueError(
            f"{what}, but {scheme.name} has no rule for that. Multiply it with one that has: "
            f"'{scheme.name}+s-mup'; or give the base masks of the same density"
        )
    roles = (row.role, *(part.role for part in row.slices))
    without = next((role for role in roles if role not in SPARSE), None)
    if without is not None:
        whose = "its role" if without == row.role else "the role of rows that stay"
        raise ValueError(
            f"{what}, and there is no rule over density for {whose}, {without}: only for "
            f"{', '.join(SPARSE)}. Leave it dense, or as dense as in the base"
        )
    return replace(row, ratios={**row.ratios, "density": own / base})


def mask_notes(
    model: nn.Module, rows: Sequence[Row], scheme: Parametrization, densities: Densities
) -> list[str]:
    """What a reader should know of masks that are missing, and of zeros that may be one.

    Args:
        model: without masks of torch.nn.utils.prune.
        rows: of its tensors, with densities, by their names without masks.
        scheme: the parametrization.
        densities: of the model and its base.
    """
    notes = []
    if "density" in scheme.scales and not densities.model and not densities.base:
        notes.append(
            "no masks found: s-mup does nothing here. It counts masks of torch.nn.utils.prune; of "
            "masks that your code applies, give densities={pattern: share that stays}"
        )
    parameters = dict(model.named_parameters())
    dense = [(r.name, parameters[r.name]) for r in rows if r.density is None and len(r.shape) > 1]
    shares = {name: _zeros(values) for name, values in dense}
    empty = [name for name, share in shares.items() if HALF < share < 1]
    if empty:
        notes.append(
            f"{listed(empty, 3)}: {shares[empty[0]]:.0%} of {empty[0]} is exactly zero, and it "
            "counts as dense. If that is a mask, put it on with "
            "torch.nn.utils.prune.custom_from_mask, or say how much stays: "
            "densities={pattern: share}, under a scheme with s-mup"
        )
    return notes


def _zeros(values: torch.Tensor) -> float:
    """The share of entries that are exactly zero; 0 where there are few, or no values.

    Nor does a trained tensor count whose other entries are one number, as of an identity or of the
    one-hot start of hyper-connections: no mask makes that of draws.
    """
    if values.is_meta or not is_trainable_kind(values) or not values.numel():
        return 0.0
    trained, values = values.requires_grad, values.detach()
    whole = type(values) is torch.Tensor  # no shard, say
    if whole and values.numel() > _FIRST:
        own = torch.Generator().manual_seed(0)
        drawn = [torch.randint(n, (_FIRST,), generator=own) for n in values.shape]
        if _share(values[tuple(index.to(values.device) for index in drawn)]) < HALF / 2:
            return 0.0
    share = _share(values)
    return 0.0 if trained and whole and share > HALF and _one_number(values) else share


def _one_number(values: torch.Tensor) -> bool:
    others = values[values != 0]
    return bool(others.numel()) and bool((others == others[0]).all())


def _share(values: torch.Tensor) -> float:
    return 1 - int(torch.count_nonzero(values)) / values.numel()


def chosen_notes(densities: Densities) -> list[str]:
    """That masks were chosen by the weights under them, whose sums then start at another size.

    Args:
        densities: of the model and its base, which may be masked in the same way.
    """
    found = {
        name: size / densities.base_sizes.get(name, 1.0) for name, size in densities.sizes.items()
    }
    off = [name for name, ratio in found.items() if abs(ratio - 1) > OFF]
    if not off:
        return []
    return [
        f"{listed(off, 3)}: the mask looks at the weights (by magnitude?). What it leaves of "
        f"{off[0]} is {found[off[0]]:.2f} times as large as all entries were, so its sums start "
        f"{found[off[0]]:.2f} times as large as the rule wants. Draw the weights anew under the "
        "mask (module.reset_parameters()) before paramz.parametrize_, or choose masks at random. "
        "To keep the values (of trained weights), plan with init=False"
    ]


def named_under_masks(rows: Sequence[Row], densities: Densities) -> list[Row]:
    """The rows with the names that their tensors have under masks."""
    names = densities.names
    return [
        replace(row, name=names.get(row.name, row.name), aliases=_renamed(row.aliases, densities))
        for row in rows
    ]


def _renamed(names: Sequence[str], densities: Densities) -> tuple[str, ...]:
    return tuple(densities.names.get(name, name) for name in names)
