# ruff: noqa: E501 - rows of a table
"""Writes docs/models.md: every architecture of tests/zoo.py, checked as its tests do.

python docs/models.py          # about four minutes of CPU
"""

from __future__ import annotations

import math
import os
import re
import sys
import warnings
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

import torch  # noqa: E402
from zoo import NOTES, PLANNED, REFUSED, ZOO, Animal  # noqa: E402

import paramz  # noqa: E402

HEAD = """# Models

Every architecture below is used as its library or author wrote it, built from a config or a class,
with no line changed. This page is written by `docs/models.py` from `tests/zoo.py`; the tests assert
the same (`tests/apply/test_zoo.py`): roles equal a table that was read line by line
(`tests/apply/golden/`), a plan made on the meta device has the same roles, and nothing changes at the
base bit for bit. Of those in the first table the coordinate check with AdamW passes under muP and
fails under SP at the defaults of `paramz.coord_check` (four of them in the default suite, the others
in the slow one).

```python
model = LlamaForCausalLM(config)                              # the large one
plan = paramz.parametrize_(model, "mup", base=256)            # its config scaled to width 256
wider = paramz.hf.scaled_config(config, width=4096)           # or scale a config yourself
```

`scaled_config` scales the number of heads and of key-value heads, `heads="size"` the size of a
head; feed-forward sizes, mixers and nested configs follow, the vocabulary stays, and where a size
would not be whole the error lists widths that work. The plan's notes say which sizes stayed.
`kv_heads="keep"` keeps the number of key-value heads, `also=` and `keep=` name further fields, and
`depth=` takes one number or one for each stack. A model without a config gives a factory:
`base=net, base_width=64`.

Factors in a model's own code are set where paramz has evidence of what they are: on attention logits
1/d_head, on embeddings the base's value. All that a plan sets is listed below its summary; a number
that moves with width and was left is in its notes. `factors=` declares, overrides and refuses:

| `factors={...: value}` | what happens |
|---|---|
| `r"attn[.]temperature$": "attention"` | a factor on attention logits, gets the scheme's rule |
| `r"gate[.]scale$": "constant"` | held at the base's value |
| `r"gate[.]scale$": 0.5` | set to it |
| `r"gate[.]scale$": None` | left as the code has it |
| `r"^embed$": "width^-1/2"` | what comes out of this embedding (goes into any other layer) is multiplied by (width / width of the base)^-1/2, for a factor that is in the forward code only |

## What was tried

Slopes are log activation change against log width, worst judged module; a check passes where every
judged slope is within ±0.1 at the largest sizes, or cannot be told from it
([the judge](coordinate_check.md)). *Check*: widths, learning rate, seeds (three steps; SP: two seeds,
one step).

| model | roles | muP | SP | check |
|---|---|---|---|---|
"""

READ = """
## Planned, coordinates not checked

Roles were read line by line, and nothing changes at the base bit for bit; nobody has run the
coordinate check of these yet. Most have [sizes inside](parametrizations.md#bottlenecks) that stay
while the width grows.

| model | roles |
|---|---|
"""

REFUSES = """
## Refused, with what to paste in

Nothing tells what these tensors are, so the plan is an error. A test pastes in what the error says,
of alternatives the first, and compares the roles with a table that was read line by line.

| model | what the error suggests |
|---|---|
"""

TAIL = """
## What to know

"""

END = """
## Where it does not work by itself

- A bare parameter of a module that paramz does not know, with one or more growing axes: an error
  names it and the line to add, `roles={"regex": "input"}` or `paramz.Axes(...)`.
- Attention whose scale is inside its code, with heads whose size grows: a warning names them.
  Let the number of heads grow, or keep the scale in `self.scale`.
- Factors like `x * math.sqrt(d_model)` in your own forward pass are found where the model can be run
  on a probe with an embedding in it, and held at the base's value. Where it cannot, nothing shows
  them, and the coordinate check then fails at that module with slope +0.5.
- An embedding that forward code multiplies by to read out (`h @ self.wte.weight.T`): an error says how
  to let a layer share it.
- Dot products of two learned features without 1/d (retrieval towers, DeepONet with a growing latent
  dimension): keep the dimension, or divide by it.
- `torch.compile` of a plain model and one with hooks in the same process: torch leaves hooks out of
  its guards by default. paramz turns those guards on when it adds a hook.
"""


def worst(verdict: paramz.Verdict) -> str:
    """The largest judged slope of hidden modules of a pass, or the culprit's of a failure."""
    if verdict.passed:
        # A readout may shrink: its random part does (see paramz.judge).
        judged = [s for s in verdict.slopes if s.passed and s.role not in ("output", "router")]
        slope = max(judged, key=lambda s: abs(s.slope))
    else:
        proved = [s for s in verdict.slopes if s.proved]
        slope = proved[0] if proved else next(s for s in verdict.slopes if s.passed is False)
    interval = f"[{slope.lo:+.2f}, {slope.hi:+.2f}]"
    return f"{verdict.outcome} {slope.slope:+.2f} {interval} `{slope.module}`"


def roles_of(animal: Animal) -> str:
    """How many tensors have each role."""
    _, plan = animal.parametrized(2 * animal.base)
    count: dict[str, int] = {}
    for row in plan.rows:
        count[row.role] = count.get(row.role, 0) + 1
    return ", ".join(f"{n} {role}" for role, n in count.items())


def refusal(animal: Animal) -> str:
    """What the error of a refused architecture suggests first, in short."""
    try:
        animal.parametrized(2 * animal.base)
    except ValueError as error:
        text = str(error)
    roles = re.search(r"roles=\{.*?\}(?= |$)", text, re.MULTILINE)
    if "computed by torch's" in text:
        return "take torch's weight norm off, `paramz.reparametrize_` with `paramz.WeightNorm()`"
    return f"`{roles[0]}`" if roles else text


def line(name: str, animal: Animal) -> str:
    """The row of one architecture, both checks run."""
    mup, sp = animal.verdict("mup"), animal.verdict("sp", seeds=2, steps=1)
    rate = f"2^{round(math.log2(animal.lr))}"
    span = f"{animal.widths[0]} to {animal.widths[-1]}, {rate}"
    cells = (name, roles_of(animal), worst(mup), worst(sp), f"{span}, {animal.seeds}")
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    read = [f"| {known} | {roles_of(kind)} |" for known, kind in PLANNED.items()]
    refused = [f"| {known} | {refusal(kind)} |" for known, kind in REFUSED.items()]
    for known, kind in ZOO.items():
        rows.append(line(known, kind))
        print(rows[-1], flush=True)
    notes = [f"- **{name}**: {text}." for name, text in NOTES.items()]
    text = (
        HEAD
        + "\n".join(rows)
        + "\n"
        + READ
        + "\n".join(read)
        + "\n"
        + REFUSES
        + "\n".join(refused)
        + "\n"
        + TAIL
        + "\n".join(notes)
        + "\n"
        + END
    )
    (DOCS / "models.md").write_text(text, encoding="utf-8")
