"""What there is to know of a model and its base before a parametrization gives it a meaning.

`read_facts` looks at a model once; `paramz.plan.roles` and `paramz.plan.draft` need no more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import nn

from paramz.anatomy.adapter_notes import adapter_notes
from paramz.anatomy.adapter_part import AdapterPart
from paramz.anatomy.adapters import adapter_ratios, find_adapters
from paramz.anatomy.attention import GrowingHeads, find_growing_heads, nested_encoders
from paramz.anatomy.bent import Bent, find_bent
from paramz.anatomy.bottlenecks import Place, find_places
from paramz.anatomy.branches import Branches, Residual, find_branches
from paramz.anatomy.called import uncalled_layers
from paramz.anatomy.depth_factors import find_depth_factors
from paramz.anatomy.embeddings import (
    EmbeddingScale,
    find_embedding_scales,
    scales_tied_readout,
    unknown_numbers,
)
from paramz.anatomy.factors import (
    DeclaredFactor,
    Factors,
    find_declared,
    loose_notes,
    moving_numbers,
)
from paramz.anatomy.failing import own_failure
from paramz.anatomy.held import WrittenFactor
from paramz.anatomy.moe import (
    MoePart,
    balance_notes,
    find_layers,
    find_parts,
    gate_notes,
    number_ratios,
    without_growing_experts,
)
from paramz.anatomy.paired import twin_names
from paramz.anatomy.paths import split
from paramz.anatomy.probes import Probes
from paramz.anatomy.products import Product, find_products, names_tell
from paramz.anatomy.shown_heads import shown_heads
from paramz.anatomy.slices import slices_of
from paramz.anatomy.spans import Span, find_spans
from paramz.anatomy.stacks import notes_on_runs
from paramz.anatomy.tensors import (
    ModelTensor,
    read_shapes,
    read_tensors,
    require_same_names,
)
from paramz.anatomy.written import find_written


@dataclass(frozen=True, kw_only=True)
class TensorFacts:
    """One tensor of the model and its twins in the probes.

    Attributes:
        tensor: its shape, names and uses in the model.
        base_shape, wider_shape: in the base and in the wider probe.
        stays: axis -> how much of it stays, where the rest grows (fused maps).
        spans: which rows stay, where a run shows it.
        place: where it stands in the network, if it grows on one side only.
        moe: what it is of a mixture-of-experts layer, if it is in one.
        expert_ratios: the layer's numbers of experts (``experts``) and of active ones (``top_k``),
            target / base; empty outside such layers.
        layers: how many layers have it, target / base, where it is tied.
        adapter: what it is of an adapter, if it is of one.
        adapter_ratios: its ``rank`` and ``scaling``, target / base, where ranks may differ.
    """

    tensor: ModelTensor
    base_shape: tuple[int, ...]
    wider_shape: tuple[int, ...]
    stays: Mapping[int, int] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()
    place: Place = Place()
    moe: MoePart | None = None
    expert_ratios: Mapping[str, float] = field(default_factory=dict)
    layers: float = 1.0
    adapter: AdapterPart | None = None
    adapter_ratios: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The tensor's first name in the model."""
        return self.tensor.names[0]

    @cached_property
    def growing(self) -> tuple[int, ...]:
        """The axes that are larger in the wider probe."""
        return tuple(a for a, n in enumerate(self.base_shape) if n != self.wider_shape[a])


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A model, as far as any parametrization needs to know it.

    Attributes:
        tensors: its parameters, in the order of ``named_parameters()``.
        heads: attention modules whose heads grow with width.
        embeddings: factors on embeddings that move with width.
        declared: factors that the user declared.
        written: factors on embeddings and logits that are in forward code only.
        scaled_readout: the model's code divides what goes into a tied readout by sqrt(d_model).
        uncalled: paths of layers whose shared weight the model's code takes without calling them.
        dots: products of two activations that grow with width, and that no softmax or norm takes,
            those of one and a computed matrix, and averages and logits times a number that moves.
        normed: products of data and a parameter whose size a norm holds.
        bent: sums over width with a function of parameters, or with vectors that stand for more.
        nested: paths of torch's encoders that would hand nested tensors to their layers.
        residual: its residual branches; None unless depth was asked for.
        hooked: factors of an earlier plan below adapters, on the inputs of modules, target / base.
        failure: the error with which the base's own forward pass fails, where a run was needed.
        doubts: what nothing shows and the user is to be warned of, one sentence each.
        notes: what a reader of the plan should know, one sentence each.
    """

    tensors: tuple[TensorFacts, ...]
    heads: tuple[GrowingHeads, ...] = ()
    embeddings: tuple[EmbeddingScale, ...] = ()
    declared: tuple[DeclaredFactor, ...] = ()
    written: tuple[WrittenFactor, ...] = ()
    scaled_readout: bool = False
    uncalled: frozenset[str] = frozenset()
    dots: tuple[Product, ...] = ()
    normed: tuple[Product, ...] = ()
    bent: tuple[Bent, ...] = ()
    nested: tuple[str, ...] = ()
    residual: Residual | None = None
    hooked: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_facts(
    model: nn.Module,
    probes: Probes,
    scales: Set[str] = frozenset(),
    branches: Branches | None = None,
    factors: Factors | None = None,
    example: Any = None,
) -> Facts:
    """Read a model and its probes.

    Args:
        model: the target, on any device; only names, shapes and attributes are read (and the
            routers of experts run, to see what their gates add up to).
        probes: base and wider model, matched to the model by `Probes.matched` where numbers of
            blocks or experts may differ.
        scales: what is scaled beside width: with ``depth`` or ``experts`` the numbers of blocks or
            experts may differ from the base's, and residual branches or experts are looked for;
            with ``rank`` the ranks of adapters may.
        branches: where the residual branches are, for models whose blocks paramz does not know.
        factors: factors in the model's code that the user declares.
        example: what to call the model with, to see where its readouts are; inputs are guessed if
            it is left out.

    Raises:
        ValueError: names of the models differ, or as `find_branches` or `find_declared` does.

    >>> from paramz.anatomy.probes import build_probes
    >>> net = lambda w=8: nn.Sequential(nn.Linear(4, w), nn.Linear(w, 2))
    >>> facts = read_facts(net(32), build_probes(net(32), net))
    >>> [(tensor.name, tensor.growing) for tensor in facts.tensors]
    [('0.weight', (0,)), ('0.bias', (0,)), ('1.weight', (1,)), ('1.bias', ())]
    """
    base = read_tensors(probes.base)
    wider = without_growing_experts(probes.base, probes.wider, read_shapes(probes.wider))
    require_same_names(base, wider, ("the base model", "the wider probe"))
    places = find_places(probes, base, wider, example)
    tensors = _tensors(model, probes, (base, wider), places, scales)
    heads: Sequence[GrowingHeads] = find_growing_heads(model, probes)
    seen = _products(model, probes, heads, example)
    normed, entries = ([p for p in seen if p.held], [p for p in seen if p.entry and p.generated])
    products = tuple(p for p in seen if not (p.held or p.entry))
    heads = tuple(shown_heads(heads, products, model, probes))
    silent = any(place.why in ("structure", "order", "last") for place in places.values())
    asked = silent or any(each.attribute is None for each in heads)
    failure = own_failure(probes, model, example) if asked else None
    if failure is not None:  # names alone do not tell that a head grows
        heads = tuple(each for each in heads if each.attribute is not None or each.head != 1.0)
    embeddings = tuple(find_embedding_scales(model, probes))
    declared = tuple(find_declared(model, probes, factors or {}))
    residual = find_branches(model, probes.base, branches, example) if "depth" in scales else None
    held, depth_notes, twice = find_depth_factors(model, probes, residual, declared)
    written = _written(model, probes, embeddings, declared, (example, scales))
    moving = moving_numbers(model, probes)
    claimed: set[tuple[str, str | None]] = {
        (path, name)
        for path, name, _, at_base in moving
        if any(math.isclose(each.base, at_base, rel_tol=1e-6) for each in written)
    }
    named: tuple[Any, ...] = (*heads, *embeddings, *declared)
    claimed |= {(each.module, each.attribute) for each in named}
    claimed |= {(each.module, f"scalar_{each.attribute}") for each in embeddings}
    shapes = {t.name: (t.base_shape, t.wider_shape, t.tensor.shape) for t in tensors}
    slices = slices_of(shapes, probes)
    spans = find_spans(probes, slices, shapes, example, model)
    apart = ((t, slices.get(t.name), spans.get(t.name, ())) for t in tensors)
    tensors = tuple(replace(t, stays=s, spans=found) if s else t for t, s, found in apart)
    weighted = {split(t.name)[0] for t in tensors if len(t.base_shape) > 1}
    notes = [*probes.notes, *loose_notes(model, moving, claimed, weighted), *depth_notes]
    notes += [] if residual else notes_on_runs(model, probes.base)
    grown = [t.tensor for t in tensors if t.base_shape != t.wider_shape]
    gates = gate_notes(model, probes.base, probes.twin) if "experts" in scales else []
    more = [*adapter_notes((t.adapter, t.adapter_ratios) for t in tensors), *balance_notes(model)]
    return Facts(
        tensors=tensors,
        heads=heads,
        embeddings=embeddings,
        declared=(*declared, *held),
        written=written,
        scaled_readout=scales_tied_readout(model),
        uncalled=uncalled_layers(grown, probes, example),
        dots=tuple(p for p in (*products, *entries) if p.matters),
        normed=tuple(normed),
        bent=find_bent(probes, example),
        nested=nested_encoders(model),
        residual=residual,
        failure=failure,
        doubts=(*unknown_numbers(probes), *twice),
        notes=(*more, *gates, *notes),
    )


def _products(
    model: nn.Module, probes: Probes, heads: Sequence[GrowingHeads], example: Any
) -> tuple[Product, ...]:
    """Those that a run shows; names of Hugging Face's models tell, unless they leave a doubt."""
    told = names_tell(model) and all(h.attribute for h in heads)
    return () if told and example is None else find_products(probes, example)


