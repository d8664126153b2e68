"""The rows of README's table of measured drifts: which trials each of them speaks of.

docs/readme_table.py makes the table, docs/evidence_figures.py the figures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measured:
    """A table of trials behind a row.

    Attributes:
        file: in analysis/data.
        scale: the axis.
        scheme: the parametrization's name in the table.
        hp: the hyperparameter.
        steps: of each trial.
        decay: with weight decay.
        what: the task, and the optimizer where it is not AdamW.
        only: further values of columns.
        least, most: the sizes that count; all if left out.
        rule: a run rule relative to which lr counts. Where it multiplies lr alone, by a number for
            each run, the trials without it are those with it.
        loss: the column of what counts.
    """

    file: str
    scale: str
    scheme: str
    steps: int | None
    decay: bool = False
    what: str = "GPT"
    hp: str = "lr"
    only: dict[str, Any] = field(default_factory=dict)
    least: float = 0.0
    most: float = float("inf")
    rule: str | None = None
    loss: str = "loss"


def wide(scheme: str, optimizer: str, what: str = "GPT") -> Measured:
    """Widths 64 to 1024."""
    only = {"optimizer": optimizer}
    return Measured("lr_width_wide.csv", "width", scheme, 1000, decay=True, what=what, only=only)


def finer(scheme: str) -> Measured:
    """More and smaller experts of as many units together."""
    what = "GPT of width 64, finer experts"
    return Measured("lr_experts_finer.csv", "experts", scheme, 1000, decay=True, what=what)


def digits(scheme: str, optimizer: str) -> Measured:
    """An MLP on digits, by the loss on images that it did not see."""
    what = {"adamw": "digits", "sgd": "digits, SGD", "muon": "digits, Muon"}[optimizer]
    only = {"optimizer": optimizer}
    more = {"what": what, "only": only, "loss": "held_out_loss"}
    return Measured("lr_width_digits.csv", "width", scheme, 1000, decay=True, **more)


def digits_decay(policy: str) -> Measured:
    """The best decay on the same."""
    file, what = "decay_width_digits.csv", "digits at lr 2^-5"
    more = {"what": what, "hp": "weight_decay", "loss": "held_out_loss"}
    return Measured(file, "width", policy, 1000, decay=True, **more)


def noisy(scheme: str, optimizer: str) -> Measured:
    """An MLP on digits whose noise is new at every step."""
    named = {"adamw": "", "sgd": ", SGD", "muon": ", Muon"}[optimizer]
    only = {"optimizer": optimizer}
    file = "lr_width_noisy.csv"
    return Measured(file, "width", scheme, 1000, True, f"noisy digits{named}", only=only)


def unbiased(scheme: str) -> Measured:
    """The same without biases."""
    what = "noisy digits, no biases"
    return Measured("lr_width_unbiased.csv", "width", scheme, 1000, decay=True, what=what)


def noisy_decay(scheme: str, policy: str, decay: float, named: str) -> Measured:
    """The same with another policy of decay, or without."""
    only = {"weight_decay": decay, "decay_policy": policy}
    what = f"noisy digits{named}"
    file = "lr_width_noisy_decay.csv"
    return Measured(file, "width", scheme, 1000, decay > 0, what, only=only)


def noisy_kfac(scheme: str, hp: str = "lr") -> Measured:
    """The same by K-FAC, its learning rate or its damping."""
    file = {"lr": "lr_width_noisy_kfac.csv", "damping": "damping_width_noisy_kfac.csv"}[hp]
    return Measured(file, "width", scheme, 1000, True, "noisy digits, K-FAC", hp)


def noisy_shampoo(scheme: str) -> Measured:
    """The same by Shampoo(-1/4)."""
    file = "lr_width_noisy_shampoo.csv"
    return Measured(file, "width", scheme, 1000, True, "noisy digits, Shampoo")


def words(scheme: str) -> Measured:
    """A GPT of 4096 words in place of 256 bytes."""
    what = "GPT of 4096 words"
    return Measured("lr_width_words.csv", "width", scheme, 1000, decay=True, what=what)


def without(what: str, decay: float, policy: str, warmup: int) -> Measured:
    """The first sweep with decay or warm-up changed."""
    only = {"weight_decay": decay, "decay_policy": policy, "warmup": warmup}
    file = "lr_width_warmup_decay.csv"
    return Measured(file, "width", "mup", 1000, decay=decay > 0, what=what, only=only)


WORDS = {
    "SP": words("sp"),
    "SP with muP's embedding": words("sp+embed"),
    "muP": words("mup"),
    "muP, large-vocab": words("mup+large-vocab"),
}
DIGITS_DECAY = {name: digits_decay(name) for name in ("lr-constant", "coupled")}
NOISY = {
    "muP, AdamW": noisy("mup", "adamw"),
    "muP, SGD": noisy("mup", "sgd"),
    "u-muP, AdamW": noisy("u-mup", "adamw"),
    "muP, Muon": noisy("mup", "muon"),
    "SP, AdamW": noisy("sp", "adamw"),
    "SP, SGD": noisy("sp", "sgd"),
}
UNBIASED = {"muP, AdamW": unbiased("mup"), "u-muP, AdamW": unbiased("u-mup")}
POLICIES = {
    "u-muP, lr-constant": noisy_decay("u-mup", "lr-constant", 0.00122, ", decay by `lr-constant`"),
    "u-muP, independent": NOISY["u-muP, AdamW"],
    "u-muP, no decay": noisy_decay("u-mup", "independent", 0.0, ""),
    "muP, lr-constant": NOISY["muP, AdamW"],
    "muP, independent": noisy_decay(
        "mup", "independent", 0.00048828125, ", decay by `independent`"
    ),
}
KFAC = {
    "muP": noisy_kfac("mup"),
    "SP": noisy_kfac("sp"),
    "muP, damping": noisy_kfac("mup", "damping"),
    "SP, damping": noisy_kfac("sp", "damping"),
}
SHAMPOO = {"muP": noisy_shampoo("mup"), "SP": noisy_shampoo("sp")}
LM = "lr_width_adamw.csv"
MLP = {"what": "MLP, SGD (microsoft/mup's notebook)", "steps": None}
DEPTH, LONG = "lr_depth_long.csv", {"steps": 1000, "decay": True}
WITHOUT = {
    "as in all sweeps": Measured(LM, "width", "mup", 1000, decay=True, most=128),
    "no decay": without("GPT", 0.0, "lr-constant", 125),
    "decay by coupled": without("GPT, policy `coupled`", 0.1, "coupled", 125),
    "no warm-up": without("GPT, no warm-up", 0.1, "lr-constant", 1),
}
DECAY, AT_LR = "decay_width.csv", {"hp": "weight_decay", "what": "GPT at lr 2^-6", **LONG}
ROWS: tuple[tuple[str, Measured | str], ...] = (
    ("`sp`", Measured("lr_width_sp.csv", "width", "sp", 1000, decay=True)),
    ("`sp`", wide("sp", "adamw")),
    ("`sp`", Measured("mup_mlp.csv", "width", "SP", **MLP)),
    ("`sp`", digits("sp", "sgd")),
    ("`sp`", NOISY["SP, AdamW"]),
    ("`sp`", NOISY["SP, SGD"]),
    ("`sp+embed`", Measured("lr_width_sp.csv", "width", "sp+embed", 1000, decay=True)),
    ("`sp`", words("sp")),
    ("`sp+embed`", words("sp+embed")),
    ("`mup`", words("mup")),
    ("`mup+large-vocab`", words("mup+large-vocab")),
    ("`ntp`", "n.a."),
    ("`mup`", Measured(LM, "width", "mup", 1000, decay=True)),
    *(("`mup`", row) for row in WITHOUT.values()),
    ("`mup`", wide("mup", "adamw")),
    ("`mup`", digits("mup", "adamw")),
    ("`mup`", NOISY["muP, AdamW"]),
    ("`mup`", UNBIASED["muP, AdamW"]),
    ("`mup`", POLICIES["muP, independent"]),
    ("`mup`", Measured("mup_mlp.csv", "width", "muP", **MLP)),
    ("`sp`", Measured("lr_width_sgd.csv", "width", "sp", 1000, decay=True, what="GPT, SGD")),
    ("`mup`", Measured("lr_width_sgd.csv", "width", "mup", 1000, decay=True, what="GPT, SGD")),
    ("`mup`", wide("mup", "sgd", "GPT, SGD")),
    ("`mup`", digits("mup", "sgd")),
    ("`mup`", NOISY["muP, SGD"]),
    ("`mup`", Measured("lr_width_muon.csv", "width", "mup", 1000, decay=True, what="GPT, Muon")),
    ("`mup`", wide("mup", "muon", "GPT, Muon")),
    ("`mup`", NOISY["muP, Muon"]),
    ("`mup`", wide("mup", "adamh", "GPT, AdamH")),
    ("`mup`", wide("mup", "muonh", "GPT, MuonH")),
    ("`mean-field`", "equal to `mup`, to rounding"),
    ("`mup` over depth, no rule", Measured(DEPTH, "depth", "mup", **LONG)),
    ("`mup+completep`", Measured(DEPTH, "depth", "mup+completep", **LONG)),
    (
        "`mup+completep`",
        Measured("lr_depth_wide.csv", "depth", "mup+completep", what="GPT of width 64", **LONG),
    ),
    ("`mup+depth-mup`", Measured(DEPTH, "depth", "mup+depth-mup", **LONG)),
    ("`mup` over loops, no rule", Measured("lr_loops.csv", "loops", "mup", **LONG)),
    ("`mup+completep` over loops", Measured("lr_loops.csv", "loops", "mup+completep", **LONG)),
    (
        "`mup` over experts, no rule",
        Measured(
            "lr_experts.csv", "experts", "mup", 60, what="GPT, SGD, experts' lr", hp="expert_lr"
        ),
    ),
    (
        "`mup+moe`",
        Measured(
            "lr_experts.csv", "experts", "mup+moe", 60, what="GPT, SGD, experts' lr", hp="expert_lr"
        ),
    ),
    ("`mup+moe`", Measured("lr_experts_long.csv", "experts", "mup+moe", **LONG)),
    (
        "`mup+moe`",
        Measured("lr_experts_wide.csv", "experts", "mup+moe", what="GPT of width 64", **LONG),
    ),
    (
        "the same, from 8 experts on, of which two and more see a token",
        Measured(
            "lr_experts_wide.csv", "experts", "mup+moe", what="GPT of width 64", least=8, **LONG
        ),
    ),
    ("`mup` over granularity, no rule", finer("mup")),
    ("`mup+moe` over granularity", finer("mup+moe")),
    (
        "`mup+moe-bottleneck`, width, too",
        Measured(
            "lr_experts_thin.csv",
            "experts",
            "mup+moe-bottleneck",
            what="GPT, 16 units an expert, width 32 to 256",
            **LONG,
        ),
    ),
    ("best decay, policy `lr-constant`", Measured(DECAY, "width", "lr-constant", **AT_LR)),
    ("best decay, policy `coupled`", Measured(DECAY, "width", "coupled", **AT_LR)),
    ("best decay, policy `sqrt-width`", Measured(DECAY, "width", "sqrt-width", **AT_LR)),
    *((f"best decay, policy `{name}`", row) for name, row in DIGITS_DECAY.items()),
    ("`mup` over steps, no rule", Measured("lr_steps.csv", "steps", "mup", 4000, decay=True)),
    (
        "`mup`, run rule `token-horizon`",
        Measured("lr_steps.csv", "steps", "mup", 4000, decay=True, rule="token-horizon"),
    ),
    ("`mup` over batch, no rule", Measured("lr_batch.csv", "batch_size", "mup", 4000, decay=True)),
    (
        "`mup`, lr by the run rule `sde`",
        Measured("lr_batch.csv", "batch_size", "mup", 4000, decay=True, rule="sde"),
    ),
    (
        "`mup`, all by the run rule `sde`",
        Measured("lr_batch_sde.csv", "batch_size", "mup", 8000, decay=True, rule="sde"),
    ),
    (
        "the same, the largest batch left out afterwards",
        Measured("lr_batch_sde.csv", "batch_size", "mup", 8000, decay=True, most=32, rule="sde"),
    ),
    ("`u-mup`", Measured("lr_width_umup_long.csv", "width", "u-mup", 1000, decay=True)),
    ("`u-mup`", wide("u-mup", "adamw")),
    ("`u-mup`", digits("u-mup", "adamw")),
    ("`u-mup`", NOISY["u-muP, AdamW"]),
    ("`u-mup`", UNBIASED["u-muP, AdamW"]),
    ("`u-mup`", POLICIES["u-muP, no decay"]),
    ("`u-mup`", POLICIES["u-muP, lr-constant"]),
    ("`mup`", Measured("lr_width_soap.csv", "width", "mup", 1000, decay=True, what="GPT, SOAP")),
    (
        "`sp`",
        Measured("lr_width_shampoo.csv", "width", "sp", 1000, decay=True, what="GPT, Shampoo"),
    ),
    (
        "`mup`",
        Measured("lr_width_shampoo.csv", "width", "mup", 1000, decay=True, what="GPT, Shampoo"),
    ),
    (
        "`sp`",
        Measured("lr_width_kfac.csv", "width", "sp", 1000, decay=True, what="GPT, K-FAC"),
    ),
    (
        "`mup`",
        Measured("lr_width_kfac.csv", "width", "mup", 1000, decay=True, what="GPT, K-FAC"),
    ),
    ("`sp`", SHAMPOO["SP"]),
    ("`mup`", SHAMPOO["muP"]),
    ("`sp`", KFAC["SP"]),
    ("`mup`", KFAC["muP"]),
    ("best damping of K-FAC, `sp`", KFAC["SP, damping"]),
    ("best damping of K-FAC, `mup`", KFAC["muP, damping"]),
    ("`lora`, `rslora` over rank", "docs/adapters.md"),
)
