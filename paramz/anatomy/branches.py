"""Residual branches: which tensors are inside one, and which modules end one.

In ``x + branch(x)`` a depth scheme multiplies the branch by a power of the depth. The factor goes
into the last linear map of the branch, so that is what has to be found. Block layouts are known by
the names that model families use; everything else is declared with `Branches`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from paramz.anatomy import names
from paramz.anatomy.paths import is_number, join, pattern, split


@dataclass(frozen=True, slots=True)
class Branches:
    """Residual branches, declared by regular expressions (``re.search``).

    Attributes:
        inside: matches names of the parameters inside branches. The distinct texts that it matches
            are the blocks, and their number is the depth.
        ends: matches paths of the modules whose output is that of a branch. A linear layer or a
            norm takes the branch factor into its weights, any other module gets a hook.

    >>> declared = Branches(inside=r"^layers[.][0-9]+[.]f", ends=r"[.]f[.]2$")
    """

    inside: str
    ends: str


@dataclass(frozen=True, slots=True)
class Residual:
    """The residual branches of one model.

    Attributes:
        blocks: parameter name -> path of its block, for parameters inside branches.
        ends: names of the parameters that the output of a branch is linear in.
        hooked: paths of the ends without such parameters.
        modules: paths of all ends.
        ratio: number of blocks over that of the base.
        called: path of an end -> that of the module whose forward runs, where they differ.
    """

    blocks: Mapping[str, str]
    ends: frozenset[str]
    hooked: tuple[str, ...]
    modules: tuple[str, ...]
    ratio: float
    called: Mapping[str, str]


_LINEAR = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,
)


def find_branches(model: nn.Module, base: nn.Module, declared: Branches | None = None) -> Residual:
    """The residual branches of a model.

    Args:
        model: the model; only names and types are looked at.
        base: the base model, for its number of blocks.
        declared: where they are, for models whose blocks paramz does not know.

    Raises:
        ValueError: there are none, a block holds a part whose branch has no known end, or a
            declaration matches nothing. The message shows how to declare them.
    """
    (blocks, modules), (base_blocks, _) = (
        _declared(m, declared) if declared else _known(m) for m in (model, base)
    )
    parameters = {path: _end_parameters(model, path) for path in modules}
    return Residual(
        blocks,
        ends=frozenset(name for path in modules for name in parameters[path]),
        hooked=tuple(path for path in modules if not parameters[path]),
        modules=tuple(modules),
        ratio=len(set(blocks.values())) / len(set(base_blocks.values())),
        called={path: _called(model, path) for path in modules},
    )


def _called(model: nn.Module, path: str) -> str:
    """The module whose forward runs: torch's attention reads its out_proj without calling it."""
    above, _ = split(path)
    return above if isinstance(model.get_submodule(above), nn.MultiheadAttention) else path


def _known(model: nn.Module) -> tuple[dict[str, str], list[str]]:
    blocks: dict[str, str] = {}
    modules: list[str] = []
    found: list[str] = []
    for path, module in model.named_modules():
        if not is_number(path) or any(path.startswith(f"{block}.") for block in found):
            continue
        ends = _ends_of_block(module)
        _every_part_ends(path, module, ends)
        if not ends:
            continue
        found.append(path)
        modules += [join(path, end) for end in ends]
        outside = _outside(module)
        for name, _ in module.named_parameters():
            if not (names.SKIP_CONNECTIONS.search(name) or name.partition(".")[0] in outside):
                blocks[join(path, name)] = path
    if not found:
        raise ValueError(
            f"no residual branches found in this {type(model).__name__}: none of its numbered "
            "modules is a block that paramz knows (attention and feed-forward behind norms, or a "
            f"ResNet block). {_how(model)}"
        )
    return blocks, modules


