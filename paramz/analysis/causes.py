"""What made a coordinate check fail: the first module that departs, and what explains it.

A cause is named only where its own measurement departs and what could stand in for it does not:

- the init, where the output before training departs, the input does not, and the output is as large
  as the weight's entries make it;
- a factor in the forward pass, where the same output is not what its weight and input make;
- the learning rate, where the part that a module's own update makes departs;
- epsilon, where it falls and the optimizer's steps, in units of the learning rate, fall with it;
- the attention scale, where scale * |q| * |k| grows;
- the readout's init or multiplier, where the logits' change grows and no update does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paramz.analysis.slopes import NEXT, Slope, random_sums

_HALF = NEXT / 2


@dataclass(frozen=True)
class Cause:
    """Why a check failed.

    Attributes:
        slope: the slope that shows it; its module is the culprit.
        text: the cause, for people.
    """

    slope: Slope
    text: str


def cause_of(slopes: Sequence[Slope], axis: str) -> Cause:
    """The cause of a check's failure.

    What is wrong before training comes first, then updates, then what is only handed on: each of
    these shows in all that follow. Within one of them the first module in forward order counts.

    Args:
        slopes: of `paramz.analysis.slopes.judged_slopes`, with at least one proved failure.
        axis: width, depth or experts.
    """
    evidence = _Evidence({(s.module, s.quantity, s.step): s for s in slopes}, axis)
    proved = [s for s in slopes if s.passed is False and s.proved]
    by_quantity = {
        quantity: [s for s in proved if s.quantity == quantity]
        for quantity in ("output", "reach", "update", "delta")
    }
    if by_quantity["output"]:
        first = by_quantity["output"][0]
        return Cause(first, _of_output(first, evidence))
    if by_quantity["reach"]:
        first = by_quantity["reach"][0]
        return Cause(first, _of_reach(first, evidence))
    if axis != "width":
        return _along_depth(by_quantity["update"], by_quantity["delta"], slopes, evidence)
    if by_quantity["update"]:
        readout = _behind_all(by_quantity["update"], slopes, evidence)
        if readout is not None:
            return readout
        first = by_quantity["update"][0]
        return Cause(first, _of_update(first, evidence))
    first = by_quantity["delta"][0]
    return Cause(first, _of_change(first, evidence))


def departing(slopes: Sequence[Slope], axis: str) -> Slope | None:
    """The slope that a verdict names: that of the cause or, undecided, the largest; None passed."""
    failures = [s for s in slopes if s.passed is False]
    if any(s.proved for s in failures):
        return cause_of(slopes, axis).slope
    return max(failures, key=lambda s: abs(s.slope), default=None)


@dataclass(frozen=True)
class _Evidence:
    """The slopes of a check by module, quantity and step; its axis."""

    found: dict[tuple[str, str, int], Slope]
    axis: str

    def slope(self, module: str, quantity: str, step: int = 0) -> float | None:
        """One slope, None if it was not measured."""
        found = self.found.get((module, quantity, step))
        return None if found is None else found.slope

    def goes(self, slope: float) -> str:
        """A slope in words."""
        return f"{self.axis}^{slope:+.2f}"


def _of_output(first: Slope, evidence: _Evidence) -> str:
    module, size = first.module, first.slope
    goes = evidence.goes(size)
    entering, expected = (evidence.slope(module, q) for q in ("input", "expected"))
    if first.last and size > 0:
        return (
            f"the readout's multiplier or init: before training {module} puts out logits that grow "
            f"like {goes}. A readout has std 1/fan_in; one tied to the embedding, such as "
            "F.linear(x, embed.weight), needs its input divided by width"
        )
    if module.endswith("(input)") or (entering is not None and abs(entering) > _HALF):
        return (
            f"a factor in the forward pass before {module.removesuffix('(input)')}: what goes in "
            f"moves like {evidence.goes(size if entering is None else entering)} before training, "
            f"and no module before it does{_sqrt(size)}"
        )
    if expected is not None and abs(size - expected) > _HALF:
        return (
            f"a factor in the forward pass of {module}: its output moves like {goes} before "
            f"training, while its weight and input make {evidence.goes(expected)}{_sqrt(size)}"
        )
    if expected is not None or (module, "update") in {k[:2] for k in evidence.found}:
        which = "shrink" if size > 0 else "grow"
        return (
            f"the init of {module} ({first.role}): its output moves like {goes} before training, "
            f"so its std has to {which} with {evidence.axis}"
        )
    return f"an operation in {module}: its output moves like {goes} before training{_sqrt(size)}"


def _sqrt(size: float) -> str:
    return " (such as a factor sqrt(d_model))" if abs(size - 0.5) < 0.15 else ""


def _of_reach(first: Slope, evidence: _Evidence) -> str:
    return (
        f"the attention scale of {first.module}: scale * |q| * |k| grows like "
        f"{evidence.goes(first.slope)}, so attention logits will, once queries and keys align. "
        "Heads whose size grows need 1/d_head instead of 1/sqrt(d_head)"
    )


def _of_update(first: Slope, evidence: _Evidence) -> str:
    module, goes = first.module, evidence.goes(first.slope)
    steps = evidence.slope(module, "step", 1)
    if first.slope > 0:
        return (
            f"the learning rate of {module} ({first.role}) does not fall fast enough with "
            f"{evidence.axis}: its own update grows like {goes}"
        )
    if steps is not None and steps < -_HALF / 2:
        return (
            f"the optimizer's epsilon dominates in {module} ({first.role}): its steps fall like "
            f"{evidence.goes(steps)} in units of the learning rate, and its own update like {goes}"
        )
    return (
        f"the learning rate of {module} ({first.role}) falls too fast with {evidence.axis}: its "
        f"own update moves like {goes}"
    )


def _behind_all(
    updates: Sequence[Slope], slopes: Sequence[Slope], evidence: _Evidence
) -> Cause | None:
    """The readout, where the updates of all modules before it grow alike: it makes their gradients.

    Adam's steps do not depend on the size of gradients, so this is for the other optimizers.
    """
    own = [s for s in slopes if s.quantity == "update"]
    before = [s for s in own if not s.last]
    grown = [s for s in updates if s.slope > 0 and not s.last]
    readouts = [s for s in own if s.last and s.passed]
    if len(before) < 3 or len(grown) < 0.8 * len(before) or not readouts:
        return None
    readout = readouts[-1]
    start = evidence.slope(readout.module, "output")
    if start is None or start < -_HALF:
        return None
    return Cause(
        next(s for s in slopes if s.module == readout.module and s.quantity == "output"),
        f"the init of the readout {readout.module}: before training its output moves like "
        f"{evidence.goes(start)} instead of {evidence.axis}^-0.50, so all gradients before it, and "
        f"{len(grown)} of {len(before)} updates, grow",
    )


def _along_depth(
    updates: Sequence[Slope], changes: Sequence[Slope], slopes: Sequence[Slope], evidence: _Evidence
) -> Cause:
    """The first module in forward order that moves too much by itself or has changed too much.

    Branches that add up too much make the updates behind them grow, too, so that an update is the
    cause only where nothing before it has changed too much.
    """
    order = {s.module: i for i, s in enumerate(slopes)}  # that of the last step
    first = min([*updates, *changes], key=lambda s: (order[s.module], s.quantity != "update"))
    said = _of_update if first.quantity == "update" else _of_change
    return Cause(first, said(first, evidence))


def _of_change(first: Slope, evidence: _Evidence) -> str:
    module, goes = first.module, evidence.goes(first.slope)
    start = evidence.slope(module, "output")
    if first.last and first.slope > 0:
        before = "" if start is None else f" (before training it moves like {evidence.goes(start)})"
        return (
            f"the readout's initial weights do not shrink with {evidence.axis} (std 1/fan_in)"
            f"{before}, or it is tied without its multiplier: changed features add up in {module}"
        )
    if evidence.axis == "depth":
        return (
            f"the factor on residual branches: what they add up to in {module} moves like {goes}, "
            "and each of them is to be multiplied by depth^-1/2 or less"
        )
    return f"what goes into {module}, or an operation inside it: its own weights behave"


def what_explains_a_fall(slopes: Sequence[Slope], tolerance: float) -> str:
    """A remark on updates that shrink because their parts cancel; empty if none do."""
    modules = random_sums(list(slopes), tolerance)
    if not modules:
        return ""
    return (
        f" ({len(modules)} updates, such as that of {modules[0]}, shrink because the rows of the "
        "batch cancel; their aligned part does not: a smaller or less random batch shows it better)"
    )


def what_is_not_flat(slopes: Sequence[Slope], axis: str, tolerance: float) -> str:
    """A remark on slopes that pass and are not flat; empty if there are none."""
    falls = [s for s in slopes if s.hi < -tolerance]
    slow = {s.module for s in falls if s.lo > -_HALF}
    own = {s.module for s in falls if s.lo <= -_HALF and s.quantity == "update"}
    grows = {s.module for s in slopes if s.lo > tolerance}
    said = {
        f"more slowly than {axis}^-{_HALF:g}, as what shrinks towards a limit does": slow,
        f"in their own update, as it may over {axis}": own if axis != "width" else set(),
    }
    text = "".join(f", but for {len(m)} that fall {how}" for how, m in said.items() if m)
    if grows:
        text += f", but for {len(grows)} whose own update may grow, which one layer does not tell"
    return text
