"""Write docs/parametrizations.md from the tables themselves and the slopes in docs/slopes.csv.

python docs/parametrizations.py; docs/measure.py measures the slopes again.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from paramz.groups import DECAYS
from paramz.horizon import HORIZONS
from paramz.rules import ONE, Parametrization, Power
from paramz.tables import PARAMETRIZATIONS

HERE = Path(__file__).parent

HEAD = """# Parametrizations

*Written by docs/parametrizations.py from the tables that the code uses; edit those.*

A rule is a power of scale ratios, target / base, so that every rule is 1 at the base:
**fan_in** and **fan_out** of the tensor, where they grow with width; **head**, the size of an
attention head; **depth**, the number of blocks, for tensors inside residual branches;
**experts**, their number, for tensors of experts and routers. *init* is the std of the weight,
*mult* the factor in front of it, *lr* and *eps* multiply the base values. Decay keeps lr · wd
constant unless another [policy](#weight-decay) is chosen.

Roles: an **input** has only fan_out growing (embedding, first layer), an **output** only fan_in
(readout), a **hidden** matrix both; a **vector** is applied entry by entry (bias, gain), a
**scalar** does not grow. A **router** is an output and an **expert** a hidden matrix wherever a
table has no row for it.

Columns: **sgd** with and without momentum; **adam** for Adam, AdamW, NAdam, RAdam, Adamax, Adagrad,
RMSprop, Adafactor, Lion and sign descent; **muon**, for matrices.

Schemes multiply, entry by entry: `"mup+completep+moe"` is
`paramz.MUP * paramz.COMPLETEP * paramz.MOE_MUP`. depth-mup, completep and moe are such factors and
say nothing of width.
"""

MEASURED = """
## Measured

Slopes of coordinate checks (docs/measure.py), log size against log scale over a factor of 8, with
95 % intervals: byte-level GPTs of width 32, residual branches started at zero. *Worst* is the
largest slope that is judged; it passes within ±0.1, and "UNDECIDED" means that it is outside while
its interval reaches inside. *Own update* is the change that the layers inside blocks (the experts)
make by their own weights.

A scheme whose row does not pass is experimental for that optimizer and axis.

{table}

What these numbers say:

- Depth-muP under AdamW is just outside of ±0.1: the frozen layers inside its blocks are missing in
  the change of the state. Its theory is for branches of one layer.
- Without a rule for depth the state after a block changes like depth, for every optimizer.
  Depth-muP and CompleteP both keep it flat. What differs is inside the blocks: with two or more
  layers in a branch, Depth-muP's layers learn less and less as depth grows (own update like
  depth^-1/2 and faster), CompleteP's do not.
- With branches that do not start at zero, the same checks read up to 0.26 too low under CompleteP:
  the random part of the state shrinks to its limit as depth grows, and with it what is added to
  it. That is finite size, not a wrong rule.
- Over experts at a fixed share per token, normalised updates need no rule beside the one for
  epsilon: muP alone passes as well. SGD does need lr · experts: without it experts learn like
  1 / experts.
- Routers that choose the top k make all changes of a mixture noisy: a router's own change moves
  which tokens an expert sees. Hence the wide intervals over experts under SGD.
"""


DRIFT = """
### Transfer of the learning rate

How the best learning rate moves per doubling of the scale, in octaves, with 95 % intervals:
sweeps/lr_depth.yaml (AdamW) and sweeps/lr_experts.yaml (SGD), 40 steps and one seed each. 0 is
transfer.

{table}
"""


def power(value: Power) -> str:
    """A power as markdown, such as fan_in^-1/2."""
    return "1" if value == ONE else f"`{value}`"


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def scheme(table: Parametrization) -> str:
    """One parametrization: its source and its rules."""
    roles = list(dict.fromkeys(role for _, role in table.rules))
    header = ["role", "init", "mult"]
    for column in table.columns:
        header += [f"{column} lr"] + ([] if column == "sgd" else [f"{column} eps"])
    rows = []
    for role in roles:
        weight = next(rule for (_, r), rule in table.rules.items() if r == role)
        cells = [role, power(weight.init_std), power(weight.multiplier)]
        for column in table.columns:
            rule = table.rules.get((column, role))
            cells.append("no rule" if rule is None else power(rule.lr))
            if column != "sgd":
                cells.append("" if rule is None else power(rule.eps))
        rows.append(cells)
    facts = [f"Attention logits: {power(table.attention)}."]
    if table.branch != ONE:
        facts.append(f"Every residual branch: {power(table.branch)}.")
    return (
        f"\n## {table.name}\n\n{table.source}.\n\n{' '.join(facts)}\n\n{markdown(header, rows)}\n"
    )


def slopes(path: Path) -> str:
    """The measured slopes as a table."""
    rows = []
    for row in pd.read_csv(path, keep_default_na=False).to_dict("records"):
        what = f"{row['axis']} {row['from']}–{row['to']}"
        setting = f", {row['setting']}" if row["setting"] else ""
        rows.append(
            [
                what + setting,
                row["parametrization"],
                row["optimizer"],
                row["verdict"],
                f"{row['slope']:+.2f} [{row['lo']:+.2f}, {row['hi']:+.2f}] {row['module']}",
                f"{row['own']:+.2f} [{row['own_lo']:+.2f}, {row['own_hi']:+.2f}]",
            ]
        )
    return markdown(
        ["over", "parametrization", "optimizer", "verdict", "worst", "own update"], rows
    )


def drift(path: Path) -> str:
    """The measured drift of the best learning rate as a table."""
    rows = [
        [
            row["over"],
            row["group"],
            f"{row['slope']:+.2f} [{row['lo']:+.2f}, {row['hi']:+.2f}]",
        ]
        for row in pd.read_csv(path).to_dict("records")
    ]
    return markdown(["over", "parametrization", "octaves per doubling"], rows)


def page() -> str:
    """The whole page."""
    decay = "\n".join(f"- `{name}` keeps {what}." for name, what in DECAYS.items())
    runs = []
    for name, columns in HORIZONS.items():
        for column, rule in columns.items():
            parts = (rule.lr, rule.weight_decay, rule.forgetting, rule.eps)
            runs.append([name, column, *(power(part) for part in parts)])
    header = ["rule", "column", "lr", "weight decay", "1 - beta", "eps"]
    return (
        HEAD
        + "".join(scheme(table) for table in PARAMETRIZATIONS.values())
        + MEASURED.format(table=slopes(HERE / "slopes.csv"))
        + DRIFT.format(table=drift(HERE / "drift.csv"))
        + "\n## Weight decay\n\n`plan.param_groups(..., decay=)` names what stays the same in all "
        f"tensors and at every scale:\n\n{decay}\n"
        + "\n## Another batch size or number of steps\n\n`paramz.horizon.transfer_run` multiplies "
        f"hyperparameters by powers of the ratios of batch size and steps:\n\n"
        f"{markdown(header, runs)}\n\nTheir sources are in paramz/horizon.py.\n"
    )


if __name__ == "__main__":
    (HERE / "parametrizations.md").write_text(page(), encoding="utf-8")
