"""Write docs/parametrizations.md from the tables themselves and the slopes in docs/slopes.csv.

python docs/parametrizations.py; docs/measure.py measures the slopes again.
"""

from __future__ import annotations

import inspect
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd

from paramz.nn import Alphas, taus
from paramz.theory.decay import DECAYS
from paramz.theory.families import FAMILIES, WITHOUT_RULE
from paramz.theory.families import shampoo as shampoo_of
from paramz.theory.horizon import HORIZONS
from paramz.theory.power import ONE, Power
from paramz.theory.rules import Parametrization
from paramz.theory.tables import PARAMETRIZATIONS, U_MUP

HERE = Path(__file__).parent

HEAD = """# Parametrizations

*Written by docs/parametrizations.py from the tables that the code uses; edit those.*

A rule is a power of scale ratios, target / base, so that every rule is 1 at the base:
**fan_in** and **fan_out** of the tensor, where they grow with width; **head**, the size of an
attention head; **depth**, the number of blocks, for tensors inside residual branches, where a block
that runs several times counts as often; **loops**, how often one block runs;
**experts**, their number, for tensors of experts and routers; **rank** and **scaling** of
[adapters](adapters.md), for their tensors, with the **entries** in a row of a sparse one, the
number of layers that use a factor (**uses**; **mixed** beside other partners) and a factor in the
model's **code** on what they add; **density**, the
share of entries that [masks](sparsity.md) leave, for tensors that have one.
*init* is the std of the weight,
*mult* the factor in front of it, *lr* and *eps* multiply the base values. Decay keeps lr · wd
constant unless another [policy](#weight-decay) is chosen.

Roles: an **input** has only fan_out growing (embedding, first layer), an **output** only fan_in
(readout), a **hidden** matrix both; a **vector** is applied entry by entry (bias, gain), a
**scalar** does not grow. [Inside the network](#bottlenecks) a map from width into a fixed size is
**inward**, or **latent** where a norm takes what it makes, and one from there back to width
**outward**. Wherever a table has no row for it, a **router** is a hidden
matrix, and so are an **expert** and inward, latent and outward ones (with fan_out or fan_in of 1).

Columns: **sgd** with and without momentum; **adam** for Adam, AdamW, NAdam, RAdam, Adamax, Adagrad,
RMSprop, Adafactor, Lion and sign descent; **muon** for Muon, and SOAP but for
powers of fan_out in its lr, matrices only. Below the
first table of a scheme are the [second-order](second_order.md) columns: **kfac** and **foof** with
the factors on constant dampings of A = E[a a^T] and B = E[g g^T] (damping relative to their traces
needs none), and **shampoo**, matrices only, with eps added to G G^T, for exponents -1/4 and -1/2 on
each side; its lr for exponents that sum to e is the first to the power 2 - 2e times the second to
the power 2e - 1.

Schemes multiply, entry by entry: `"mup+completep+moe"` is
`paramz.MUP * paramz.COMPLETEP * paramz.MOE_MUP`. depth-mup, completep and moe are such factors and
say nothing of width.
"""

