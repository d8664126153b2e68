"""Variants of the parametrizations in `tables.py`, each as a factor on one of them."""

from __future__ import annotations

from paramz.theory.power import ONE
from paramz.theory.printed import (
    DENSITY,
    HALF,
    HEAD,
    IN,
    OUT,
    SECOND,
    THIN,
    tabulate,
    with_columns,
)

# fmt: off
# Other policies for bottlenecks, as factors on muP's. With std fan_in^-1/2 into all of them, what
# goes through keeps its size at init, and grows with width as soon as what feeds it aligns with it.
# With 1/fan_in before norms, too, what a norm puts out turns faster the wider the model is.
_COLUMNS = ("init", "mult", "sgd.lr", "adam.lr", "adam.eps", "muon.lr", "muon.eps")
BOTTLENECK_HIDDEN = tabulate(
    "bottleneck-hidden", "all maps into a bottleneck start like hidden matrices, as in common code",
    attention=HEAD**-HALF,
    columns=_COLUMNS,
    inward =(IN**HALF,   ONE, ONE, ONE, ONE, ONE, ONE),
)
BOTTLENECK_HIDDEN = with_columns(BOTTLENECK_HIDDEN, columns=SECOND, inward=(ONE, ONE, ONE, ONE, ONE))
BOTTLENECK_READOUT = tabulate(
    "bottleneck-readout", "all maps into a bottleneck start like readouts: Yang, Simon and "
    "Bernstein 2023 (arXiv 2310.17813) read literally",
    attention=HEAD**-HALF,
    columns=_COLUMNS,
    latent =(IN**-HALF,  ONE, ONE, ONE, ONE, ONE, ONE),
)
BOTTLENECK_READOUT = with_columns(BOTTLENECK_READOUT, columns=SECOND, latent=(ONE, ONE, ONE, ONE, ONE))

# Other starts for mixtures of experts, as factors on the table `moe`. THIN: the ratio of numbers of
# experts, of maps back to width from experts whose own size stays. The random parts of what a share
# of them puts out average away, as 1/experts^1/2.
READOUT_ROUTER = tabulate(
    "readout-router", "routers start like readouts", attention=HEAD**-HALF, columns=_COLUMNS,
    router =(IN**-HALF,  ONE, ONE, ONE, ONE, ONE, ONE),
)
READOUT_ROUTER = with_columns(READOUT_ROUTER, columns=SECOND, router=(ONE, ONE, ONE, ONE, ONE))
LARGER_BACK = tabulate(
    "larger-back", "maps back from thin experts start larger", attention=HEAD**-HALF, columns=_COLUMNS,
    expert =(THIN**HALF, ONE, ONE, ONE, ONE, ONE, ONE),
)
LARGER_BACK = with_columns(LARGER_BACK, columns=SECOND, expert=(ONE, ONE, ONE, ONE, ONE))

# One learning rate per layer on SP's init, and muP with another rate of the embedding. They lack
# columns where nobody has said what they mean, and a product has the columns that both have.
EMBED = tabulate(
    "embed", "SP with nothing but the embedding's learning rate times width: Kalra and Barkeshli "
    "2026 (arXiv 2605.21486); it is the global rate that then falls as 1/width. SGD: the same ratio, "
    "from Everett et al. 2024 (arXiv 2407.05872) table 1",
    attention=HEAD**-HALF,
    columns=("init", "mult", "sgd.lr",   "adam.lr",  "adam.eps", "muon.lr",  "muon.eps"),
    input  =(ONE,     ONE,    OUT,        OUT,        ONE,        OUT**HALF,  ONE),
)
FULL_ALIGN = tabulate(
    "full-align", "per-layer learning rates for SP, where updates and inputs align: Everett et al. "
    "2024 (arXiv 2407.05872) table 1",
    attention=HEAD**-HALF,
    columns=("init", "mult", "sgd.lr",   "adam.lr",  "adam.eps"),
    input  =(ONE,     ONE,    OUT**HALF,  ONE,        OUT**-HALF),
    hidden =(ONE,     ONE,    OUT**HALF / IN, 1 / IN, OUT**-HALF),
    output =(ONE,     ONE,    1 / IN,     1 / IN,     ONE),
    vector =(ONE,     ONE,    OUT**HALF,  ONE,        OUT**-HALF),
    scalar =(ONE,     ONE,    ONE,        ONE,        ONE),
)
NO_ALIGN = tabulate(
    "no-align", "per-layer learning rates for SP, where updates and inputs do not align: Everett et "
    "al. 2024 (arXiv 2407.05872) table 1, for Adam",
    attention=HEAD**-HALF,
    columns=("init", "mult", "adam.lr",  "adam.eps"),
    input  =(ONE,     ONE,    ONE,        OUT**-HALF),
    hidden =(ONE,     ONE,    IN**-HALF,  OUT**-HALF),
    output =(ONE,     ONE,    IN**-HALF,  ONE),
    vector =(ONE,     ONE,    ONE,        OUT**-HALF),
    scalar =(ONE,     ONE,    ONE,        ONE),
)
LARGE_VOCAB = tabulate(
    "large-vocab", "for vocabularies much larger than width: Hayou and Liu 2025 (arXiv 2506.15025), "
    "where the embedding's rate over that of hidden matrices grows as width^1/2, not as width",
    attention=HEAD**-HALF,
    columns=("init", "mult", "adam.lr",  "adam.eps", "muon.lr", "muon.eps"),
    input  =(ONE,     ONE,    OUT**-HALF, ONE,        ONE,       ONE),
)

# A sum over fan_in inputs of which a static mask leaves the share DENSITY has that many terms, and so
# has a step's effect: the effective fan_in is DENSITY * fan_in. What goes back through the mask is a
# sum of DENSITY * fan_out terms, each 1 / DENSITY larger, so gradients keep their size, and eps stays.
# A readout has none of this: its init, 1 / fan_in, is smaller than what random terms would ask for,
# so what goes back through it grows as DENSITY falls, for SGD in another way than for Adam.
_SPARSE = (DENSITY**-HALF, ONE, 1 / DENSITY, 1 / DENSITY, ONE)
S_MUP = tabulate(
    "s-mup", "SmuP, static masks over their density: Dey et al. 2024 (arXiv 2405.15743), for Adam; "
    "SGD by the same condition",
    attention=HEAD**-HALF,
    columns=("init", "mult", "sgd.lr",   "adam.lr",  "adam.eps"),
    input  =_SPARSE,
    hidden =_SPARSE,
)
# fmt: on
