"""Every architecture of the zoo, unmodified: roles, identity at the base, coordinate checks.

The golden tables in tests/golden were read line by line. To write them again after a change, run
``python tests/apply/test_zoo.py`` and read the difference.
"""

from __future__ import annotations

import difflib
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import zoo_torch
from torch import nn
from zoo import PLANNED, REFUSED, ZOO, Animal

import paramz
from paramz.check.run import default_loss

GOLDEN = Path(__file__).parent / "golden"
ALL = {**ZOO, **PLANNED}


def table(animal: Animal) -> str:
    """What the plan at twice the base width says of every tensor, equal blocks on one line."""
    return table_of(animal.parametrized(2 * animal.base)[1])


def table_of(plan: paramz.Plan) -> str:
    """The same of a plan."""
    lines: dict[str, None] = {}
    for row in plan.rows:
        name = re.sub(r"\b\d+\b", "#", row.name)
        shape = " x ".join(
            f"{b}>{t}" if b != t else str(b) for b, t in zip(row.base_shape, row.shape, strict=True)
        )
        tied = "".join(f" = {re.sub(r'[0-9]+', '#', alias)}" for alias in row.aliases)
        lines[f"{row.role:7} {name:58} {shape:28} {row.why}{tied}"] = None
        for part in row.slices:
            own = f"{name}[{part.index}]" if part.spans else f"{part.size} rows of {name}"
            lines[f"{part.role:7} {own:58} {part.size} stay"] = None
    for scale in plan.attention:
        module = re.sub(r"\b\d+\b", "#", scale.module)
        lines[f"set     {module}.{scale.attribute}: {scale.plain:.4g} to {scale.value:.4g}"] = None
    for path, factor in plan.multipliers.items():
        lines[f"hook    input of {path} times {factor:.4g}"] = None
    return "\n".join(line.rstrip() for line in lines) + "\n"


def golden(name: str) -> Path:
    """The file of a golden table."""
    return GOLDEN / (re.sub(r"[^a-z0-9]+", "_", name.lower()) + ".txt")


@pytest.mark.parametrize("name", ALL)
def test_roles_are_those_that_were_read(name: str) -> None:
    assert table(ALL[name]) == golden(name).read_text(encoding="utf-8")


def pasted(error: str) -> dict[str, paramz.Axes | str]:
    """The roles that an error suggests: of alternatives the first one, as they stand there."""
    found: dict[str, paramz.Axes | str] = {}
    for line in error.splitlines():
        suggestion = re.search(r"roles=(\{.*?\})(?= |$)", line)
        assert suggestion, line
        found.update(eval(suggestion[1], {"paramz": paramz}))
    return found


@pytest.mark.parametrize("name", [name for name in REFUSED if name != "wav2vec 2"])
def test_what_the_error_suggests_makes_the_plan_right(name: str) -> None:
    animal = REFUSED[name]
    with pytest.raises(ValueError) as refused:
        animal.parametrized(2 * animal.base)
    roles = pasted(str(refused.value))
    assert table(replace(animal, roles=roles)) == golden(name).read_text(encoding="utf-8")


def test_a_weight_that_torch_computes_is_planned_as_the_error_says() -> None:
    """wav2vec 2 keeps the map of its positions under torch's weight norm."""
    animal = REFUSED["wav2vec 2"]
    with pytest.raises(ValueError, match="computed by torch's WeightNorm") as refused:
        animal.parametrized(2 * animal.base)
    text = str(refused.value)
    take_off = re.search(r"torch\S*remove_parametrizations\(.*?'weight'\)", text)[0]
    put_on = re.search(r"paramz\.reparametrize_\(.*?\]\)", text)[0]

    def plain(width: int) -> nn.Module:
        model = animal.build(width)
        eval(take_off, {"torch": torch, "model": model})
        return model

    model = plain(2 * animal.base)
    plan = paramz.parametrize_(model, "mup", base=plain, base_width=animal.base)
    assert table_of(plan) == golden("wav2vec 2").read_text(encoding="utf-8")
    eval(put_on, {"paramz": paramz, "model": model})
    assert default_loss(model, animal.batch()).isfinite()