U_MUP_NOTES = """
Here the ratios are the sizes themselves, as if the base had width and depth 1, so u-muP needs no
base and multiplies with no other scheme. *depth* is the number of blocks, for tensors in the stack.
Decay is independent of the learning rate unless another [policy](#weight-decay) is chosen. Over
width one rate held with `decay="lr-constant"`, and with the paper's it rose
([measured](evidence.md#digits-under-noise-sgd-adamw-muon-u-mup)).

**Hyperparameters** beside the learning rate, all 1 by default (`paramz.nn.Alphas`):

{alphas}

**Residual connections** are `(x + tau f(x)) / sqrt(1 + tau^2)`. The squares of all attention
branches' contributions sum to `alpha_attn^2` of the embedding's, those of the others to
`alpha_ffn^2`, with `alpha_ffn = res sqrt(2 / (1 + res_attn_ratio^2))` and `alpha_attn =
res_attn_ratio alpha_ffn`; tau is a branch's contribution over all that came before it. The weight
of a branch acts on its gradient where the branch begins instead of where it ends, so that gradients
inside have unit scale. With alphas of 1 and {depth} blocks tau is {taus}.

**The embedding** learns at 1/sqrt(width), a departure of u-muP from muP, where it is constant. Its
change therefore falls like width^-1/2, and the coordinate check over width says FAIL for that
module: this is the published rule, which paramz keeps (with Muon, too, which leaves embeddings to
AdamW). All other modules are within ±0.1 for AdamW and Muon; under SGD the largest is just outside,
with an interval that reaches inside.

**Measured** (tests/u_mup, benchmarks/u_mup.py):

- Equal to the authors' package unit_scaling 0.3.5: forward pass, gradients and five steps of AdamW
  of a small decoder to a relative 1e-6, built from `paramz.nn` as well as converted from a plain
  model; every operation alone to 1e-12.
- At init weights, outputs of hidden layers and the readout's weight gradient have a std within
  10 % of one. What has not is the scheme's own: logits start at 1/sqrt(width); the gradients of
  queries and keys are below 0.2, as softmax starts nearly flat; relu's gradient is 1.2; and
  attention's factor takes values at different tokens for independent, which holds in the first
  block only.
- A training step costs 1.03 times the plain model's, after conversion (1.033, range over builds
  1.03 to 1.05) as well as built from `paramz.nn` (1.034, 1.01 to 1.05); unit_scaling's 1.17, and
  1.08 with its import exchanged for `paramz.compat.unit_scaling` (benchmarks/u_mup.py: median
  ratios on one CPU thread, eager, width 256, fused AdamW; the plain model to itself 1.008).
- Conversion takes Linear, Embedding, Conv1d, Conv2d, nn.MultiheadAttention, torch's transformer
  layers, Hugging Face's Llama and GPT-2; it refuses pooling, batch and group norms and MoE layers.
- FP8 (E4M3 forward, E5M2 backward, simulated; a residual MLP on digits with 32 copies of the
  batch): u-muP reaches 0.112 against 0.098 in float32, SP with GPT-2's init 1.39 against 0.97.
  Real FP8 products (`torch._scaled_mm`) have a test that needs a GPU; it passed on an H200.
- Alphas matter. With all at 1 the best loss of the byte-level GPT of width 256 after 80 steps is
  2.743, muP's 2.44, and it hardly falls with width. Learning rates are not the reason: at width 128
  slower norms, faster embeddings or hidden matrices leave it within 0.07, and a 4 to 16 times
  faster readout gains at most 0.2. But muP inherits constants from its base of width 32 that alphas
  of 1 do not have: logits sqrt(32) larger, attention logits sqrt(8) larger, and branches that add
  less than the embedding, attention's least. With `Alphas(res=0.48, res_attn_ratio=0.4,
  attn_softmax=2.83, loss_softmax=5.66)`, which are about these constants, the best loss falls with
  every doubling of the width, to 2.460 at 256, and the best learning rate does not move
  (sweeps/lr_width_umup.yaml). So tune alphas once at a small width, as the paper does.
"""

