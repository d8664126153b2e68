"""Which code a result is of: told, run again or accepted; and a project that moves keeps all."""

import json
import shutil
import subprocess
import warnings

import pytest
from typer.testing import CliRunner

from paramz.cli import app
from paramz.sweeps import Store, Sweep, load, run
from paramz.sweeps.running.runner import prepare, reopen
from paramz.sweeps.spec.code import code_of

TRAIN = "from helper import cost\n\ndef train(config):\n    return {'loss': cost(config['lr'])}\n"
HELPER = "def cost(lr):\n    return lr + 1\n"
SPEC = "train: lab.py:train\naxes: {lr: [1, 2, 3]}\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "lab.py").write_text(TRAIN)
    (folder / "helper.py").write_text(HELPER)
    (folder / "spec.yaml").write_text(SPEC)
    monkeypatch.chdir(folder)
    return folder


def sweep(folder):
    return Sweep.from_yaml(folder / "spec.yaml")


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def source(folder, **config):
    return code_of(f"{folder}/lab.py:train", config)["source"]


def test_every_result_says_of_which_code_it_is(project):
    run(sweep(project), "runs/x", workers=1)
    store = Store(project / "runs/x")
    codes = [record["code"] for record in map(store.read, store.finished())]
    assert codes == [{"source": source(project), "commit": None, "dirty": False}] * 3
    assert store.info()["source"] == source(project)


def test_the_commit_is_that_of_the_code_and_not_of_the_working_directory(project, monkeypatch):
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *command], cwd=project, check=True)
    monkeypatch.chdir(project.parent)
    code = code_of(f"{project}/lab.py:train", {})
    assert len(code["commit"]) == 40 and not code["dirty"]
    (project / "helper.py").write_text("def cost(lr):\n    return lr\n")
    assert code_of(f"{project}/lab.py:train", {}) == {
        "source": source(project),
        "commit": code["commit"],
        "dirty": True,
    }


@pytest.mark.parametrize("changed", ["lab.py", "helper.py"])
def test_a_rerun_after_a_change_says_how_many_results_are_of_older_code(project, changed):
    assert call("sweep", "spec.yaml", "--workers", 1).exit_code == 0
    with open(project / changed, "a") as file:
        file.write("\nX = 1\n")
    said = call("sweep", "spec.yaml", "--workers", 1)
    assert said.exit_code == 0 and "3 of 3 trials have a result already" in said.stderr
    assert "warning: 3 results are of other code than" in said.stderr
    assert "--rerun changed runs 3 trials again, --accept keeps what there is" in said.stderr


def test_results_of_older_code_are_run_again_or_accepted(project):
    call("sweep", "spec.yaml", "--workers", 1)
    (project / "helper.py").write_text("def cost(lr):\n    return lr + 10\n")
    (project / "spec.yaml").write_text(SPEC.replace("3]", "3, 4]"))
    mixed = call("sweep", "spec.yaml", "--workers", 1)
    assert "3 results are of other code" in mixed.stderr
    assert sorted(load("runs/spec")["loss"]) == [2, 3, 4, 14]
    both = call("sweep", "spec.yaml", "--rerun", "changed", "--accept")
    assert both.exit_code == 2 and "contradict" in both.stderr
    again = call("retry", "runs/spec", "--rerun", "changed", "--workers", 1)
    assert again.exit_code == 0 and "other code" not in again.stderr
    assert sorted(load("runs/spec")["loss"]) == [11, 12, 13, 14]
    assert len(list((project / "runs/spec").glob("trials/*/result-0001.json"))) == 3
    (project / "helper.py").write_text("def cost(lr):\n    return 10 + lr\n")
    assert "4 results are of other code" in call("sweep", "spec.yaml").stderr
    assert "other code" not in call("sweep", "spec.yaml", "--accept").stderr
    assert "other code" not in call("sweep", "spec.yaml").stderr
    (project / "helper.py").write_text("def cost(lr):\n    return 11 + lr\n")
    assert "4 results are of other code" in call("sweep", "spec.yaml").stderr


