"""One share of a sweep, for machines that share no disk and for any scheduler there is.

Each of n machines, or of n jobs of a scheduler, runs ``paramz sweep SPEC --shard i/n`` into a
directory of its own. Which share a trial belongs to follows from its key, so that the machines need
not talk to each other. `paramz.sweeps.store.merge` brings the results together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from paramz.sweeps.spec.config import Config


@dataclass(frozen=True)
class Shard:
    """One of several shares of a sweep.

    Attributes:
        number: which of them, from 1.
        of: how many there are.

    >>> print(Shard.parse("2/4"))
    2/4
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The share that a text such as ``2/4`` names.

        Raises:
            ValueError: the text has another form, or names a share that there is not.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(
                f"--shard {text}: write which share and of how many, such as 1/4 to 4/4 for four"
            )
        return cls(int(found[1]), int(found[2]))

    def part(self, trials: Mapping[str, Config]) -> dict[str, Config]:
        """The trials that belong to this share; each trial belongs to exactly one.

        >>> trials = {f"{n:016x}": {"n": n} for n in range(5)}
        >>> [[c["n"] for c in Shard(n, 2).part(trials).values()] for n in (1, 2)]
        [[0, 2, 4], [1, 3]]
        """
        mine = self.number - 1
        return {key: config for key, config in trials.items() if int(key, 16) % self.of == mine}
