"""Which parameter of the base stands for a parameter of the target."""

from __future__ import annotations

from collections.abc import Mapping, Set

from torch import nn

from paramz.anatomy.adapters import find_adapters
from paramz.anatomy.paths import join, stem, unnumbered
from paramz.anatomy.probes import Probes
from paramz.anatomy.tensors import ONE_WIDTH, ModelTensor, require_same_names
from paramz.anatomy.twins import resized, resized_series


def twin_names(
    model: nn.Module,
    probes: Probes,
    target: Mapping[str, ModelTensor],
    base: Mapping[str, ModelTensor],
) -> dict[str, str]:
    """Target parameter -> base parameter.

    Args:
        model: the target.
        probes: base and wider model.
        target: its tensors.
        base: those of the base.

    Raises:
        ValueError: a parameter of one of them is not in the other.
    """
    who = "the target model", "the base model"
    if probes.twins is None:
        sizes = resized(model, probes.base) if target.keys() != base.keys() else []
        fix = (
            f"Here {'; '.join(sizes[:3])}. Make them equal, or scale them: with 'mup+completep' or "
            "'mup+depth-mup' for residual blocks, with 'mup+moe' for experts."
        )
        first = _first_names(model, probes, target, base)
        require_same_names(first.values() or target, base, who, fix if sizes else ONE_WIDTH)
        return {name: first.get(name, name) for name in target}
    # Where blocks have a weight in common it has the name of the first, whichever is nearest.
    firsts = {alias: name for name, tensor in base.items() for alias in tensor.names}
    twins = {name: probes.twin_name(name) or name for name in target}
    twins = {name: firsts.get(twin, twin) for name, twin in twins.items()}
    # Blocks of the base without a counterpart in the target are ignored.
    used = set(twins.values())
    series = {
        (unnumbered(probes.twins[path]), stem(there[0]))
        for path, _, there in resized_series(model, probes.base)
    }
    alike = {_of_any_block(name, series) for name in used}
    require_same_names(
        twins.values(),
        [n for n in base if n in used or _of_any_block(n, series) not in alike],
        who,
    )
    return twins


def _of_any_block(name: str, series: Set[tuple[str, str]]) -> str:
    """A name without the numbers of blocks, those of series such as layer0 and layer1 as well.

    Args:
        name: of a parameter of the base.
        series: those of another length in the target: the path of what has them, and their stem.
    """
    path = ""
    for part in unnumbered(name).split("."):
        numbered = part[-1].isdigit() and (path, stem(part)) in series
        path = join(path, f"{stem(part)}#" if numbered else part)
    return path


def _first_names(
    model: nn.Module,
    probes: Probes,
    target: Mapping[str, ModelTensor],
    base: Mapping[str, ModelTensor],
) -> dict[str, str]:
    """Any name in the target -> base parameter, if only the sharing of adapters differs."""
    apart = target.keys() ^ base.keys()
    if not apart or not apart <= find_adapters(model).keys() & find_adapters(probes.base).keys():
        return {}
    names = {alias: name for name, tensor in base.items() for alias in tensor.names}
    return {alias: names[alias] for tensor in target.values() for alias in tensor.names}
