# ruff: noqa: E501 - rows of a table
"""Writes docs/models.md: every architecture of tests/zoo.py, its roles and its coordinate checks.

python docs/models.py

The checks are those of benchmarks/check_power.py, at the defaults of `paramz.coord_check`.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from zoo import NOTES, PLANNED, REFUSED, ZOO, Animal  # noqa: E402

CHECKS = DOCS.parent / "benchmarks" / "results" / "check_power.csv"

HEAD = """# Models

Every architecture below is used as its library or author wrote it, built from a config or a class,
with no line changed. This page is written by `docs/models.py` from `tests/zoo.py` and
`benchmarks/results/check_power.csv`. Tests (`tests/apply/test_zoo.py`) assert that the roles equal a
table that was read line by line (`tests/apply/golden/`), that a plan made on the meta device has the
same roles, and that nothing changes at the base, bit for bit; for the first {checked} also that the
coordinate check with AdamW passes under muP and fails under SP.

```python
import paramz
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(hidden_size=512, intermediate_size=512, num_hidden_layers=1, vocab_size=96)
model = LlamaForCausalLM(config)                              # the large one
plan = paramz.parametrize_(model, "mup", base=256)            # its config scaled to width 256
wider = paramz.hf.scaled_config(config, width=4096)           # or scale a config yourself
```

`scaled_config` scales the number of heads and of key-value heads, `heads="size"` the size of a
head; feed-forward sizes, mixers and nested configs follow, the vocabulary stays, and where a size
would not be whole the error lists widths that work. The plan's notes say which sizes stayed.
`kv_heads="keep"` keeps the number of key-value heads, `also=` and `keep=` name further fields that
follow the width or stay, as `also=("kv_lora_rank",)` (numbers of experts go to `experts=`), and
`depth=` takes one number or one for each stack. A plan gets these options by a factory, as in
`base=paramz.hf.config_factory(model, kv_heads="keep"), base_width=256`: do so where your models
have as many key-value heads at every width, since `base=256` alone gives the base fewer. A model
without a config gives a factory: `base=net, base_width=64`.

Factors in a model's own code are set where paramz has evidence of what they are: on attention logits
1/d_head, on embeddings, layers and weights the base's value. Where names do not tell, one run of
the base and of a wider model does: attention is a product of activations that a softmax takes. All
that a plan sets is listed below its summary; a number that moves with width and was left is in its
notes. `factors=` declares, overrides and refuses:

| `factors={...: value}` | what happens |
|---|---|
| `r"attn[.]temperature$": "attention"` | a factor on attention logits, gets the scheme's rule |
| `r"gate[.]scale$": "constant"` | held at the base's value |
| `r"gate[.]scale$": 0.5` | set to it |
| `r"gate[.]scale$": None` | left as the code has it |
| `r"^embed$": "width^-1/2"` | what comes out of this embedding (goes into any other layer) is multiplied by (width / width of the base)^-1/2, for a factor that is in the forward code only |

## What was tried

Both checks are made at the defaults of `paramz.coord_check` for every model: width 64 to 512, three
seeds, three steps of AdamW with a learning rate of 2^-8. Beside the outcome stands the slope that
decided, with its 95 % interval: of a pass the largest one that was judged, else the culprit's. How
often the check is wrong: [the coordinate check](coordinate_check.md).

| model | roles | muP | SP |
|---|---|---|---|
"""

SUMMARY = """
Under muP {passed} of {all} pass, {undecided} are undecided and {failed} fail; under SP {sp} of {all} fail.
Check a model that is undecided at twice the widths, or with six seeds, and sweep the learning rate at
two widths, before you rely on transfer.
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

- A bare parameter of a module that paramz does not know, with one or more growing axes: a run shows
  what a product sums over (fan_in). Where no run reaches it, or one shows two ways, an error names it
  and the lines to choose from, `roles={"regex": "input"}` or `paramz.Axes(...)`; `example=` helps.
- Attention whose scale is inside its code, with heads whose size grows: a warning names them.
  Let the number of heads grow, or keep the scale in `self.scale`.
- Factors like `x * math.sqrt(d_model)` in your own forward pass are found where the model can be run
  on a probe with an embedding in it, and held at the base's value. Where it cannot, nothing shows
  them, and the coordinate check then fails at that module with slope +0.5.
- An embedding that forward code multiplies by to read out (`h @ self.wte.weight.T`): an error says how
  to let a layer share it. A readout by whose weight the input enters (`F.embedding(ids, self.head.weight)`):
  an error says the role, `input`, with which the check passes.
- Products of two activations summed over width without 1/d (retrieval towers, DeepONet with a growing latent dimension), and sums,
  lengths or distances over width that a layer takes, or as the model's output (`h.sum(-1)`, `h.norm(dim=-1)`, `torch.cdist`): a warning
  names the layer where a run shows it. Take the mean, divide by the dimension over its base, or keep it. Cosines and means need nothing.
- Matrices that a model computes from parameters or constants and sums over width with (a hypernetwork's weights, class prototypes):
  a warning names them. Divide by the sum's length over that of the base. Products of factors (`U @ V`) and mixes of a stack need nothing.
- Linear attention with a softmax of its queries: a `scale` of the module is held at the base's value. A number in forward code that
  falls with width there is warned of.
- Under schemes for depth a run shows what code adds to the stream. Refused, with what to write: a norm, tanh or softmax in forward
  code behind a branch's last map (a module of its own takes the factor), and a stream that is multiplied itself
  (`(x + f(x)) / sqrt(2)`, `torch.lerp`, highways). A bias added by itself takes the factor of its branch. Where no
  run is possible, a note of the plan says so: give `example=`.
- `torch.compile` of a plain model and one with hooks in the same process: torch leaves hooks out of
  its guards by default. paramz turns those guards on when it adds a hook.
"""


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


def shown(checks: pd.DataFrame, name: str, scheme: str) -> str:
    """How a check of an architecture ended, and the slope that decided."""
    found = checks[(checks.architecture == name) & (checks.fault == scheme)]
    if found.empty:
        return "not checked"
    row = found.iloc[0]
    slope = re.search(r"width\^([+-][.\d]+ \[[^\]]+\])", str(row.finding))
    culprit = "" if row.outcome == "pass" or pd.isna(row.culprit) else f" `{row.culprit}`"
    return f"{row.outcome} {slope[1] if slope else ''}{culprit}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    table = pd.read_csv(CHECKS)
    animals = {**ZOO, **PLANNED}
    cells = [
        (name, roles_of(animal), shown(table, name, "mup"), shown(table, name, "sp"))
        for name, animal in animals.items()
    ]
    mup = pd.Series([row[2].split()[0] for row in cells])
    summary = SUMMARY.format(
        all=int((mup != "not").sum()),
        passed=int((mup == "pass").sum()),
        undecided=int((mup == "undecided").sum()),
        failed=int((mup == "fail").sum()),
        sp=sum(row[3].startswith("fail") for row in cells),
    )
    text = (
        HEAD.replace("{checked}", str(len(ZOO)))
        + "\n".join("| " + " | ".join(row) + " |" for row in cells)
        + "\n"
        + summary
        + REFUSES
        + "\n".join(f"| {name} | {refusal(animal)} |" for name, animal in REFUSED.items())
        + "\n"
        + TAIL
        + "\n".join(f"- **{name}**: {text}." for name, text in NOTES.items())
        + "\n"
        + END
    )
    (DOCS / "models.md").write_text(text, encoding="utf-8")