BOTTLENECKS = """
## Bottlenecks

A map from width into a fixed size is a readout only where what it makes is the model's output.
Inside the network it is **inward** or **latent**, and the map back to width **outward**: keys and
values whose number of heads stays, latents (MLA), adapters, squeeze-and-excite, experts of a fixed
size. Shapes do not tell these apart, so a plan runs a probe once, on the meta device where that
works, and follows what every matrix makes: it is a readout if that reaches the model's output
through no other matrix that grows, and latent if a norm takes it first. Inputs are guessed;
`example=` gives them. A model that cannot be run is read by the order and nesting of its modules,
and a warning names what was decided that way. In every case `roles={"regex": "inward"}`, `"latent"`
or `"output"` decides. The run also shows a layer's weight that is only used transposed, which is
planned by that use, and an embedding that a product in forward code reads out with, which is
refused: let a layer share it.

| role | init | sgd lr | adam lr | adam eps | muon lr |
| --- | --- | --- | --- | --- | --- |
| inward | `fan_in^-1` | `fan_in^-1` | `fan_in^-1` | 1 | `fan_in^-1/2` |
| latent | `fan_in^-1/2` | `fan_in^-1` | `fan_in^-1` | 1 | `fan_in^-1/2` |
| outward | 1 | `fan_out` | 1 | `fan_out^-1` | `fan_out^1/2` |

**The rates.** With y = W x of fixed size, Adam's update of W moves entries of y by lr m and SGD's
by lr |x|^2 = lr m, so both learn at 1/m. On the way back U of fixed fan_in has entries of size 1.

**The init.** With a std of m^-1/2, that of a hidden matrix, y keeps its size at init. But the
gradient that W passes on to x is W^T g, so what x learns from it lies along the few rows of W, and
moves y by m^1/2: y grows with width as soon as anything before it is trained. A std of 1/m is the
largest one that does not (the spectral condition, Yang, Simon and Bernstein 2023, arXiv
2310.17813). Its price: at init y is a random sum of size m^-1/2, so the bottleneck starts faint in
a wide model, and is made of what it learns. This is what a readout does, for the same reason, and
the coordinate check judges it like one: what comes out of an inward map may shrink, and may not
grow.

A norm behind W undoes the size of y, and not how fast y turns beside it. With 1/m what the norm
puts out would turn m^1/2 faster in the first steps. So a latent map starts at m^-1/2, and what is
judged is what comes out of the norm. LoRA's A is latent as well: what goes into it is frozen, and
does not align.

A head that goes on in a fixed size (ALBERT's and ELECTRA's factorised ones: width, 16, norm,
vocabulary) is a readout: nothing behind it grows, so the loss reaches it without a random map in
between. Measured on ELECTRA (64 to 512, three seeds, AdamW at 2^-8): its first map's output changes
like width^-0.02 as a readout and like width^+0.35 with the init of a hidden matrix.

**Fused maps.** Where an axis is a m + b (one key-value head beside growing queries in Falcon-7B and
GPTBigCode, the state of Mamba 2), the ratio is that of the growing part, and each slice that stays
has a role and an init of its own: inward, or latent where a norm takes it; a key and a value are
two slices, as their inits may differ. The summary has a line for it, `c_attn.weight[512:544]`, and
the check a row, `c_attn(inward)`. To find the slices, paramz runs the base and a wider probe and
looks at what the model does with each row: rows that are used apart from the others, as many of
them in both, stay. All blocks with such a tensor run, as their layouts may differ; under a depth
scheme the model itself runs, too, on the meta device, to see that a block has the layout of its
twin in the base. Where no run tells, such as with a base whose forward pass fails (fewer query
heads than key-value heads), all rows start like growing ones, and a note says so.

Under Adam and its relatives both parts want the same lr. Under SGD, Muon and others they do not,
and one tensor has one: `param_groups` refuses it and says by how much they differ, and
`split_groups` gives such a tensor to the optimizer beside Muon, at every width. So the ways out are
`split_groups`, a layer of its own for the rows that stay, or
`roles={"c_attn[.]weight$": "hidden"}`, which plans all of it as what grows. The tensor has one
epsilon, too: that of the rows that grow. Inputs that stay beside those that grow (NeRF's skip) are
warned of: their weights would need an lr of their own even under Adam.

Measured (benchmarks/fused.py: width 64 to 512, three steps, three seeds; AdamW at 2^-8, SGD at
2^-3, Muon at 2^-6): the slope of the change after three steps, with half its range over the seeds,
of the rows that stay, of those that grow, and of what goes into the layer behind; and the loss at
the smallest and the largest width. *Whole* is the plan in which all rows are planned as growing
ones.

@fused@

Planned whole, what attention puts out grows in Falcon-7B and GPT-BigCode under AdamW, SGD and Muon,
and in three of these six the widest model ends worse than the narrowest. With slices nothing grows,
and the widest model always ends better. In Mamba 2 nothing grows either way: the state's gradient
is small here beside that of the other paths.

**Other policies** are factors by name: `"mup+bottleneck-hidden"` starts all of these maps like
hidden matrices, as common code does, and `"mup+bottleneck-readout"` all of them like readouts.

At the defaults of the coordinate check (benchmarks/bottlenecks.py: AdamW at 2^-8, three steps,
three seeds), with a slope that failed or could not be told, or else the largest. A fall of
outputs before training is no error here: what an inward map makes goes like width^-1/2, and the
product of two (gate times up) like width^-1:

@checks@

Under the default what comes out of the bottleneck does not grow, and all five models pass from 64
and from 128 on. **Thin experts** pass because their router starts like a hidden matrix. Which
experts see a point follows from the order of the router's logits and not from their size, so that
with the init of a readout (`mup+moe-readout-router`) this choice turns the faster the wider the
model is, as what a norm puts out would: in the first step 18 % of the points get other experts at
width 64, 41 % at 512 and 56 % at 1024 (six seeds), and the check is undecided. Of a hidden matrix
16 to 20 % do at all of these widths. This start was made the default by a sweep whose rule of
decision was written before it ran ([how routers start](evidence.md#how-routers-start)).

**The default has a price.** What attention with a fixed number of heads adds before training fades
as width^-1/2, and with it gradients and updates all over the model: in the Llama above the own
update of a later layer falls by width^-0.44 from 128 to 1024 (eight seeds), and in a one-layer
Llama on random tokens values change like width^-0.30 in three steps (like width^-0.02 with the init
of hidden matrices). It is a start that fades and no wrong rate: with keys and values at zero at
every width these updates keep their size, which is how [the
check](coordinate_check.md#how-it-is-judged) tells the two apart.

In short runs the loss agrees, and in longer ones it does not tell the policies apart. Short: under
the default the model gets better with width, and with the init of hidden matrices it gets worse
(sweeps/kv_heads.yaml: the byte-level Llama, 150 steps of
8 x 64 bytes, AdamW, base width 64, where all of these are one model; best of a grid of octaves,
mean over three seeds, nats; the seeds draw the initial weights only). At the same width above the
base, learning rate and seed that init costs 0.05 on average, and something in 27 of 30 pairs. How
far the optimum itself moves, three seeds on this grid do not tell under either policy: losses
differ by 0.05 between seeds, as much as between octaves next to the best one.

@sweep@

Longer, 600 steps at width 256 (sweeps/kv_heads_long.yaml, mean over the same three seeds):
@long@. So what decides for the default is that nothing grows with width, not the loss.
"""