@pytest.mark.parametrize("name", ALL)
def test_a_plan_made_on_meta_has_the_same_roles(name: str) -> None:
    """No plan depends on whether the probes hold numbers, so that a run may end otherwise."""
    animal = ALL[name]
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = animal.build(2 * animal.base)
        plan = paramz.make_plan(
            model, "mup", base=animal.build, base_width=animal.base, example=animal.batch()
        )
    expected = [line.split()[:2] for line in golden(name).read_text().splitlines()]
    found = [line.split()[:2] for line in table_of(plan).splitlines()]
    assert found == expected


@pytest.mark.parametrize("name", ALL)
def test_nothing_changes_at_the_base(name: str) -> None:
    animal = ALL[name]
    torch.manual_seed(0)
    plain = animal.build(animal.base)
    torch.manual_seed(0)
    model, plan = animal.parametrized(animal.base)
    assert plan.multipliers == {}
    assert all(scale.value == scale.plain for scale in plan.attention)
    for (key, value), (other, expected) in zip(
        model.state_dict().items(), plain.state_dict().items(), strict=True
    ):
        assert key == other
        assert torch.equal(value, expected)
    losses = []
    for each in (plain, model):
        torch.manual_seed(1)
        losses.append(default_loss(each, animal.batch()))
    assert torch.equal(*losses)
    (group,) = plan.param_groups(model, "adamw", lr=1e-3)
    assert (group["lr"], group["eps"]) == (1e-3, 1e-8)


# The whole zoo is checked in the slow suite; these say that the check works at all here.
QUICK = ("GPT-2", "LSTM", "DeepONet", "Graph convolution")


def passes_and_fails(name: str) -> None:
    """The check of an architecture passes under muP and fails under SP."""
    animal = ZOO[name]
    mup = animal.verdict("mup")
    assert mup.passed, mup.sentence
    sp = animal.verdict("sp", seeds=2, steps=1)
    assert sp.sentence.startswith("FAIL"), sp.sentence


@pytest.mark.parametrize("name", QUICK)
def test_coordinates_of_a_few(name: str) -> None:
    passes_and_fails(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ZOO if name not in QUICK])
def test_coordinates_of_all(name: str) -> None:
    passes_and_fails(name)


FIXED_KEYS = (
    "Llama, fixed keys", "Qwen3, fixed keys", "Gemma 3, one key head", "DeepSeek-V3, fixed ranks",
    "gpt-oss",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FIXED_KEYS)
def test_coordinates_where_keys_values_and_latents_stay(name: str) -> None:
    verdict = PLANNED[name].verdict("mup")
    assert verdict.passed, verdict.sentence


@pytest.mark.slow
def test_few_values_with_the_init_of_a_hidden_matrix_grow() -> None:
    verdict = PLANNED["Llama, fixed keys"].verdict("mup+bottleneck-hidden")
    assert verdict.outcome == "fail", verdict.sentence


def grown_deeponet(width: int) -> nn.Module:
    """DeepONet whose latent dimension grows, in a wrapper, so that its own output is measured."""
    return nn.Sequential(zoo_torch.DeepONet(width, latent=None))


def test_a_latent_dimension_that_grows_is_caught() -> None:
    """DeepONet's dot product adds up what both networks learn: no rule of a layer mends that."""
    df = paramz.coord_check(
        grown_deeponet, ZOO["DeepONet"].batch(), widths=[64, 128, 256, 512], seeds=3
    )
    verdict = paramz.judge(df)
    assert verdict.sentence.startswith("FAIL"), verdict.sentence
    whole = {(s.module, s.quantity, s.step): s.slope for s in verdict.slopes}
    assert whole["0", "delta", 1] > 0.8  # the sum over the latent dimension: width^1


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for known, kind in ALL.items():
        file, now = golden(known), table(kind)
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        print(
            *difflib.unified_diff(
                before.splitlines(), now.splitlines(), known, known, lineterm="", n=0
            ),
            sep="\n",
        )
        file.write_text(now, encoding="utf-8")
