"""The records that a plan consists of: a row per tensor, and the scales it sets on modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from paramz.theory.rules import Role


@dataclass(frozen=True, slots=True)
class Init:
    """How a tensor was initialised, as measured; for a model planned on meta, as it is drawn.

    Attributes:
        kind: ``constant`` (all entries ``value``, as one measured entry always is), or ``uniform``
            or ``normal`` around zero.
        std: root mean square of the entries; 0 for constants.
        value: the constant.
        size: number of entries, which bounds how well a measured std is known.
        bound: largest absolute entry; its median, where a law has no end.
        mean: mean entry, where it is too far from zero for draws around it; else, and for constants
            0.
    """

    kind: Literal["constant", "uniform", "normal"]
    std: float
    value: float
    size: int
    bound: float
    mean: float = 0.0


@dataclass(frozen=True, slots=True)
class PartOf:
    """What a row of the plan says of a tensor that a weight is computed from.

    Attributes:
        weight: the name of that weight.
        size: exponents of s = its std at init / the std that its role would have, as text.
        uses: exponents of the number of weights that share the tensor, as text.
        decays: weight decay means something for it.
    """

    weight: str
    size: Mapping[str, str] = field(default_factory=dict)
    uses: Mapping[str, str] = field(default_factory=dict)
    decays: bool = True


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows of a fused map that stay while its other rows grow: a map of their own in one tensor.

    Attributes:
        role: the role that they would have as a tensor of their own.
        axis: of the tensor, which they are rows of.
        size: how many they are.
        spans: where they lie, as (first, first behind them, first in the base); empty where no run
            of the model tells, and their init is then that of the tensor.
        base_init: their init in the base, measured; None until then.
        factor: what the target's own init was multiplied by; None until applied.
    """

    role: Role
    axis: int
    size: int
    spans: tuple[tuple[int, int, int], ...] = ()
    base_init: Init | None = None
    factor: float | None = None

    @property
    def index(self) -> str:
        """Where it lies, as one would write it in brackets behind the tensor's name.

        >>> Slice("inward", 1, 3, ((4, 7, 0),)).index
        ':, 4:7'
        """
        return ":, " * self.axis + " and ".join(f"{start}:{stop}" for start, stop, _ in self.spans)


# How the row of a tensor that adapters were put on came by its role: by what it was trained for.
FROZEN = "frozen: adapters leave it as it was trained"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tensor of the target model and what paramz knows of it.

    Attributes:
        name: the parameter's first name in the model.
        aliases: its other names, when it is tied.
        shape, base_shape: at the target and at the base.
        role: the row of the tables it reads.
        why: how the role was found.
        ratios: target / base of fan_in and fan_out, where they grow; of depth inside residual
            branches, and of experts and top_k inside mixture-of-experts layers, where the
            parametrization has rules for them.
        growing: the axes that grow.
        readouts: modules that use a tied tensor as readout while its role is input.
        block: the block whose residual branch it is inside, where depth is scaled.
        ends: the output of a residual branch is linear in it, so it takes the branch factor.
        base_init: the base model's init, measured; None until then.
        factor: what the target's own init was multiplied by; None until applied.
        part: for a tensor that a reparametrization computes a weight from: of which, and how its
            rule follows.
        density: the share of its entries that a static mask leaves; None for a dense one in a dense
            base.
        slices: rows of it that stay, if it is fused of several maps. All else here is about the
            rows that grow.
    """

    name: str
    aliases: tuple[str, ...] = ()
    shape: tuple[int, ...]
    base_shape: tuple[int, ...]
    role: Role
    why: str
    ratios: Mapping[str, float] = field(default_factory=dict)
    growing: tuple[int, ...] = ()
    readouts: tuple[str, ...] = ()
    block: str | None = None
    ends: bool = False
    base_init: Init | None = None
    factor: float | None = None
    part: PartOf | None = None
    density: float | None = None
    slices: tuple[Slice, ...] = ()

    @property
    def kind(self) -> tuple[Any, ...]:
        """Equal for two rows to which every rule gives the same numbers, as long as both live."""
        part = None if self.part is None else id(self.part)
        ratios = tuple(self.ratios.items())
        return self.role, self.shape, self.base_shape, ratios, self.ends, part, self.slices

    @property
    def told(self) -> bool:
        """Whether the role is what the user said by roles=, which nothing else overrules."""
        return self.why.startswith("roles[")

    @property
    def planned(self) -> Row:
        """The row as it was before anything was measured."""
        slices = tuple(replace(each, base_init=None, factor=None) for each in self.slices)
        return replace(self, base_init=None, factor=None, slices=slices)

    @property
    def rescaled(self) -> bool:
        """Whether applying the plan changed the tensor's values."""
        factors = [self.factor, *(part.factor for part in self.slices)]
        return any(factor not in (1.0, None) for factor in factors)

    def of(self, part: Slice) -> Row:
        """The row that a slice would have as a tensor of its own, under the tensor's name."""
        return replace(
            self,
            role=part.role,
            shape=_at(self.shape, part.axis, part.size),
            base_shape=_at(self.base_shape, part.axis, part.size),
            ratios={scale: r for scale, r in self.ratios.items() if scale != "fan_out"},
            growing=tuple(axis for axis in self.growing if axis != part.axis),
            base_init=self.base_init if part.base_init is None else part.base_init,
            factor=part.factor,
            slices=(),
        )

    @property
    def is_frozen(self) -> bool:
        """Whether it stays as it was trained, below adapters."""
        return self.why == FROZEN

    @property
    def adapted(self) -> bool:
        """Whether it is of an adapter, whose rank may be another than the base's."""
        return any(scale in self.ratios for scale in ("rank", "scaling", "entries", "mixed"))

    @property
    def widths(self) -> list[float]:
        """Its ratios in width, of those that it has."""
        return [self.ratios[scale] for scale in ("fan_in", "fan_out") if scale in self.ratios]


def _at(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


@dataclass(frozen=True, slots=True)
class ModuleScale:
    """A factor in a module's own code that the plan sets: on attention logits, or an embedding.

    Attributes:
        module: its path in the model.
        attribute: the attribute that holds the factor, or `paramz.anatomy.attention.KEY_INPUT`.
        plain: the value in the unparametrized model.
        value: the value under the parametrization.
        kind: what it multiplies: the logits of attention, an embedding, or something else that a
            user declared; a switch changes how torch computes and not what.
    """

    module: str
    attribute: str
    plain: float
    value: float
    kind: Literal["attention", "embedding", "declared", "switch"] = "attention"
