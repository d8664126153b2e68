"""Give a reparametrized model plain weights for a while, so that it is planned like any other."""

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
        base: the base that the user gave, with plain weights as well.
        wider: the wider probe that the user gave, likewise.
        plan: the plan, with rows for the plain weights; None if there is none.
        entries: the weights that will be computed from their parts again afterwards.
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
        """The plan that was made for the plain weights, with rows for their parts instead."""
        return with_parts(made, self.entries) if self.entries else made

    def keep(self, made: Plan, *, redraw: bool) -> Plan:
        """The plan with rows for the parts, which the model will be under afterwards.

        Args:
            made: the plan that was made for the plain weights and put on the model.
            redraw: putting it on may have changed weights, so their parts are made anew.
        """
        if redraw and not self.planned:
            rescaled = {row.name for row in made.rows if row.rescaled}
            # A weight that was not changed, as at the base, keeps the parts that it has.
            changed = [e for e in self.entries if e.names[0] in rescaled]
            # Weights that share a part are split together.
            together = {e.recipe for e in changed if getattr(e.recipe, "shared", ())}
            split_([e for e in self.entries if e in changed or e.recipe in together])
        self.after = self.expanded(made)
        return self.after

    def split_again_(self) -> None:
        """Make the parts of all weights anew, after the weights were drawn afresh."""
        split_(self.entries)


@contextmanager
def plain_weights(
    model: nn.Module, base: Any = None, wider: Any = None, *, plan: Plan | None = None
) -> Iterator[PlainWeights]:
    """Give a model, and the base models that go with it, plain weights for a while.

    Afterwards they are reparametrized as before, even if an error was raised. The model is then
    under the plan that it was under before, or under the one that was given to `PlainWeights.keep`.
    A model that is not reparametrized stays as it is.

    Args:
        model: the model.
        base: the base, as for `paramz.parametrize_`.
        wider: the wider probe, as for `paramz.parametrize_`.
        plan: the plan that is wanted for plain weights; the model's own if left out.

    Yields:
        what the caller needs in the meantime.

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
