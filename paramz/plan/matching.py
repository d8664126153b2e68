"""Match a model's parameters to the rows of a plan, by their names and whatever wraps the model."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence

from torch import nn

from paramz.anatomy.masks import ORIGINAL, close, density_of, find_masked
from paramz.anatomy.sound import require_model
from paramz.plan.row import Row

# What wrappers put in front of a parameter's name (DDP, torch's AveragedModel, PEFT, Lightning's
# Fabric), one in another, and between its parts (compile, FSDP1, checkpointing, PEFT).
_BEFORE = ("module.", "base_model.model.", "_forward_module.")
_BETWEEN = (
    ("_orig_mod.", ""),
    ("_fsdp_wrapped_module.", ""),
    ("_checkpoint_wrapped_module.", ""),
    (".base_layer.", "."),
)


def clean_name(name: str, known: Container[str] = ()) -> str:
    """A parameter's name without what DDP, FSDP, compile, Fabric, EMA, PEFT and others add.

    Args:
        name: as in ``named_parameters()`` of the wrapper.
        known: stops at one of these names, for models that have a ``module`` of their own.

    >>> clean_name("module._orig_mod.module.layers.0.weight")
    'layers.0.weight'
    """
    shortest = name
    for end in (0, -1):  # almost always wrappers come off in the order of their places
        for form in _peeled(name, end):
            if (found := _among(form, known)) is not None:
                return found
            shortest = min(shortest, form, key=len)
    forms, seen = [name], {name}
    for form in forms if known else ():  # it grows
        if (found := _among(form, known)) is not None:
            return found
        shorter = [each for _, each in _without_one(form) if each not in seen]
        forms += shorter
        seen.update(shorter)
    return shortest


def _among(form: str, known: Container[str]) -> str | None:
    plain = form.removesuffix(ORIGINAL)  # masked after planning
    return next((each for each in (form, plain) if each in known), None)


def _peeled(name: str, end: int) -> Iterator[str]:
    """A name, and without one wrapper after the other: from the first on, or from the last."""
    while True:
        yield name
        shorter = sorted(_without_one(name))
        if not shorter:
            return
        _, name = shorter[end]


def _without_one(name: str) -> Iterator[tuple[int, str]]:
    """A name without one of the wrappers in it, and where that stood, for each of them.

    Some may be names of the model's own, or of wrappers that were there when it was planned.
    """
    for wrapper in _BEFORE:
        if name.startswith(wrapper):
            yield 0, name.removeprefix(wrapper)
    for wrapper, plain in _BETWEEN:
        at = name.find(wrapper)
        while at >= 0:
            yield at, name[:at] + plain + name[at + len(wrapper) :]
            at = name.find(wrapper, at + 1)


def trainable_rows(rows: Sequence[Row], model: nn.Module) -> list[tuple[Row, nn.Parameter]]:
    """Every trainable tensor of a model with its row: each exactly once, or an error.

    Args:
        rows: those of the plan.
        model: the model; DDP, FSDP and compile wrappers may be around it.

    Raises:
        ValueError: the model has parameters that have no row, lacks some that have one, is larger
            than the one that was planned, or has other masks; or there are adapters and nothing
            trains.
    """
    require_model(model)
    by_name = {name: row for row in rows for name in (row.name, *row.aliases)}
    found, unknown = [], []
    seen = set()
    masked = {f"{each.name}{ORIGINAL}" for each in find_masked(model)}
    for name, parameter in model.named_parameters():
        known = clean_name(name, by_name)
        row = by_name.get(known)
        # The old torch.nn.utils.spectral_norm calls its weight as masks do, and divides it.
        renamed = name.endswith(ORIGINAL) and not known.endswith(ORIGINAL)
        if row is None or (renamed and name not in masked):
            unknown.append(f"{name} {tuple(parameter.shape)}")
            continue
        seen.add(row.name)
        if parameter.requires_grad:
            found.append((row, parameter))
    missing = [row.name for row in rows if row.name not in seen]
    if unknown or missing:
        raise ValueError(
            "the model's parameters are not those of the plan.\n"
            f"  not in the plan: {', '.join(unknown) or 'none'}\n"
            f"  not in the model: {', '.join(missing) or 'none'}\n"
            "If parameters were added after planning (adapters, a new head), plan the final model: "
            "paramz.parametrize_(final, ..., base=a factory that adds them, too), or "
            "paramz.adopt_(final, ...) if its weights are trained."
        )
    if not found and any(row.adapted for row in rows):
        raise ValueError(
            "no tensor of this model trains, its adapters neither. PEFT loads adapters frozen: "
            "PeftModel.from_pretrained(model, path, is_trainable=True) lets them train"
        )
    _require_planned_size(found)
    _require_same_masks(by_name, model)
    return found


def _require_planned_size(found: Sequence[tuple[Row, nn.Parameter]]) -> None:
    """Raise for a model that is wider or has more in a tensor than the one that was planned.

    Smaller tensors are shards of it. An axis that no width scales, such as a vocabulary, may have
    been made longer since.
    """
    for row, parameter in found:
        shape = tuple(parameter.shape)
        if len(shape) != len(row.shape) or len(shape) != len(row.base_shape):
            continue  # flattened, as by FSDP
        scaled = [
            row.role == "hidden" or planned != base
            for planned, base in zip(row.shape, row.base_shape, strict=True)
        ]
        more = [size > planned for size, planned in zip(shape, row.shape, strict=True)]
        if any(grown and larger for grown, larger in zip(scaled, more, strict=True)):
            raise ValueError(
                f"{row.name} is {shape}, and the plan was made for a model in which it is "
                f"{tuple(row.shape)}: its rates and initial values are those of another size. Plan "
                "this model: paramz.parametrize_(model, ..., base=...), or paramz.adopt_(model, "
                "...) if its weights are trained"
            )


def _require_same_masks(rows: Mapping[str, Row], model: nn.Module) -> None:
    for each in find_masked(model):
        row = rows.get(clean_name(f"{each.name}{ORIGINAL}", rows))
        if row is None or each.mask.is_meta:
            continue
        own, planned = density_of(each), 1.0 if row.density is None else row.density
        if not close(own, planned):
            raise ValueError(
                f"the mask of {each.name} leaves {own:.4g} of its entries, and the plan was made "
                f"for {planned:.4g}: its rates are those of another density. Plan the model with "
                "this mask under 'mup+s-mup', or before it has one with paramz.parametrize_(..., "
                f"densities={{{each.name!r}: {own:.4g}}}). A mask that moves at one density needs "
                "no other plan"
            )
