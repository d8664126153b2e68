"""Sums inside of residual branches, whose terms are no branches themselves.

In Mamba's ``x + out(c(u) * h + d * u)`` the inner sum adds what ``c`` made to what that was made
from. A branch has one such sum, however many blocks there are: nothing adds up over depth, and the
factor of the branch is on ``out``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import nn

from paramz.anatomy.around import block_of
from paramz.anatomy.paths import split
from paramz.anatomy.terms import Added, State


@dataclass
class Sums:
    """The residual sums of a run, and which of them lie inside the branch of another one.

    Attributes:
        made: number of a sum -> matrices of what was added in it.
        around: number of a sum -> ends and matrices of the branches that it lies in.
    """

    made: dict[int, frozenset[str]] = field(default_factory=dict)
    around: dict[int, set[str]] = field(default_factory=dict)

    def note(
        self, number: int, stream: State, branch: State, fresh: frozenset[str], ends: frozenset[str]
    ) -> None:
        """A sum of a stream and a branch, which these matrices and ends made.

        What the branch has from an earlier sum by matrices alone, and the stream does not have at
        all, lies inside of the branch.
        """
        had = stream.near | stream.through | stream.same | {stream.at}
        had |= branch.near | branch.same | {branch.at}
        for inner in self.made:
            if inner in branch.through and inner not in had:
                self.around.setdefault(inner, set()).update(fresh, ends)
        self.made[number] = fresh

    def inner(self) -> dict[str, set[str]]:
        """Matrix -> what ends the branches around it, if all of its sums lie in such branches."""
        found: dict[str, list[int]] = {}
        for number, names in self.made.items():
            for name in names:
                found.setdefault(name, []).append(number)
        return {
            name: set[str]().union(*(self.around[number] for number in numbers))
            for name, numbers in found.items()
            if all(number in self.around for number in numbers)
        }


def without_inner(model: nn.Module, base: nn.Module, added: Added) -> Added:
    """What was found without sums inside of branches that end in the same block.

    Where the end around it is in another block, as in a U-Net, sums may add up in between.

    Args:
        model: the target.
        base: the base model, which ran.
        added: what its run shows.
    """
    known = dict(base.named_parameters())

    def block(name: str) -> str:
        return block_of(model, base, split(name)[0] if name in known else name)

    inner = {
        name for name, ends in added.inner.items() if any(block(end) == block(name) for end in ends)
    }
    return replace(added, unended=added.unended - inner, averaged=added.averaged - inner)