MULO = """
## muLO: learned optimizers

muLO: Thérien et al. 2024 (arXiv 2406.00153); the optimizer is in the line of small_fc_lopt: Metz et
al. 2022 (arXiv 2203.11860).

A learned optimizer (`paramz.optim.LearnedOptimizer`) maps features of each parameter, divided by
their root mean square over the tensor, to a step of size lr. Its entries' size does not move with
width, as Adam's does not, so its rules are those of the **adam** columns above, without epsilon;
`plan.param_groups(model, "learned", lr=)` applies them. It has to be meta-trained under the scheme
under which it is used (`paramz.optim.meta_train`).

Measured (benchmarks/mulo.py 200 2): the MLP on digits, meta-trained over 30 steps at widths 16 and
32, then used at width 256, 8 times the widest; loss after 30 / 120 steps:

| parametrization | meta-seed 0 | meta-seed 1 |
| --- | --- | --- |
| mup | 0.343 / 0.286 | 0.315 / 0.124 |
| sp | 1.593 / 2.952 | 0.568 / 2.717 |
"""

MEASURED = """
## Measured

Slopes of coordinate checks (docs/measure.py), log size against log scale over a factor of 8, with
95 % intervals: byte-level GPTs of width 32 (over width: 32 to 256), residual branches started at
zero but under u-muP. *Worst* is the largest slope that is judged; it passes within ±0.1, and
"UNDECIDED" means that it is outside while its interval reaches inside. *Own update* is the change
that the layers inside blocks (the experts) make by their own weights.

A scheme whose row does not pass is experimental for that optimizer and axis.

{table}

**Loops.** A block that runs several times (ALBERT, universal transformers, repeated blocks) has the
gradients of all its runs, which add up, and so do its runs at init, which are not independent. So
branches fall like 1 / loops under both schemes (for Adam as in arXiv 2606.18524; the rest is
derived here), and what follows the size of a gradient, SGD's lr and epsilon, goes by the number of
different blocks, depth / loops. One block that runs 1 to 16 times (feed-forward behind a norm,
width 64, three steps, four seeds; the largest slope of any module's change):

| optimizer, lr | mup | mup+completep | mup+depth-mup | both, as for different blocks |
| --- | --- | --- | --- | --- |
| AdamW, 2^-8 | +0.59 fail | +0.01 pass | +0.01 pass | +0.01 pass, -0.41 |
| SGD, 2^-4 | +1.05 fail | +0.02 pass | +0.02 pass | +0.95 fail, +0.61 fail |
| Muon, 2^-6 | +0.39 fail | +0.01 pass | +0.01 pass | +0.01 pass, +0.09 pass |
| K-FAC, 2^-6 | | -0.02 pass | -0.02 pass | |
| FOOF, 2^-6 | | +0.01 pass | +0.01 pass | +0.95 fail, |
| Shampoo(-1/4), 2^-6 | | +0.01 pass | +0.01 pass | |
| Shampoo(-1/2), 2^-6, eps 1e-2 | | +0.01 pass | +0.01 pass | -0.24 pass, -0.24 pass |

Two different blocks, each of which runs 1 to 16 times, do the same under AdamW and SGD. On a
GPT the best learning rate rises by 0.05 octave per doubling of the runs
([loops](evidence.md#loops-one-block-that-runs-several-times)). Weights that different blocks have
in common (one kernel for all layers, with norms of their own) count the blocks that have them.

So do other families with loops, as they are written (tests/apply/test_loop_families.py; 1 to 16
runs, width 64, three seeds, AdamW and SGD: all pass under mup+completep and fail under mup): a
looped layer of experts chosen by sigmoid gates (as in MoEUT), low-rank experts inside a shared
layer (mixture of LoRAs; its branch's end has to be declared, by a line that the error gives), a
block that a router keeps half of the tokens for (mixture of recursions), one kernel for all layers.
There the state was judged after the last run of the block: after the first of many it has moved by
1 / loops of what all of them do, for which the checks as they come fail (-0.5, found first).
The reuse of keys was not tried. MoEUT itself (arXiv 2405.16039; tests/moeut.py has its layers and
names: groups of two layers that repeat, attention whose values and outputs are experts of every
head, routers and experts as bare tensors) is read as it is under mup+moe+completep: heads are
counted apart from experts, and `ffn.values` and `attention.o` end the branches. With AdamW (2^-8,
three steps, two seeds) it passes over widths 64 to 512 (the largest slope of a change -0.12) and
fails without a rule for width; over 8 to 32 layers it
passes (+0.12) and fails under mup. (From 4 layers on it was open, +0.17, at the first of the two
layers: in the last round 3/4 of 4 layers have run there, and 31/32 of 32.) Over
4 to 32 feed-forward experts of which 2 are active it fails (+0.36 with 32 tokens in the vocabulary,
+0.40 with 1024, for labels that nothing but the token tells): every expert then sees fewer kinds of
tokens, as below. Its gates are sigmoids that do not add up to one, so keep the number of active
experts. For dictionaries
(MASA) see [reparametrizations](reparametrizations.md). Stacks in which the base shares blocks in
another way than the target are refused.

What these numbers say:

- Depth-muP under AdamW is just outside of ±0.1 from 4 blocks on and inside from 8 on, which was
  measured after that: the frozen layers inside its blocks are missing in the change of the state.
  Its theory is for branches of one layer.
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
- Where the number of active experts stays (top_k=2, 8 to 64 experts), a larger batch decides: with
  4096 tokens in place of 1024 (batch_size 64, the same check, three seeds, run after it had been
  undecided) AdamW passes under mup+moe. SGD fails: the router's own update grows like
  experts^+1.05 [+0.63, +1.47]; without a rule the mixture's change falls, experts^-0.48 [-0.67,
  -0.30]. [Why, and what it does to the best learning rate](#two-active-experts).
"""


