"""The parametrizations of the field, as the tables that their papers print.

How to read a table. IN and OUT are the ratios target/base of a tensor's fan_in and fan_out, where
that dimension grows with width (else 1); HEAD is the ratio of head sizes. `init` is the std of the
weight, `mult` the factor in front of it in the forward pass. `*.lr` and `*.eps` multiply the base
learning rate and epsilon. Everything is 1 at the base. Decay always keeps lr * wd constant
(decoupled decay; Yang et al. 2022, appendix B.3), so it needs no column.

roles: input  only fan_out grows (embedding, first layer)    vector  biases, norm gains (fan_out)
       hidden fan_in and fan_out grow                        scalar  nothing grows
       output only fan_in grows (readout)
columns: sgd   SGD, momentum, Nesterov
         adam  Adam(W), NAdam, RAdam, Adamax, Adagrad, RMSprop, Adafactor, Lion, sign
         muon  Muon; its rules are for matrices only
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

from paramz.rules import ONE, Parametrization, Power, Rule

HALF = Fraction(1, 2)
IN = Power(fan_in=1)
OUT = Power(fan_out=1)
HEAD = Power(head=1)
NONE = None  # the theory has no rule here


def tabulate(
    name: str,
    source: str,
    *,
    attention: Power,
    columns: tuple[str, ...],
    **rows: tuple[Power | None, ...],
) -> Parametrization:
    """Read a printed table: ``columns`` name the entries of each role's row.

    A family column appears once one of its entries does; a `NONE` lr leaves the entry out.

    Raises:
        ValueError: a row has another number of entries than there are columns.
    """
    families = dict.fromkeys(c.split(".")[0] for c in columns if "." in c)
    rules = {}
    for role, row in rows.items():
        if len(row) != len(columns):
            raise ValueError(f"{name}, row {role}: {len(row)} entries for {len(columns)} columns")
        cells = dict(zip(columns, row, strict=True))
        for family in families:
            lr = cells[f"{family}.lr"]
            if lr is None:
                continue
            rules[family, role] = Rule(
                init_std=cells["init"] or ONE,
                multiplier=cells["mult"] or ONE,
                lr=lr,
                eps=cells.get(f"{family}.eps") or ONE,
                weight_decay=1 / lr,
            )
    return Parametrization(name=name, source=source, rules=rules, attention=attention)


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
    vector =(ONE,        ONE,    OUT,        ONE,       1 / OUT,    NONE,              NONE),
    scalar =(ONE,        ONE,    ONE,        ONE,       ONE,        NONE,              NONE),
)

# muP with unit init everywhere: the mean-field multipliers 1/sqrt(fan_in) and 1/fan_in in front.
# It is MUP.shift(hidden=IN^-1/2, output=1/IN): the same training run, written differently.
MEAN_FIELD = tabulate(
    "mean-field", "mean-field parametrization: Mei et al. 2018; Everett et al. 2024 "
    "(arXiv 2407.05872) table 1; equal to muP by the abc symmetry",
    attention=1 / HEAD,
    columns=("init", "mult",     "sgd.lr", "adam.lr",  "adam.eps",        "muon.lr",  "muon.eps"),
    input  =(ONE,     ONE,        OUT,      ONE,        1 / OUT,           OUT**HALF,  OUT**-HALF),
    hidden =(ONE,     IN**-HALF,  OUT,      IN**-HALF,  1/(OUT*IN**HALF),  OUT**HALF,  OUT**-HALF),
    output =(ONE,     1 / IN,     IN,       ONE,        1 / IN,            IN**HALF,   IN**-HALF),
    vector =(ONE,     ONE,        OUT,      ONE,        1 / OUT,           NONE,       NONE),
    scalar =(ONE,     ONE,        ONE,      ONE,        ONE,               NONE,       NONE),
)
# fmt: on

PARAMETRIZATIONS: Mapping[str, Parametrization] = MappingProxyType(
    {p.name: p for p in (SP, NTP, MUP, MEAN_FIELD)}
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
            raise ValueError(
                f"unknown parametrization {part!r}; known: {known}, and products 'a+b'"
            )
    product = PARAMETRIZATIONS[parts[0]]
    for part in parts[1:]:
        product = product * PARAMETRIZATIONS[part]
    return product
