"""What forward code does to parameters before it multiplies data by them and sums over width.

A role's init and learning rate speak of the entries that meet the data. Behind an exponential, a
softplus or an absolute value these are others, and all of one sign, so that they add up like width;
and where two matrices are multiplied entry by entry, both would fall. Vectors that code views or
indexes as a matrix are summed over, too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from paramz.anatomy import operations as ops
from paramz.anatomy.generated import PRODUCTS, summed
from paramz.anatomy.inputs import of_hugging_face, possible_inputs
from paramz.anatomy.memory import Known, are_one
from paramz.anatomy.probes import Probes
from paramz.anatomy.runs import copied_to, device_of, run, tensors_in

# Blocks of one kind that run first, as in `paramz.anatomy.bottlenecks`.
_KEPT_BLOCKS = 2
# What leaves entries as they are, or nearly so where they are small, or moves them about.
_KEPT = frozenset(
    """clone _to_copy copy neg round clamp hardtanh tanh sin asinh atan erf elu gelu silu index
    index_select gather masked_fill where constant_pad_nd repeat tril triu flip roll _unsafe_view
    _reshape_copy view_copy expand_copy _conj_physical""".split()
)
# What makes of entries around zero others that are not, or takes their size off.
_BENT = frozenset(
    """exp exp2 expm1 log log2 log1p softplus sigmoid hardsigmoid log_sigmoid_forward _softmax
    _safe_softmax _log_softmax abs relu leaky_relu pow sqrt rsqrt reciprocal cosh sign""".split()
)
_CALLED = {"_softmax": "softmax", "_safe_softmax": "softmax", "_log_softmax": "log_softmax"}
_CALLED |= {"clamp": "clamp at zero", "clamp_min": "clamp at zero", "pow": "power"}
# By these a product entry by entry becomes a sum over the axis: a circulant matrix, a convolution.
_FOURIER = frozenset({"_fft_r2c", "_fft_c2c"})
# Sums of which more summands are followed no further.
_MOST = 16


# What is said of a parameter that has fewer entries than the product that it is in.
GAIN = "a gain"
# A summand of what code makes of parameters alone, entry by entry: the parameters that are as large
# as it is, multiplied with each other, and the function that each went through; empty for none.
Term = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Bent:
    """A sum over width of data times what code makes of parameters alone, entry by entry.

    Attributes:
        makers: those of one summand, multiplied with each other: a parameter and the function that
            it went through; empty for none.
        growth: over how many times more entries it runs in the wider probe than in the base.
    """

    makers: Term
    growth: float


def find_bent(probes: Probes, example: Any = None) -> tuple[Bent, ...]:
    """Sums over width with parameters behind a function, or read as something else.

    Args:
        probes: base and wider model; the base runs once, and the wider model if anything is found.
        example: what to call the model with; inputs are guessed if it is left out.

    >>> import torch
    >>> class Positive(nn.Module):
    ...     def __init__(self, width):
    ...         super().__init__()
    ...         self.first, self.w = nn.Linear(2, width), nn.Parameter(torch.ones(width, width))
    ...     def forward(self, x):
    ...         return self.first(x) @ self.w.exp()
    >>> find_bent(Probes(Positive(4), Positive(8)))
    (Bent(makers=frozenset({('w', 'exp')}), growth=2.0),)
    """
    if of_hugging_face(probes.base):  # its names tell
        return ()
    base = _sums(probes.base, example)
    wider = _sums(probes.wider, example) if base else {}
    return tuple(
        Bent(term, wider[term] / size)
        for term, size in base.items()
        if term in wider and wider[term] > size
    )


def _sums(model: nn.Module, example: Any) -> Mapping[Term, float]:
    """The longest sum of each kind."""
    for inputs in possible_inputs(model, example):
        for kept in (_KEPT_BLOCKS, None):  # code that counts its blocks needs all of them
            watcher = _Watcher()
            for name, parameter in model.named_parameters():
                watcher.known.put(parameter, _State((frozenset([(name, "")]),)))
                if parameter.ndim == 1:
                    watcher.vectors.add(name)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of code that meets a guess
                    moved = copied_to(device_of(model), inputs)
                    for tensor in tensors_in(moved):
                        watcher.known.put(tensor, _State(data=True))
                    run(model, moved, watcher, kept)
            except Exception:  # any model's own code, on inputs that it may not like
                continue
            return watcher.found
    return {}


class _State(NamedTuple):
    """What is known of a stretch of memory.

    Attributes:
        terms: its summands, if it is made of parameters alone, entry by entry.
        data: it depends on the model's input.
        lost: it is made of parameters, in a way that is followed no further.
        gains: the summands of what data has been multiplied by, entry by entry.
        waves: it is a Fourier transform over that many entries.
    """

    terms: tuple[Term, ...] = ()
    data: bool = False
    lost: bool = False
    gains: tuple[Term, ...] = ()
    waves: int = 0


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes sums over entries of what is made of parameters while a model runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = Known(_State())
        self.vectors: set[str] = set()
        self.found: dict[Term, float] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = tensors_in((args, kwargs))
        states = [self.known.of(x) for x in tensors]
        if not func.is_view and any(s.terms or s.data or s.lost for s in states):
            name = func.overloadpacket.__name__.removesuffix("_")  # add_ is add, in place
            if any(s.data for s in states):
                made = self._with_data(name, args, tensors, states)
            else:
                made = _of_parameters(name, args, tensors, states, out)
            for tensor in tensors_in(out):
                self.known.put(tensor, made)
        return out

    def _with_data(
        self, name: str, args: Any, tensors: list[Tensor], states: list[_State]
    ) -> _State:
        """What an operation makes of data, and whether it is a sum over parameters' entries."""
        if name in PRODUCTS:
            sides = args[:2] if name == "convolution" else args[-2:]
            left, right = (self.known.of(x) for x in sides)
            for one, other in ((left, right), (right, left)):
                if other.data and not one.data:
                    self._note(one.terms, summed(name, args))
        if name == "sum" and states[0].gains:
            self._note(states[0].gains, ops.summed_over(name, args, None))
        for one in states if name in ("mul", "addcmul") else ():
            if one.waves and not one.data:
                self._note(one.terms, one.waves)
        if name == "mul" and len(states) == 2:
            return _State(data=True, gains=next((s.terms for s in states if not s.data), ()))
        return _State(data=True)

    def _note(self, terms: tuple[Term, ...], size: float) -> None:
        """Only of what a role may not speak of."""
        for term in terms:
            plain = [(name, bent) for name, bent in term if bent != GAIN]
            if len(term) > 1 or any(bent or name in self.vectors for name, bent in plain):
                self.found[term] = max(size, self.found.get(term, 0))