def _written(
    model: nn.Module,
    probes: Probes,
    embeddings: Sequence[EmbeddingScale],
    declared: Sequence[DeclaredFactor],
    asked: tuple[Any, Set[str]],
) -> tuple[WrittenFactor, ...]:
    """Those that no attribute holds, no user speaks of, and `scales_tied_readout` does not know."""
    held = [each.base for each in embeddings]
    spoken = {each.module for each in declared if each.attribute is None}
    named = {each.module for each in declared}
    example, scales = asked
    # Below adapters it stays as it is, and what they add goes through it.
    known_readout = scales_tied_readout(model) and "rank" not in scales
    return tuple(
        each
        for each in find_written(model, probes, example)
        if each.module not in (named if each.place == "weight" else spoken)
        and not (known_readout and each.place == "readout")
        and not any(math.isclose(each.base, value, rel_tol=1e-6) for value in held)
    )


def _tensors(
    model: nn.Module,
    probes: Probes,
    read: tuple[Mapping[str, ModelTensor], Mapping[str, tuple[int, ...]]],
    places: Mapping[str, Place],
    scales: Set[str],
) -> tuple[TensorFacts, ...]:
    target, (base, wider) = read_tensors(model), read
    twins = twin_names(model, probes, target, base)
    layers, base_layers = find_layers(model), find_layers(probes.base)
    parts = find_parts(model, layers)
    adapters, base_adapters = find_adapters(model), find_adapters(probes.base)
    found = []
    for name, tensor in target.items():
        twin, part = twins[name], parts.get(name)
        ratios: Mapping[str, float] = {}
        if part is not None and (part.times or "experts" in scales):
            counted = number_ratios(layers[part.layer], base_layers[probes.twin(part.layer) or ""])
            ratios = counted if "experts" in scales else {}
            if part.times is not None:
                part = replace(part, times=counted["experts"])
        adapter, own = adapters.get(name), base_adapters.get(twin)
        ranks: Mapping[str, float] = {}
        if adapter is not None and own is not None and "rank" in scales:
            ranks = adapter_ratios(adapter, tensor.shape, own, base[twin].shape)
        found.append(
            TensorFacts(
                tensor=tensor,
                base_shape=base[twin].shape,
                wider_shape=wider[twin],
                place=places.get(twin, Place()),
                moe=part,
                expert_ratios=ratios,
                layers=tensor.layers / base[twin].layers,
                adapter=adapter,
                adapter_ratios=ranks,
            )
        )
    return tuple(found)
