"""Specs that are broken, or made to be: one message, exit code 2, at once, and nothing written."""

import os
import time

import pytest
from typer.testing import CliRunner

from paramz.cli import app
from paramz.sweeps import Sweep
from paramz.sweeps.spec.yamlfile import SpecError

MANY = "[" + ", ".join(map(str, range(1000))) + "]"
HOSTILE = {
    "base: " + "{a: " * 60 + "1" + "}" * 60: "nested more than 40 levels deep",
    "base: {a: 'x\0'}": "not valid YAML: unacceptable character",
    "base: {[1]: 2}": "a key is a word or a number",
    "? [a]\n: 1": "a key is a word or a number",
    "axes: {lr: {log2: [0, 5000]}}": "leave the range of numbers",
    "axes: {lr: {log2: [-.inf, 1]}}": "finite number",
    "axes: {lr: {log2: [0, 1000], step: 1.0e-9}}": "steps of 1e-09 make more than",
    f"axes: {{a: {MANY}, b: {MANY}, c: {MANY}, d: {MANY}}}": "1,000,000,000,000 trials",
    "axes: {'a, b': [[1, {log2: [0, 2]}]]}": "would be a value as it stands, not a range of values",
    "axes: {lr: [{log2: [0, 2], step: 2}]}": "'lr': {'log2': [0, 2], 'step': 2} would be a value",
    "base: {lr: {log2: [0, 2]}}": "base: {'log2': [0, 2]} would be a value as it stands",
    "axes: {lr: [.nan]}": "finite numbers only, got nan",
    "axes: {lr: [1e999]}": "finite numbers only, got inf",
    "axes: {a: [1], a.b: [2]}": "'a.b' is a part of 'a', which is an axis, too",
    "axes: {a.b: [2], a: [1]}": "'a.b' is a part of 'a', which is an axis, too",
    "axes: {'x, a.b': [[1, 2]], a.b.c: [1]}": "'a.b.c' is a part of 'a.b'",
    "base: {adam.lr: 0.1, adam: {lr: 0.2}}": "two values of base are called 'adam.lr'",
    "base: {adam.lr: 0.1}\naxes: {adam.lr: [1, 2]}": "with a dot in it, which is another value",
    "base: {adam: 3}\naxes: {adam.lr: [1, 2]}": "'adam' is a single value in base",
    "axes: {a..b: [1]}": "has an empty part",
    "axes: {lr: [1, 2]}\nloss_limit: .nan": "loss_limit: Input should be a finite number",
    "axes: {lr: [1, 2]}\nrefine: {axis: lrr}": "refine.axis is 'lrr', which is no axis; the axes",
    "axes: {lr: [1, 2]}\nrefine: {axis: width}\nbase: {width: 3}": "the axes are lr",
    "axes: {lr: [1, 2]}\nhalving: {over: lrr, min_steps: 2}": "halving.over is 'lrr'",
    "axes: {w: [1]}\nresources: {minutes: " + "+".join(["w"] * 5000) + "}": "at most 500 are read",
    "axes: {w: [1]}\nresources: {minutes: " + "(" * 240 + "w" + ")" * 240 + "}": "not an arith",
    "axes: {w: [2]}\nresources: {minutes: 1e308 * 10}": "it comes to inf",
    "axes: {w: [-2]}\nresources: {minutes: w ** 0.5}": "cannot be computed",
    "resources: {silent_minutes: .inf}": "finite number",
    "train: 'a\\0.py:train'": "train: ",
    "train: \"a\\0.py:train\"": "no file",
    "train: " + "x" * 5000 + ".py:train": "cannot be looked up",
    "base: {a: !!binary gIGC}": "base.a",
    "base: {a: !!set {x}}": "base.a",
    "base: &a {a: *a}": "an alias stands inside what it stands for",
}  # fmt: skip


def refused(path, *arguments):
    begun = time.process_time()  # a busy machine does not count
    done = CliRunner().invoke(app, ["sweep", str(path), "--dry-run", *arguments])
    assert time.process_time() - begun < 10
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.exception
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_spec_is_one_message(text, spec_file):
    assert HOSTILE[text] in refused(spec_file(text))


def test_a_huge_product_under_a_small_budget_is_refused_at_once(spec_file):
    axes = f"axes: {{a: {MANY}, b: {MANY}}}\nbudget: {{trials: 10}}"
    assert "has 1000000 trials, its budget allows 10" in refused(spec_file(axes))
    cases = ", ".join(f"{n}: {MANY}" for n in range(3))
    axis = f"{{by: k, cases: {{{cases}}}}}"
    axes = f"axes: {{k: [0, 1, 2], a: {axis}, b: {axis}}}"
    said = refused(spec_file(axes + "\nbudget: {trials: 10}"))
    assert "has at least 11 trials, its budget allows 10" in said


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"base: {a: \xe9}"])
def test_a_spec_that_is_no_text(tmp_path, content):
    (tmp_path / "spec.yaml").write_bytes(content)
    assert "not text in UTF-8" in refused(tmp_path / "spec.yaml")


def test_a_spec_that_is_no_plain_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "not a plain file" in refused(tmp_path / "pipe.yaml", "--out", str(tmp_path / "run"))
    assert "a folder, not a file" in refused(tmp_path, "--out", str(tmp_path / "run"))
    assert "No such file" in refused(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    assert "expected a mapping of keys, got list" in refused(tmp_path / "list.yaml")


def test_a_training_file_that_cannot_be_parsed(spec_file, tmp_path):
    (tmp_path / "lab.py").write_text("x = " + "(" * 500 + ")" * 500)
    assert "lab.py" in refused(spec_file("train: lab.py:train\n"))
    (tmp_path / "lab.py").write_bytes(b"\xff")
    assert "not text in UTF-8" in refused(spec_file("train: lab.py:train\n"))


def test_thousands_of_mistakes_are_not_all_listed(spec_file):
    path = spec_file("\n".join(f"k{n}: 1" for n in range(3000)))
    with pytest.raises(SpecError, match="and 2960 more mistakes"):
        Sweep.from_yaml(path)


def test_names_that_only_begin_alike_are_no_shadows():
    sweep = Sweep(
        train="lab:train", base={"adam": {"eps": 1}}, axes={"a": [1], "ab.c": [2], "adam.lr": [3]}
    )
    assert list(sweep.configs()) == [{"adam": {"eps": 1, "lr": 3}, "a": 1, "ab": {"c": 2}}]
