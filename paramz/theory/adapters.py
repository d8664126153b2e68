"""The table for adapters over their rank: a frozen layer's output plus s B A x.

A (rank, in) takes features into the rank, B (out, rank) brings them back, s is a number in the
layer's code (alpha / rank in LoRA, alpha / sqrt(rank) in rsLoRA, or one that stays). One of the two
starts at zero, so that the adapted model starts as the pretrained one.

    RANK     the ratio of ranks, target / base
    SCALING  the ratio of the numbers s

latent   A that starts at random: B is zero. Its outputs grow in number and keep their size, as
         those of a first layer do, and what comes back through B falls as 1 / rank.
inward   A that starts at zero: B is random with entries of size rank^-1/2 / s, so that as many
         random outputs, of a rank far below the width, add up to one size.
outward  B. It reads the rank out: entries of one size that align with A x add up to rank. s stands
         behind it, so it has an abc shift by s (`Rule.shift`) of a rule for the product s B.
vector   gains: one per coordinate of the rank (VeRA's d), between two random matrices, of which the
         second has entries of size rank^-1/2. Gains per output (DoRA, IA3) have no RANK.

With one rate for both factors and A random, the change s B A that both make together is of size
lr^2 s rank, which gives muA's lr ~ (s rank)^-1/2 (arXiv 2602.06204). B alone then moves the output
by (s rank)^1/2. Here each factor has a rate of its own, as in LoRA+ (arXiv 2402.12354), whose ratio
of rates is `outward` over `latent`: it grows as width over rank and s.

K-FAC has no column: the factor that starts at zero lets no gradient through to the other.
"""

from __future__ import annotations

from paramz.theory.power import ONE
from paramz.theory.printed import HALF, HEAD, NONE, RANK, SCALING, tabulate

# fmt: off
_S = SCALING
LORA = tabulate(
    "lora", "adapters over rank, a rate per factor: the spectral condition (Yang, Simon and "
    "Bernstein 2023, arXiv 2310.17813) over the rank; the ratio of rates is that of LoRA+ (Hayou "
    "et al. 2024, arXiv 2402.12354)",
    attention=HEAD**-HALF,
    columns=("init",        "mult", "sgd.lr",          "adam.lr",       "adam.eps",  "muon.lr",         "muon.eps"),
    input  =(ONE,            ONE,    ONE,               ONE,             ONE,         ONE,               ONE),
    hidden =(ONE,            ONE,    ONE,               ONE,             ONE,         ONE,               ONE),
    output =(ONE,            ONE,    ONE,               ONE,             ONE,         ONE,               ONE),
    latent =(ONE,            ONE,    RANK,              ONE,             1 / RANK,    RANK**HALF,        RANK**-HALF),
    inward =(ONE,            ONE,    ONE,               ONE,             RANK**-HALF, RANK**HALF,        ONE),
    outward=(RANK**-HALF/_S, ONE,    1 / (RANK*_S**2),  1 / (RANK*_S),   _S,          RANK**-HALF / _S,  RANK**HALF * _S),
    vector =(ONE,            ONE,    ONE,               ONE,             RANK**-HALF, NONE,              NONE),
    scalar =(ONE,            ONE,    ONE,               ONE,             ONE,         NONE,              NONE),
)
# fmt: on
