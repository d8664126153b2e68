"""The table for adapters over their rank: a frozen layer's output plus s B A x.

A (rank, in) takes features into the rank, B (out, rank) brings them back, s is a number in the
layer's code (alpha / rank in LoRA, alpha / sqrt(rank) in rsLoRA, or one that stays). One of the two
starts at zero, so that the adapted model starts as the pretrained one.

    RANK     the ratio of ranks, target / base
    SCALING  the ratio of the numbers s
    ENTRIES  the ratio of the numbers of entries in a row of SVFT's M
    CODE     the ratio of factors in the model's own code on what a layer puts out, or takes
    USES     the ratio of the numbers of layers that use a factor, with partners that they share or
             whose gradients agree: their gradients add up
    MIXED    the same, of layers that use a B beside rows of A that were drawn apart

latent   A that starts at random: B is zero. Its outputs grow in number and keep their size, as
         those of a first layer do, and what comes back through B falls as 1 / rank.
inward   A that starts at zero: B is random, and A learns what B^T sends back, so that of B A x the
         part along the loss's gradient is a sum over the rank of one sign. B starts as muP's
         readout does, at 1 / (rank s), and then A has the rule of one that starts at random. At
         rank^-1/2 / s the random part of B A x would have one size and that part rank^1/2.
outward  B. It reads the rank out: entries of one size that align with A x add up to rank. s stands
         behind it, so it has an abc shift by s (`Rule.shift`) of a rule for the product s B.
vector   gains: one per coordinate of the rank (VeRA's d), between two random matrices, of which the
         second has entries of size rank^-1/2. Gains per output (DoRA, IA3) have no RANK. A bias of
         B (``lora_bias``) has s behind it, an abc shift as B's.
         Weights between fixed matrices (SVFT's M, OFT's rotations, LoKr's w2_a): entries of one
         size that align with their inputs add up to as many as a row has, and a gradient does not
         know how many there are. Those that are drawn keep the size of their product at first.

input, hidden, output: tensors that are trained whole beside adapters. The code's own factor stays as
         the model was trained with it (sqrt(width) on Gemma's embeddings), so that their changes,
         and those of B, go through it: an abc shift, as by s.

Other kinds of adapters have these rows in sizes of their own (`anatomy/adapter_kinds.py`).

What n layers share moves in each of them. Where their gradients agree, n of them have n times the
size: Adam's and Muon's steps are those of one layer, SGD's n times as large. A B beside rows of A
drawn apart (MoS's pools; derived here) has gradients of random signs to one another: their sum has
n^1/2 times the size of one and the cosine n^-1/2 with each, so Adam's steps move every layer less by
n^1/2, and SGD's as one layer alone would. With B larger by n^1/2 and that cosine, what A does to a
layer comes out as without sharing for Adam, and n times as large for SGD: A has USES there.

With one rate for both factors and A random, the change s B A that both make together is of size
lr^2 s rank, which gives muA's lr ~ (s rank)^-1/2 (arXiv 2602.06204). B alone then moves the output
by (s rank)^1/2. Here each factor has a rate of its own, as in LoRA+ (arXiv 2402.12354), whose ratio
of rates is `outward` over `latent`: it grows as width over rank and s.

K-FAC has no column: the factor that starts at zero lets no gradient through to the other.

`RSLORA` is the same for steps of Adam whose entries are noise above all: their signs do not agree, so
that they add up to the square root of their number (derived here; a GPT's first step of B adds up to
rank^0.6 on text that it has not seen, late ones to rank^0.7 and more, docs/adapters.md).

outward  With steps of rank^-1/2 / s noise moves the output by one size. PEFT's rsLoRA (arXiv
         2312.03732) with one rate is that, by an abc shift. MIXED makes up for signs that differ
         between layers, where noise moves each as far as alone, so it falls out. Muon's steps move
         every x by one size, since they are orthogonal: rank^-1/2 / s in both. SGD's are sums of
         g h^T, as large in the direction of h as rank, noise or not: as in `LORA`.
         A random B starts as its steps are: then the random part of B A x keeps its size, and the
         one along the gradient grows as rank^1/2 until the rank reaches the number of outputs.
latent   Its steps are summed over the inputs, not over the rank. Behind B at rank^-1/2 / s its
         gradients are rank^-1/2, for Adam's epsilon; SGD and Muon move B as they do in `LORA`.
inward   As latent. SGD and Muon, which have no such noise, keep the part of B A x along the
         gradient behind the larger start of B, and B itself then moves less than it might.
vector   ENTRIES^-1/2 for weights between fixed matrices; gains, and biases behind s, stay.

What n layers share (USES) counts as in `LORA`.
"""

