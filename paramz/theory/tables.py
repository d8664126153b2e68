"""The parametrizations of the field, as the tables that their papers print.

How to read a table. Every entry is a power of scale ratios, target / base, so it is 1 at the base.

    IN, OUT   the ratio of a tensor's fan_in or fan_out, where that grows with width; else 1
    HEAD      the ratio of head sizes
    DEPTH     the ratio of the numbers of blocks, for tensors inside residual branches; else 1.
              A block that runs several times counts as often
    LOOPS     the ratio of how often one block runs (shared blocks), for the same tensors
    EXPERTS   the ratio of the numbers of experts, for tensors of experts and routers; else 1
    RANK      the ratio of ranks, for tensors of adapters (`adapters.py`); else 1
    DENSITY   the ratio of the shares of entries that static masks leave; else 1

`init` multiplies the std of the weight, `mult` is the factor in front of it in the forward pass,
`*.lr` and `*.eps` multiply the learning rate and epsilon that were tuned at the base. Weight decay
needs no column: it keeps lr * wd constant (decoupled decay; Yang et al. 2022, appendix B.3).

roles: input  only fan_out grows (embedding, first layer)    vector  biases, norm gains (fan_out)
       hidden fan_in and fan_out grow                        scalar  nothing grows
       output only fan_in grows, and the result is the model's (readout)
       inward only fan_in grows, and more that grows follows: into a bottleneck (keys and values
              whose number of heads stays, adapters); reads hidden where a table has no row for
              it, where OUT is 1
       latent the same where a norm follows at once (latents, normed keys), or where what goes in
              is frozen (LoRA's A); reads hidden
       outward only fan_out grows, and what goes in was made of width: out of a bottleneck; reads
              hidden, where IN is 1
       router chooses experts; reads hidden where a table has no row for it, where OUT is 1
       expert matrix of an expert; reads hidden where a table has no row for it
columns: sgd   SGD, momentum, Nesterov
         adam  Adam(W), NAdam, RAdam, Adamax, Adagrad, RMSprop, Adafactor, Lion, sign
         muon  Muon, Shampoo with exponents -1/4, and SOAP (without the powers of fan_out in lr);
               it has rules for matrices only
         kfac  K-FAC, and Shampoo with exponents -1/2; other exponents lie between it and muon
         foof  K-FAC with the factor of the inputs alone
`kfac.damping_a` and `_b` multiply constants added to K-FAC's factors of inputs and output gradients.
Variants of these tables, as factors on them, are in `variants.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from paramz.theory.adapters import LORA, RSLORA
from paramz.theory.power import ONE
from paramz.theory.printed import (
    DEPTH,
    EXPERTS,
    HALF,
    HEAD,
    IN,
    LOOPS,
    NONE,
    OUT,
    SECOND,
    USUAL,
    tabulate,
    with_columns,
)
from paramz.theory.rules import Parametrization
from paramz.theory.variants import (
    BOTTLENECK_HIDDEN,
    BOTTLENECK_READOUT,
    EMBED,
    FULL_ALIGN,
    LARGE_VOCAB,
    LARGER_BACK,
    NO_ALIGN,
    READOUT_ROUTER,
    S_MUP,
)

# fmt: off
SP = tabulate(
    "sp", "standard parametrization: fan-in init, 1/sqrt(d_head) attention, one learning rate",
    attention=HEAD**-HALF,
    columns=("init",    "mult", "sgd.lr", "adam.lr", "adam.eps", "muon.lr", "muon.eps"),
    input  =(ONE,        ONE,    ONE,      ONE,       ONE,        ONE,       ONE),
    hidden =(IN**-HALF,  ONE,    ONE,      ONE,       ONE,        ONE,       ONE),
    output =(IN**-HALF,  ONE,    ONE,      ONE,       ONE,        ONE,       ONE),
    vector =(ONE,        ONE,    ONE,      ONE,       ONE,        NONE,      NONE),
    scalar =(ONE,        ONE,    ONE,      ONE,       ONE,        NONE,      NONE),
)
SP = with_columns(SP, columns=SECOND, **dict.fromkeys(USUAL, (ONE, ONE, ONE, ONE, ONE)))

NTP = tabulate(
    "ntp", "neural tangent parametrization: Jacot et al. 2018; Yang and Hu 2021 (TP-IV) table 1",
    attention=HEAD**-HALF,
    columns=("init",    "mult",     "sgd.lr", "adam.lr", "adam.eps", "muon.lr", "muon.eps"),
    input  =(ONE,        ONE,        ONE,      ONE,       ONE,        ONE,       ONE),
    hidden =(ONE,        IN**-HALF,  ONE,      ONE,       ONE,        ONE,       ONE),
    output =(ONE,        IN**-HALF,  ONE,      ONE,       ONE,        ONE,       ONE),
    vector =(ONE,        ONE,        ONE,      ONE,       ONE,        NONE,      NONE),
    scalar =(ONE,        ONE,        ONE,      ONE,       ONE,        NONE,      NONE),
)
NTP = with_columns(NTP, columns=SECOND, **dict.fromkeys(USUAL, (ONE, ONE, ONE, ONE, ONE)))

# Form A: nothing in the forward pass, the readout's 1/fan_in sits in its init and learning rate.
# Muon's column is (OUT/IN)^(1-e) with e = 1/2, from ||dW||_2 ~ sqrt(fan_out/fan_in).
# eps follows the size of a gradient entry (adam) or of the gradient's spectral norm (muon).
MUP = tabulate(
    "mup", "maximal update parametrization: Yang et al. 2022 (TP-V, arXiv 2203.03466) table 3; "
    "Muon: spectral condition, Yang, Simon and Bernstein 2023 (arXiv 2310.17813)",
    attention=1 / HEAD,
    columns=("init",    "mult", "sgd.lr",   "adam.lr", "adam.eps", "muon.lr",         "muon.eps"),
    input  =(ONE,        ONE,    OUT,        ONE,       1 / OUT,    OUT**HALF,         OUT**-HALF),
    hidden =(IN**-HALF,  ONE,    OUT / IN,   1 / IN,    1 / OUT,    (OUT / IN)**HALF,  (IN / OUT)**HALF),
    output =(1 / IN,     ONE,    1 / IN,     1 / IN,    ONE,        IN**-HALF,         IN**HALF),
    inward =(1 / IN,     ONE,    1 / IN,     1 / IN,    ONE,        IN**-HALF,         IN**HALF),
    vector =(ONE,        ONE,    OUT,        ONE,       1 / OUT,    NONE,              NONE),
    scalar =(ONE,        ONE,    ONE,        ONE,       ONE,        NONE,              NONE),
)
MUP = with_columns(
    MUP,
    # Ishikawa and Karakida 2023 (arXiv 2312.12226). In B^-1 G A^-1 the sizes of inputs a and of
    # output gradients g cancel up to 1/(|a| |g|). With |a|^2 ~ IN and |g|^2 ~ 1/OUT that is the
    # spectral norm that an update should have, so hidden matrices need no power in lr; constants
    # that are added to the factors have to follow |a|^2 and |g|^2.
    columns=SECOND,
    input  =(ONE,          ONE,  1 / OUT,    OUT,        ONE),
    hidden =(ONE,          IN,   1 / OUT,    OUT,        IN),
    output =(ONE,          IN,   ONE,        ONE,        IN),
    inward =(ONE,          IN,   ONE,        ONE,        IN),
    vector =(ONE,          ONE,  1 / OUT,    OUT,        ONE),
    scalar =(ONE,          ONE,  ONE,        ONE,        ONE),
)

# muP with unit init everywhere: the mean-field multipliers 1/sqrt(fan_in) and 1/fan_in in front.
# It is MUP.shift(hidden=IN^-1/2, output=1/IN, inward=1/IN): the same training run, written differently.
MEAN_FIELD = tabulate(
    "mean-field", "mean-field parametrization: Mei et al. 2018; Everett et al. 2024 "
    "(arXiv 2407.05872) table 1; equal to muP by the abc symmetry",
    attention=1 / HEAD,
    columns=("init", "mult",     "sgd.lr", "adam.lr",  "adam.eps",        "muon.lr",  "muon.eps"),
    input  =(ONE,     ONE,        OUT,      ONE,        1 / OUT,           OUT**HALF,  OUT**-HALF),
    hidden =(ONE,     IN**-HALF,  OUT,      IN**-HALF,  1/(OUT*IN**HALF),  OUT**HALF,  OUT**-HALF),
    output =(ONE,     1 / IN,     IN,       ONE,        1 / IN,            IN**HALF,   IN**-HALF),
    inward =(ONE,     1 / IN,     IN,       ONE,        1 / IN,            IN**HALF,   IN**-HALF),
    vector =(ONE,     ONE,        OUT,      ONE,        1 / OUT,           NONE,       NONE),
    scalar =(ONE,     ONE,        ONE,      ONE,        ONE,               NONE,       NONE),
)
MEAN_FIELD = with_columns(
    MEAN_FIELD,
    columns=SECOND,
    input  =(ONE, ONE,    1 / OUT, OUT, ONE),
    hidden =(ONE, ONE,    1 / OUT, OUT, ONE),
    output =(ONE, 1 / IN, ONE,     ONE, 1 / IN),
    inward =(ONE, 1 / IN, ONE,     ONE, 1 / IN),
    vector =(ONE, ONE,    1 / OUT, OUT, ONE),
    scalar =(ONE, ONE,    ONE,     ONE, ONE),
)

# Schemes for depth and experts have no rules for width, so they are used as "mup+completep",
# "mup+moe" or "mup+completep+moe". At any role only tensors inside residual branches have a DEPTH.
# With the branch factor DEPTH^-a the gradient inside a branch is DEPTH^-a times smaller, and the
# branches' updates have to add up to one over DEPTH of them. An update of degree 1 - 2e in the
# gradient (SGD e = 0, normalised ones e = 1/2) then needs lr * DEPTH^(2a(1-e) - 1).
# A block that runs LOOPS times has the gradients of all its runs, which add up, and so do its runs
# at init: they are not independent. So Depth-muP's branches have LOOPS^-1 (DEPTH / LOOPS)^-1/2, and
# what depends on the size of a gradient goes by _BLOCKS, the ratio of the numbers of different blocks
# ("Loops": arXiv 2606.18524 for Adam, derived and measured here for the others).
_BLOCKS = DEPTH / LOOPS
DEPTH_MUP = tabulate(
    "depth-mup", "Depth-muP, branch factor depth^-1/2: Yang et al. 2023 (TP-VI, arXiv 2310.02244); "
    "Bordelon et al. 2023 (arXiv 2309.16620); Muon by the spectral condition",
    attention=HEAD**-HALF,
    branch=_BLOCKS**-HALF / LOOPS,
    columns=("init", "mult", "sgd.lr", "adam.lr",      "adam.eps",     "muon.lr",      "muon.eps"),
    input  =(ONE,     ONE,    ONE,      _BLOCKS**-HALF, _BLOCKS**-HALF, _BLOCKS**-HALF, _BLOCKS**-HALF),
    hidden =(ONE,     ONE,    ONE,      _BLOCKS**-HALF, _BLOCKS**-HALF, _BLOCKS**-HALF, _BLOCKS**-HALF),
    output =(ONE,     ONE,    ONE,      _BLOCKS**-HALF, _BLOCKS**-HALF, _BLOCKS**-HALF, _BLOCKS**-HALF),
    vector =(ONE,     ONE,    ONE,      _BLOCKS**-HALF, _BLOCKS**-HALF, NONE,           NONE),
    scalar =(ONE,     ONE,    ONE,      _BLOCKS**-HALF, _BLOCKS**-HALF, NONE,           NONE),
)
DEPTH_MUP = with_columns(DEPTH_MUP, columns=SECOND, **dict.fromkeys(USUAL, (1 / DEPTH, ONE, 1 / DEPTH, ONE, ONE)))

COMPLETEP = tabulate(
    "completep", "CompleteP, branch factor 1/depth: Dey et al. 2025 (arXiv 2505.01618) table 1; "
    "SGD and Muon by the same condition",
    attention=HEAD**-HALF,
    branch=1 / DEPTH,
    columns=("init", "mult", "sgd.lr", "adam.lr", "adam.eps",  "muon.lr", "muon.eps"),
    input  =(ONE,     ONE,    _BLOCKS,  ONE,       1 / _BLOCKS, ONE,       1 / _BLOCKS),
    hidden =(ONE,     ONE,    _BLOCKS,  ONE,       1 / _BLOCKS, ONE,       1 / _BLOCKS),
    output =(ONE,     ONE,    _BLOCKS,  ONE,       1 / _BLOCKS, ONE,       1 / _BLOCKS),
    vector =(ONE,     ONE,    _BLOCKS,  ONE,       1 / _BLOCKS, NONE,      NONE),
    scalar =(ONE,     ONE,    _BLOCKS,  ONE,       1 / _BLOCKS, NONE,      NONE),
)
# K-FAC's B is a sum over the runs of a block, each with gradients of the size of the branch factor.
COMPLETEP = with_columns(COMPLETEP, columns=SECOND, **dict.fromkeys(USUAL, (1 / DEPTH, ONE, LOOPS * DEPTH**-2, _BLOCKS, ONE)))

# An expert sees top_k/experts of the tokens with a gate near 1/top_k, so its gradient falls as
# 1/experts, whatever top_k is, and so does the gradient of its row of the router. Muon's router has
# the width rule's (OUT/IN)^1/2 with OUT = experts. A choice of the top k follows from the order of a
# router's logits and not from their size, so a router starts like a hidden matrix, as in frameworks:
# like a readout it would change its choice the faster the wider the model is.
_MOE_COLUMNS = ("init",   "mult", "sgd.lr", "adam.lr", "adam.eps",  "muon.lr",     "muon.eps")
_MOE_EXPERT  = (ONE,       ONE,    EXPERTS,  ONE,       1 / EXPERTS, ONE,           1 / EXPERTS)
_MOE_VECTOR  = (ONE,       ONE,    EXPERTS,  ONE,       1 / EXPERTS, NONE,          NONE)
_MOE_ROUTER  = (ONE,       ONE,    EXPERTS,  ONE,       1 / EXPERTS, EXPERTS**HALF, EXPERTS**-HALF)
_MOE_SECOND  = (1 / EXPERTS, ONE, EXPERTS**-2, EXPERTS, ONE)
# The gradient of all logits of a router has entries 1/experts: its size is experts^-1/2, here and in
# Muon's eps.
_MOE_ROUTER_SECOND = (ONE, ONE, 1 / EXPERTS, EXPERTS, ONE)
MOE_MUP = tabulate(
    "moe", "MoE-muP: Malasnicki et al. 2025 (arXiv 2508.09752) but for the router's start, which is "
    "MSSP's for experts whose number grows with width (arXiv 2605.14200); experts: Jiang et al. 2026 "
    "(arXiv 2601.20205)",
    attention=HEAD**-HALF, columns=_MOE_COLUMNS,
    router=_MOE_ROUTER, expert=_MOE_EXPERT,
    input=_MOE_EXPERT, hidden=_MOE_EXPERT, output=_MOE_EXPERT,
    vector=_MOE_VECTOR, scalar=_MOE_VECTOR,
)
MOE_MUP = with_columns(
    MOE_MUP,
    columns=SECOND,
    router=_MOE_ROUTER_SECOND, expert=_MOE_SECOND,
    input=_MOE_SECOND, hidden=_MOE_SECOND, output=_MOE_SECOND,
    vector=_MOE_SECOND, scalar=_MOE_SECOND,
)

# The other policies: the router as a readout to the experts, and larger maps back from thin ones.
MOE_READOUT_ROUTER = replace(
    MOE_MUP * READOUT_ROUTER,
    name="moe-readout-router",
    source="as moe, but routers start like readouts: Malasnicki et al. 2025 (arXiv 2508.09752), and "
    "MSSP's rule for a fixed number of experts (arXiv 2605.14200)",
)
MOE_BOTTLENECK = replace(
    MOE_MUP * LARGER_BACK,
    name="moe-bottleneck",
    source="as moe, but maps back from experts of a fixed size start larger by the square root of the "
    "number of experts: MSSP's rule where that grows with width (arXiv 2605.14200)",
)

# Unit scaling: here IN, OUT and DEPTH are the sizes themselves, as if the base had width and depth
# 1 (DEPTH: layers of the stack, for tensors in it). Gradients have unit scale too, through backward
# factors of their own, so SGD has Adam's rules and eps none. The embedding's 1/sqrt(fan_out) is
# u-muP's departure from muP, which has 1. A bare unit multiplier leaves Muon its spectral rule.
# K-FAC has none: its B is made of true gradients, which the backward factors rescale.
_U_ADAM_INPUT, _U_ADAM_HIDDEN = (OUT * DEPTH)**-HALF, (IN * DEPTH)**-HALF
U_MUP = tabulate(
    "u-mup", "u-muP: Blake et al. 2024 (arXiv 2407.17465) table 2, as in unit_scaling 0.3.5; "
    "Muon: spectral condition, not published",
    attention=1 / HEAD, unit_scaled=True, decay="independent",
    columns=("init", "mult",     "sgd.lr",       "adam.lr",       "muon.lr"),
    input  =(ONE,     ONE,        _U_ADAM_INPUT,  _U_ADAM_INPUT,   OUT**HALF),
    hidden =(ONE,     IN**-HALF,  _U_ADAM_HIDDEN, _U_ADAM_HIDDEN,  (OUT / DEPTH)**HALF),
    output =(ONE,     1 / IN,     ONE,            ONE,             IN**HALF),
    vector =(ONE,     ONE,        DEPTH**-HALF,   DEPTH**-HALF,    NONE),
    scalar =(ONE,     ONE,        DEPTH**-HALF,   DEPTH**-HALF,    NONE),
)
# fmt: on

PARAMETRIZATIONS: Mapping[str, Parametrization] = MappingProxyType(
    {
        p.name: p
        for p in (
            SP,
            NTP,
            MUP,
            MEAN_FIELD,
            DEPTH_MUP,
            COMPLETEP,
            MOE_MUP,
            MOE_READOUT_ROUTER,
            MOE_BOTTLENECK,
            BOTTLENECK_HIDDEN,
            BOTTLENECK_READOUT,
            EMBED,
            FULL_ALIGN,
            NO_ALIGN,
            LARGE_VOCAB,
            LORA,
            RSLORA,
            S_MUP,
            U_MUP,
        )
    }
)


def parametrization(name: str | Parametrization) -> Parametrization:
    """Look a parametrization up by name; ``"a+b"`` is the product of both.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.

    >>> parametrization("mup") is MUP
    True
    """
    if isinstance(name, Parametrization):
        return name
    parts = [part.strip().lower().replace("μ", "mu") for part in name.split("+")]
    for part in parts:
        if part not in PARAMETRIZATIONS:
            known = ", ".join(PARAMETRIZATIONS)
            close = difflib.get_close_matches(part, PARAMETRIZATIONS, n=1)
            meant = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(
                f"unknown parametrization {part!r}{meant}; known: {known}, and products 'a+b'"
            )
    product = PARAMETRIZATIONS[parts[0]]
    for part in parts[1:]:
        product = product * PARAMETRIZATIONS[part]
    return product