def _ends_of_block(block: nn.Module) -> list[str]:
    """Paths inside a block of the modules that end its branches; empty if it is no known block."""
    children = set(block._modules)
    for layout, end in names.RESNET_BLOCKS:
        if layout <= children:
            ends = [p for p, _ in block.named_modules() if re.search(end, p)]
            return ends[-1:]
    norm_ends = [name for name in names.BRANCH_END_NORMS if name in children]
    if norm_ends:
        own = names.POST_ATTENTION_NORM in norm_ends
        return [*([] if own else [names.PLAIN_POST_ATTENTION_NORM]), *norm_ends]
    if not any(_is_norm(child) for child in block._modules.values()):
        return []
    ends = [path for path, module in block.named_modules() if _ends(path, module)]
    for name, child in block._modules.items():
        if isinstance(child, nn.Sequential):
            ends += [f"{name}.{last}" for last in _last_of(child)]
    # Of modules within each other, the inner one is the linear map.
    return [e for e in ends if not any(o.startswith(f"{e}.") for o in ends)]


def _ends(path: str, module: nn.Module) -> bool:
    if names.BRANCH_ENDS.search(path):
        return True
    # Stacked experts hold their last map as a parameter, (experts, ...).
    return any(names.BRANCH_ENDS.search(name) for name in module._parameters)


def _last_of(stack: nn.Sequential) -> list[str]:
    """The last layer of a stack, dropout aside, if it is linear and not the only one."""
    silent = nn.Identity | nn.modules.dropout._DropoutNd
    layers = {name: m for name, m in stack.named_children() if not isinstance(m, silent)}
    linear = [name for name, m in layers.items() if isinstance(m, nn.Linear)]
    return linear[-1:] if len(linear) > 1 and linear[-1] == list(layers)[-1] else []


def _is_norm(module: nn.Module | None) -> bool:
    return module is not None and "norm" in type(module).__name__.lower()


def _outside(block: nn.Module) -> set[str]:
    """Children that act on the sum: the norms of a post-norm block of torch."""
    if isinstance(block, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        return set() if block.norm_first else {"norm1", "norm2", "norm3"}
    return set()


def _every_part_ends(path: str, block: nn.Module, ends: list[str]) -> None:
    """An attention or feed-forward module without a known end would be left out silently."""
    normed = any(_is_norm(child) for child in block._modules.values())
    if not normed or any(end in (*names.RESNET_NORMS, *names.BRANCH_END_NORMS) for end in ends):
        return
    for name, child in block._modules.items():
        if child is None or names.SKIP_CONNECTIONS.search(name):
            continue
        matrices = [n for n, p in child.named_parameters() if p.ndim >= 2]
        ended = any(end == name or end.startswith(f"{name}.") for end in ends)
        if len(matrices) > 1 and not ended:
            raise ValueError(
                f"{path}.{name} ({type(child).__name__}) is a residual branch whose last linear "
                f"map paramz does not know; its matrices are {', '.join(matrices[:8])}. "
                f"{_how(block)}"
            )


def _end_parameters(model: nn.Module, path: str) -> list[str]:
    """Names of the parameters that an end's output is linear in: all of a linear layer or norm."""
    module = model.get_submodule(path)
    linear = isinstance(module, _LINEAR) or type(module).__name__ == names.TRANSPOSED_LINEAR
    return [
        join(path, name)
        for name, parameter in module._parameters.items()
        if parameter is not None
        and (linear or names.BRANCH_ENDS.search(name.removesuffix("_bias")))
    ]


def _declared(model: nn.Module, declared: Branches) -> tuple[dict[str, str], list[str]]:
    blocks = {
        name: match.group(0).rstrip(".")
        for name, _ in model.named_parameters()
        if (match := re.search(declared.inside, name))
    }
    paths = [path for path, _ in model.named_modules() if path and re.search(declared.ends, path)]
    for what, regex, found, there in (
        ("inside", declared.inside, blocks, [n for n, _ in model.named_parameters()]),
        ("ends", declared.ends, paths, [n for n, _ in model.named_modules() if n]),
    ):
        if not found:
            raise ValueError(
                f"Branches({what}={regex!r}) matches nothing; there are {', '.join(there[:12])}"
            )
    return blocks, paths


def _how(model: nn.Module) -> str:
    numbered = (n for n, _ in model.named_parameters() if re.search(r"\b\d+\b", n))
    example, _ = split(next(numbered, "layers.0.f.weight"))
    return (
        "Declare them: branches=paramz.Branches(inside=r'^<regex of parameter names>', "
        f"ends=r'<regex of module paths, such as {pattern(example)}$>')"
    )