DRIFT = """
### Transfer of the learning rate

How the best learning rate moves per doubling of the scale, in octaves, with 95 % intervals:
sweeps/lr_depth.yaml (AdamW, 40 steps, three seeds), sweeps/lr_experts.yaml (SGD, 60 steps, two
seeds; the learning rate of the experts, while the others keep 0.5) and sweeps/lr_width_umup.yaml
(AdamW, 80 steps, one seed). 0 is transfer. Over experts a first sweep moved one learning rate for
all tensors; its optimum is that of the rest of the network and stayed with and without the rule
(+0.00 [-0.24, +0.23] and -0.10 [-0.34, +0.13]).

{table}
"""


DECAYED = """\
Where decay helps, on images that training sees many times, its best value stayed from width 64 to
2048 under `lr-constant` and rose under `coupled`
([Evidence](evidence.md#digits-the-best-decay-has-an-optimum-and-it-stays-under-lr-constant)). On a
text that no step sees twice, in 1000 steps, the decay that begins to harm stayed under `coupled`
and fell under `lr-constant` ([the same page](evidence.md#weight-decay-over-width-in-part)).
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
    columns = [column for column in table.columns if column not in ("kfac", "foof")]
    for column in columns:
        header += [f"{column} lr"] + ([] if column == "sgd" else [f"{column} eps"])
    rows = []
    for role in roles:
        weight = next(rule for (_, r), rule in table.rules.items() if r == role)
        cells = [role, power(weight.init_std), power(weight.multiplier)]
        for column in columns:
            rule = table.rules.get((column, role))
            cells.append("no rule" if rule is None else power(rule.lr))
            if column != "sgd":
                cells.append("" if rule is None else power(rule.eps))
        rows.append(cells)
    facts = [f"Attention logits: {power(table.attention)}."]
    if table.branch != ONE:
        facts.append(f"Every residual branch: {power(table.branch)}.")
    notes = u_mup_notes() if table == U_MUP else ""
    return (
        f"\n## {table.name}\n\n{table.source}.\n\n{' '.join(facts)}\n\n{markdown(header, rows)}\n"
        + second_order(table, roles)
        + notes
    )


def second_order(table: Parametrization, roles: list[str]) -> str:
    """The rules of K-FAC, FOOF and Shampoo, which are printed below the others."""
    if "kfac" not in table.columns:
        return ""
    rows = []
    for role in roles:
        kfac, foof = (table.rules[column, role] for column in ("kfac", "foof"))
        cells = [kfac.lr, kfac.damping_a, kfac.damping_b, foof.lr]
        shampoo = ["no rule", "", ""]
        if ("muon", role) in table.rules:
            quarter, half = (
                table.entry(shampoo_of(e), role) for e in (Fraction(1, 2), Fraction(1))
            )
            shampoo = [power(quarter.lr), power(half.lr), power(half.eps)]
        rows.append([role, *map(power, cells), *shampoo])
    header = ["role", "kfac lr", "damping A", "damping B", "foof lr"]
    header += ["shampoo(-1/4) lr", "shampoo(-1/2) lr", "shampoo eps"]
    return f"\n{markdown(header, rows)}\n"


def u_mup_notes(depth: int = 2) -> str:
    """What u-muP's table does not say; the alphas are those of the code's docstring."""
    told = re.findall(r"^ +(\w+): (.+)$", inspect.getdoc(Alphas) or "", re.MULTILINE)
    return U_MUP_NOTES.format(
        alphas="\n".join(f"- `{name}`: {what}" for name, what in told),
        depth=depth,
        taus=", ".join(f"{tau:.3f}" for tau in taus([True, False] * depth)),
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


def bottleneck_checks(path: Path) -> str:
    """Coordinate checks of models with bottlenecks, as benchmarks/bottlenecks.py wrote them."""
    rows = [
        [
            row["model"],
            row["scheme"],
            row["widths"],
            row["outcome"],
            f"`{row['module']}` {row['quantity']}, step {row['step']}",
            f"{row['slope']:+.2f} [{row['lo']:+.2f}, {row['hi']:+.2f}]",
        ]
        for row in pd.read_csv(path).to_dict("records")
    ]
    return markdown(["model", "scheme", "widths", "outcome", "of", "slope"], rows)


def fused(path: Path) -> str:
    """What benchmarks/fused.py measured of maps with slices that stay."""
    rows = [
        [
            row["model"],
            row["scheme"],
            row["way"],
            row["optimizer"],
            *(f"{row[k]:+.2f} ± {row[f'{k}_range'] / 2:.2f}" for k in ("stays", "grows", "next")),
            f"{row['loss_64']:.3f} to {row['loss_512']:.3f}",
        ]
        for row in pd.read_csv(path).to_dict("records")
    ]
    header = ["model", "scheme", "way", "optimizer", "stay", "grow", "next layer", "loss"]
    return markdown(header, rows)


# What the rows of sweeps/kv_heads.yaml are, in the order of the page.
_KEPT = {
    "key-value heads grow": ("mup", None),
    "two at every width": ("mup", 2),
    "two at every width, `mup+bottleneck-hidden`": ("mup+bottleneck-hidden", 2),
}


def bottleneck_sweep(path: Path) -> str:
    """The best loss over the learning rate at each width, and what keeping the heads costs."""
    df = pd.read_csv(path, comment="#")
    runs = df.set_index(["seed", "lr"]).assign(log2=lambda d: np.log2(d.index.get_level_values(1)))
    rows = []
    for name, (scheme, kept) in _KEPT.items():
        own = runs[
            (runs.parametrization == scheme)
            & (runs.kv_heads.eq(kept) if kept else runs.kv_heads.isna())
        ]
        means = own.groupby(["width", "log2"]).loss.mean().unstack()
        cells = [
            f"{low:.3f} at 2^{at:.0f}"
            for low, at in zip(means.min(axis=1), means.idxmin(axis=1), strict=True)
        ]
        rows.append([name, *cells])
    return markdown(
        [
            "model",
            *(f"width {width}" for width in means.index),
        ],
        rows,
    )


def bottleneck_long(path: Path) -> str:
    """The mean losses of both policies at each learning rate, in a sentence."""
    means = pd.read_csv(path, comment="#").groupby(["lr", "parametrization"]).loss.mean().unstack()
    return ", and ".join(
        f"at 2^{np.log2(lr):.0f} {row['mup']:.3f} under the default and "
        f"{row['mup+bottleneck-hidden']:.3f} with the init of hidden matrices"
        for lr, row in means.iterrows()
    )


EXPERTS = """
## More experts

