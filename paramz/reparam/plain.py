"""Lend a reparametrized model plain weights, so that it can be planned or drawn like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

from torch import nn

from paramz.plan.on_model import plan_of, remember_
from paramz.plan.plan import Plan
from paramz.reparam.modules import is_reparametrized
from paramz.reparam.rows import with_parts, without_parts
from paramz.reparam.weights import Mapped, put_on_, split_, take_off_


@dataclass
class PlainWeights:
    """A model while its weights are plain.

    Attributes:
        base, wider: what the user gave as such, with plain weights, too.
        plan: the plan as it is for plain weights; None if there is none.
        entries: the weights that will be computed again afterwards.
        after: the plan that the model will be under afterwards.
        planned: the model was under a plan before.
    """

    base: Any
    wider: Any
    plan: Plan | None
    entries: list[Mapped]
    after: Plan | None
    planned: bool

    def expanded(self, made: Plan) -> Plan:
        """A plan that was made for the plain weights, as it is for what they are computed from."""
        return with_parts(made, self.entries)

    def keep(self, made: Plan, *, redraw: bool) -> Plan:
        """The same, and the model will be under it.

        Args:
            made: the plan that was put on the model.
            redraw: doing so may have changed weights, so their parts are made anew.
        """
        if redraw and not self.planned:
            factors = {row.name: row.factor for row in made.rows}
            # At the base no weight is touched, and neither are its parts.
            changed = [e for e in self.entries if factors[e.names[0]] not in (1.0, None)]
            # Weights that share a tensor are split together.
            together = {e.recipe for e in changed if getattr(e.recipe, "shared", ())}
            split_([e for e in self.entries if e in changed or e.recipe in together])
        self.after = self.expanded(made)
        return self.after

    def split_again_(self) -> None:
        """Make the parts of all weights anew, as the weights were drawn afresh."""
        split_(self.entries)


@contextmanager
def plain_weights(
    model: nn.Module, base: Any = None, wider: Any = None, *, plan: Plan | None = None
) -> Iterator[PlainWeights]:
    """Give a model, and the base models that go with it, plain weights for a while.

    Afterwards they are reparametrized as before, also if an error was raised meanwhile, and the
    model is under the plan that it was under, or under what was given to `PlainWeights.keep`. A
    model that is not reparametrized stays as it is.

    Args:
        model: the model.
        base: the base, as for `paramz.parametrize_`.
        wider: the wider probe, likewise.
        plan: the plan to translate to plain weights; the model's own if left out.

    >>> with plain_weights(nn.Linear(2, 2)) as plain:
    ...     plain.entries
    []
    """
    before = plan_of(model)
    if not is_reparametrized(model):
        lent = PlainWeights(base, wider, plan or before, [], before, before is not None)
        yield lent
        remember_(model, lent.after)
        return
    entries = take_off_(model)
    translated = plan or before
    if translated is not None:
        translated = without_parts(translated, model)
        remember_(model, translated)
    probes: list[Mapped] = []
    if isinstance(base, nn.Module):
        others = [m for m in (base, wider) if isinstance(m, nn.Module)]
        probes = [taken for other in others for taken in take_off_(other)]
    elif callable(base):
        base = _plain_factory(base)
    lent = PlainWeights(base, wider, translated, entries, before, before is not None)
    try:
        yield lent
    finally:
        put_on_(probes)
        put_on_(entries)
        remember_(model, lent.after)


def _plain_factory(base: Callable[[int], nn.Module]) -> Callable[..., nn.Module]:
    @wraps(base)
    def build(*width: int) -> nn.Module:
        made = base(*width)
        if isinstance(made, nn.Module):
            take_off_(made)
        return made

    return build