from __future__ import annotations

from dataclasses import replace

from paramz.theory.power import ONE
from paramz.theory.printed import (
    CODE,
    ENTRIES,
    HALF,
    HEAD,
    MIXED,
    NONE,
    RANK,
    SCALING,
    USES,
    tabulate,
)

# fmt: off
_S, _U, _X, _C = SCALING * CODE, USES, MIXED**HALF, CODE
_BEHIND =     (1 / _C,         ONE,    1 / _C**2,             1 / _C,           _C,              1 / _C,                 _C)
LORA = tabulate(
    "lora", "adapters over rank, a rate per factor: the spectral condition (Yang, Simon and "
    "Bernstein 2023, arXiv 2310.17813) over the rank; the ratio of rates is that of LoRA+ (Hayou "
    "et al. 2024, arXiv 2402.12354)",
    attention=HEAD**-HALF,
    columns=("init",        "mult", "sgd.lr",              "adam.lr",        "adam.eps",      "muon.lr",              "muon.eps"),
    input  =_BEHIND,
    hidden =_BEHIND,
    output =_BEHIND,
    latent =(ONE,            ONE,    RANK / _U,             ONE,              _U / RANK,       RANK**HALF,             RANK**-HALF * _U),
    inward =(ONE,            ONE,    RANK / _U,             ONE,              _U / RANK,       RANK**HALF,             RANK**-HALF * _U),
    outward=(1 / (RANK*_S),  ONE,    1 / (RANK*_S**2 * _U), _X / (RANK*_S),   _S * _U*_X,      RANK**-HALF / _S * _X,  RANK**HALF * _S * _U*_X),
    vector =(ENTRIES**-HALF / _S, ONE, 1 / (ENTRIES*_S**2), _X / (ENTRIES*_S), RANK**-HALF * _S * _X, NONE,              NONE),
    scalar =(1 / _C,         ONE,    1 / _C**2,             1 / _C,           _C,              NONE,                   NONE),
)

_NOISE = tabulate(
    "noise", "entries of steps whose signs do not agree, as a factor on `LORA`",
    attention=HEAD**-HALF,
    columns=("init",        "mult", "sgd.lr",     "adam.lr",           "adam.eps",  "muon.lr",   "muon.eps"),
    latent =(ONE,            ONE,    ONE,          ONE,                 RANK**HALF,  ONE,         ONE),
    inward =(ONE,            ONE,    1 / RANK,     ONE,                 RANK**HALF,  RANK**-HALF, RANK**HALF),
    outward=(RANK**HALF,     ONE,    ONE,          RANK**HALF / _X,     ONE,         1 / _X,      ONE),
    vector =(ONE,            ONE,    ONE,          ENTRIES**HALF / _X,  ONE,         NONE,        NONE),
)
# fmt: on
RSLORA = replace(
    LORA * _NOISE,
    name="rslora",
    source="as lora, but with the Adam rate of what reads the rank out as rank^-1/2, which PEFT's "
    "use_rslora with one rate is by an abc shift (Kalajdzievski 2023, arXiv 2312.03732)",
)