def _of_parameters(
    name: str, args: Any, tensors: list[Tensor], states: list[_State], out: Any
) -> _State:
    """What an operation makes of parameters and constants."""
    lost = _State(lost=True)
    if not isinstance(out, Tensor):
        return lost
    if name.endswith("_like") or name.startswith("new_"):  # of the shape alone
        return _State()
    if name in ("add", "sub", "cat", "stack"):
        # Of what is followed no further, as a mean that is taken off, nothing is said, and what is
        # added to it plainly is a bias.
        whole = not any(s.lost for s in states)
        terms = tuple(
            dict.fromkeys(
                t for s in states for t in s.terms if whole or len(t) > 1 or any(b for _, b in t)
            )
        )
        moved = any(isinstance(x, int | float) and abs(x) > 1e-2 for x in args[1:])
        if moved and name in ("add", "sub"):
            terms = _through("a number added to it", terms)
        return _State(terms) if terms else lost
    if name in ("mul", "div") and len(states) == 2:
        return _multiplied(name, args, tensors, states, out)
    own = [s for s in states if s.terms or s.lost]
    if len(own) != 1:
        return lost
    if name in _FOURIER:
        return own[0]._replace(waves=math.prod(args[0].shape[axis] for axis in args[1]))
    above = name in ("clamp", "clamp_min") and args[1] is not None and args[1] >= 0
    if name in _BENT or above:
        return _State(_through(_CALLED.get(name, name), own[0].terms), lost=own[0].lost)
    return own[0] if name in _KEPT or name in ("mul", "div") else lost


def _through(function: str, terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """Summands that go through a function; of several, the first is named."""
    return tuple(frozenset((name, bent or function) for name, bent in term) for term in terms)


def _multiplied(
    name: str, args: Any, tensors: list[Tensor], states: list[_State], out: Tensor
) -> _State:
    """A product entry by entry of two tensors, or a quotient."""
    whole = [_entries(x) == out.numel() for x in tensors]
    if any(s.lost for s in states) or not any(
        s.terms and w for s, w in zip(states, whole, strict=True)
    ):
        return _State(lost=True)
    if not all(s.terms for s in states):  # a constant
        return next(s for s in states if s.terms)
    one, other = (s.terms for s in states)
    if are_one(*args[:2]):
        return _State(_through("square", one), lost=name == "div")
    if name == "div":
        other = _through("reciprocal", other)
    one, other = (
        terms if is_whole else tuple(frozenset((name, GAIN) for name, _ in term) for term in terms)
        for terms, is_whole in zip((one, other), whole, strict=True)
    )
    terms = tuple(a | b for a in one for b in other)
    return _State(terms) if len(terms) <= _MOST else _State(lost=True)


def _entries(x: Tensor) -> int:
    """How many entries a tensor has of its own, where it may be one that was expanded."""
    return math.prod(n for n, step in zip(x.shape, x.stride(), strict=True) if step or n == 1)