def test_a_moved_project_keeps_everything(project, tmp_path, monkeypatch):
    run(sweep(project), "runs/x", workers=1)
    moved = shutil.move(project, tmp_path / "elsewhere")
    monkeypatch.chdir(moved)
    store = Store(moved / "runs/x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reopen(store).train == f"{moved}/lab.py:train"
        assert prepare(reopen(store), store) == {}
        assert prepare(sweep(moved), store) == {}


def test_a_copied_project_keeps_everything_and_a_changed_copy_has_to_be_accepted(
    project, tmp_path, monkeypatch
):
    run(sweep(project), "runs/x", workers=1)
    copied = shutil.copytree(project, tmp_path / "elsewhere")
    monkeypatch.chdir(copied)
    store = Store(copied / "runs/x")
    assert prepare(sweep(copied), store) == {}
    (copied / "helper.py").write_text("def cost(lr):\n    return 0\n")
    store = Store(project / "runs/x")
    with pytest.raises(ValueError, match=r"holds results of .*project/lab.py:train.*or --accept"):
        prepare(sweep(copied), store)
    assert prepare(sweep(copied), store, changed="accept") == {}


def test_another_file_of_the_same_function_name_is_refused(project):
    run(sweep(project), "runs/x", workers=1)
    (project / "other.py").write_text(TRAIN + "\n")
    (project / "lab.py").unlink()
    (project / "spec.yaml").write_text(SPEC.replace("lab.py", "other.py"))
    with pytest.raises(ValueError, match="holds results of"):
        prepare(sweep(project), Store(project / "runs/x"))


def test_results_of_before_that_say_nothing_of_their_code_are_no_reason_to_warn(project):
    run(sweep(project), "runs/x", workers=1)
    for path in (project / "runs/x/results").iterdir():
        record = json.loads(path.read_text())
        del record["code"]
        path.write_text(json.dumps(record))
    (project / "helper.py").write_text("def cost(lr):\n    return 0\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prepare(sweep(project), Store(project / "runs/x")) == {}


def test_the_hash_covers_what_is_imported_and_nothing_that_is_installed(project):
    before = source(project)
    (project / "unused.py").write_text("X = 1\n")
    assert source(project) == before
    package = project / "parts" / "inner"
    package.mkdir(parents=True)
    (project / "parts/__init__.py").write_text("")
    (package / "__init__.py").write_text("from ..near import X\nfrom . import deep\n")
    (package / "deep.py").write_text("")
    (project / "parts/near.py").write_text("X = 1\n")
    (project / "helper.py").write_text(
        "import os, numpy, torch, paramz\n" + HELPER + "def later():\n    import parts.inner\n"
    )
    hashes = [source(project)]
    for name in ("parts/__init__.py", "parts/near.py", "parts/inner/deep.py"):
        (project / name).write_text("X = 2\n")
        hashes.append(source(project))
    assert len(set(hashes)) == 4
    (project / "task.py").write_text("def gpt(config): ...\n")
    named = source(project, task="task.py:gpt")
    (project / "task.py").write_text("def gpt(config): return 1\n")
    assert named != source(project, task="task.py:gpt") and named != hashes[-1]


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_packages_that_an_environment_borrows_are_installed_ones(project, monkeypatch, folder):
    """As with python -m venv --system-site-packages: torch is then that of another interpreter."""
    borrowed, own = project / "usr/lib" / folder, project / "usr/lib/mine"
    for place, name in ((borrowed, f"borrowed_{folder[0]}"), (own, f"own_{folder[0]}")):
        place.mkdir(parents=True)
        (place / f"{name}.py").write_text("X = 1\n")
        monkeypatch.syspath_prepend(str(place))
    (project / "helper.py").write_text(HELPER + f"import borrowed_{folder[0]}, own_{folder[0]}\n")
    before = source(project)
    (borrowed / f"borrowed_{folder[0]}.py").write_text("X = 2\n")
    assert source(project) == before
    (own / f"own_{folder[0]}.py").write_text("X = 2\n")
    assert source(project) != before


def test_code_that_cannot_be_read_has_no_hash(tmp_path):
    assert code_of(f"{tmp_path}/none.py:train", {})["source"] is None
    assert code_of("json:loads", {})["source"] is None
    (tmp_path / "lab.py").write_bytes(b"\xff(")
    assert code_of(f"{tmp_path}/lab.py:train", {})["source"] is not None