**With AdamW `mup+moe` is enough for every way of adding experts but one: where as many experts see
a token while their number grows, checks are undecided with labels drawn at random, pass with a
teacher's, and fail for MoEUT on tokens drawn at random. SGD fails there, and with finer experts,
and no power of their number would mend it ([two active experts](#two-active-experts)).**
Coordinate checks over 8x (benchmarks/experts.py: a small network, three seeds, three steps, AdamW
at 2^-8 and SGD at 2^-3; experts start at zero, as the mean of their random outputs falls like
experts^-1/2 before training, whatever the scheme), with the slope that failed or could not be
told, or else the largest:

{table}

Experts whose number follows the width in the model's code count as experts, not as width. The
published rules for these regimes (MSSP, arXiv 2605.14200, and its code) are
`mup+moe-readout-router` at a fixed number, and `mup+moe` where it grows with width; for experts of
a fixed size MSSP also starts the maps back to width sqrt(experts) larger: `mup+moe-bottleneck`.
What a share of the experts puts out is a mean of more random parts in wider models, and falls as
experts^-1/2 otherwise; a start of these maps at zero makes it void. Both routers pass wherever one
does here, and on Mixtral, Qwen2-MoE, gpt-oss, DeepSeek-V3 and Llama 4 (64 to 512; Jamba is
undecided with either). With [thin experts](#bottlenecks) only `mup+moe` does; a plan whose routers
start like readouts has a note about it. Over width the best learning rate moves alike under both
([how routers start](evidence.md#how-routers-start)). Finer experts need no name of their own: their
sizes are in their shapes. SGD has no rule for the router there.

### Two active experts

Where two experts are active while their number grows, each sees fewer tokens, and since a router
sends like to like, tokens that are more alike. SGD's rate times experts makes up for the share of
the batch that an expert sees, as long as its mean gradient keeps its size. It does not: a mean over
n tokens of gradients that have nothing in common grows as n^-1/2, so as experts^1/2, and what an
expert's tokens do have in common grows as its part of the inputs becomes smaller. How the first
step at SGD's rate times experts grows with their number, 8 to 64, on the network above
(benchmarks/experts_fixed.py; three seeds; on points of the batch, and on others):

| labels | 256 points | 2048 | 16384 | 32 experts |
| --- | --- | --- | --- | --- |
| drawn | +0.68, +0.61 | +0.60, +0.58 | +0.53, +0.51 | +0.17, +0.16 |
| a teacher's | +0.43, +0.38 | +0.36, +0.35 | +0.34, +0.34 | +0.31, +0.31 |

With a teacher's labels no batch helps, not even one that grows with the experts. So the power that
SGD would need is 0.3 to 0.8, by the data, and there is no scheme for it: groups for SGD, FOOF and
K-FAC warn. Of the theory, MSSP keeps the number of experts or lets it grow with width, and of
Complete-muE (arXiv 2605.23893), which speaks of both numbers apart, no more than the abstract was
read. The best rate, with that of experts and routers times experts^e (200 steps on fresh data, 256
points a step, two seeds, in octaves at 8, 16, 32 and 64 experts): e = 1, as in the table, -0.06,
-0.67, -1.37, -2.01; e = 1/2: -0.06, -0.40, -0.48, -0.90; e = 0: -0.06, -0.24 and -0.18 (32 experts
were not run). The losses at the best are 0.720, 0.713 and 0.723 at 64 experts. With e = 0 the rate
is perhaps that of the rest of the network.

AdamW's steps do not follow the gradient's size. With a teacher's labels its check passes (what the
mixture puts out moves like experts^+0.07, three seeds; SGD's +0.47 with the rule and -0.54
without), where it was undecided on drawn ones, +0.16, above. It fails for MoEUT on tokens that have
nothing in common ([loops](#measured), +0.4): probably because every token is a case of its own
there, and a step that goes by signs helps each the more, the fewer of them an expert sees. Let the
number of active experts grow with that of experts where you can.
"""

OPTIMIZERS = """
## Optimizers

By the names of their classes, in lower case, in torch and in the libraries that people use with it:

{table}

What is said of those of pytorch_optimizer is measured on their own steps (how these answer to the
size of gradients, epsilon, weights and tensors), and by a coordinate check of each that passes
under muP and fails under SP. NorMuon (with `update_scale="preserve_norm"`) and Dion take steps
with singular values of one size, as Muon does; AdaMuon divides every entry, and reads Adam's column
(Qiu et al. 2025, arXiv 2512.05620, table 1). That is right where gradients have a low rank: on an
MLP with 128 examples its check passes (64 to 512), on the byte-level GPT with 1024 tokens its
widest maps move like width^-0.24 with Adam's column and like width^+0.38 with Muon's, so that
neither is right there. The factors that all of these put on a matrix's step are read from the
class. torch's Adafactor takes the smaller of lr and 1 / sqrt(step): past step 1 / lr^2 of the
largest group's lr groups are no longer apart as planned, of which `plan.check` warns. An optimizer
of your own is one `paramz.Family`. These are refused:

{refused}
"""

RUNS = """
## Another batch size or number of steps

`paramz.transfer_run` multiplies hyperparameters by powers of the ratios of batch size and steps.
Most rules answer one question: another batch size at the same number of tokens, or another number
of tokens at the same batch size. `"sde+token-horizon"` answers both, and a run that changes what
the rule says nothing of is refused.

{table}

The column muon is for Muon, SOAP and Shampoo (exponents -1/4).

{sources}
"""


def optimizers() -> str:
    """Which optimizers read which column, and why some have none."""
    columns: dict[str, list[str]] = {}
    for name, known in FAMILIES.items():
        columns.setdefault(known.column, []).append(name)
    rows = [[column, ", ".join(names)] for column, names in columns.items()]
    reasons: dict[str, list[str]] = {}
    for name, reason in WITHOUT_RULE.items():
        reasons.setdefault(reason, []).append(name)
    refused = "\n".join(f"- {', '.join(names)}: {why}." for why, names in reasons.items())
    return OPTIMIZERS.format(table=markdown(["column", "optimizers"], rows), refused=refused)


def expert_checks(path: Path) -> str:
    """The checks of benchmarks/experts.py."""
    cells = [
        [
            row.regime, row.optimizer, row.scheme, row.outcome.upper(),
            f"{row.slope:+.2f} [{row.lo:+.2f}, {row.hi:+.2f}] {row.module} {row.quantity}",
        ]
        for row in pd.read_csv(path).itertuples()
    ]  # fmt: skip
    return markdown(["what grows", "optimizer", "scheme", "check", "slope"], cells)


def page() -> str:
    """The whole page."""
    decay = "\n".join(f"- `{name}` keeps {what}." for name, what in DECAYS.items())
    runs = []
    sources = []
    for name, rule in HORIZONS.items():
        sources.append(f"- `{name}` moves with {' and '.join(rule.moves)}: {rule.source}.")
        for column, horizon in rule.columns.items():
            parts = (horizon.lr, horizon.weight_decay, horizon.forgetting, horizon.eps)
            runs.append([name, column, *(power(part) for part in parts)])
    header = ["rule", "column", "lr", "weight decay", "1 - beta", "eps"]
    return (
        HEAD
        + "".join(scheme(table) for table in PARAMETRIZATIONS.values())
        + BOTTLENECKS.replace(
            "@checks@", bottleneck_checks(HERE.parent / "benchmarks/results/bottlenecks.csv")
        )
        .replace("@fused@", fused(HERE.parent / "benchmarks/results/fused.csv"))
        .replace("@sweep@", bottleneck_sweep(HERE.parent / "analysis/data/kv_heads.csv"))
        .replace("@long@", bottleneck_long(HERE.parent / "analysis/data/kv_heads_long.csv"))
        + MULO
        + MEASURED.format(table=slopes(HERE / "slopes.csv"))
        + DRIFT.format(table=drift(HERE / "drift.csv"))
        + EXPERTS.format(table=expert_checks(HERE.parent / "benchmarks/results/experts.csv"))
        + "\n## Weight decay\n\n`plan.param_groups(..., decay=)` names what stays the same in all "
        f"tensors and at every scale:\n\n{decay}\n\n"
        + DECAYED
        + optimizers()
        + RUNS.format(table=markdown(header, runs), sources="\n".join(sources))
    )


if __name__ == "__main__":
    (HERE / "parametrizations.md").write_text(page(), encoding="utf-8")
