"""Run directories that cannot be written, or go away: one message, exit code 2, nothing lost."""

import errno
import os
import shutil

import pytest
from typer.testing import CliRunner

from paramz.cli import app
from paramz.sweeps import Store, load

LAB = """
import os, pathlib, shutil
def train(config, trial):
    if config.get("removes"):
        shutil.rmtree(trial.directory.parents[1])
    return {"loss": float(config["lr"])}
"""
AXES = "axes: {lr: [1, 2]}\n"


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(done):
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.exception
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    return line


@pytest.fixture
def spec(spec_file, tmp_path):
    (tmp_path / "lab.py").write_text(LAB)
    return spec_file(f"train: {tmp_path}/lab.py:train\n{AXES}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("there", [True, False], ids=["a sweep of another", "none yet"])
def test_a_directory_of_another_user_is_refused_and_left_as_it_is(spec, tmp_path, there):
    out = tmp_path / "theirs" / "run"
    out.parent.mkdir()
    assert (
        call("sweep", spec, "--workers", 1, "--out", out if there else tmp_path / "x").exit_code
        == 0
    )
    before = sorted(out.rglob("*"))
    for folder in (out.parent, *out.parent.parents):
        if len(folder.parts) > 2:
            folder.chmod(0o755)
    os.seteuid(65534)
    try:
        said = refused(call("sweep", spec, "--out", out))
    finally:
        os.seteuid(0)
    assert "Permission denied" in said and "you may not write there; choose another" in said
    assert sorted(out.rglob("*")) == before and (len(load(out)) == 2 if there else not out.exists())


def test_a_directory_that_is_removed_while_the_sweep_runs(spec, tmp_path):
    out = tmp_path / "run"
    spec.write_text(spec.read_text() + "base: {removes: true}\n")
    said = refused(call("sweep", spec, "--workers", 1, "--out", out))
    assert "it was removed meanwhile; the same command starts it again" in said
    spec.write_text(spec.read_text().replace("true", "false"))
    assert call("sweep", spec, "--workers", 1, "--out", out).exit_code == 0
    assert len(load(out)) == 2


def test_a_file_where_the_directory_should_be(spec, tmp_path):
    (tmp_path / "file").write_text("kept")
    said = refused(call("sweep", spec, "--out", tmp_path / "file" / "run"))
    assert "a file stands where a folder should be" in said
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_a_file_system_without_hard_links_is_refused_before_anything_runs(
    spec, tmp_path, monkeypatch, code
):
    def link(source, target, **_):
        raise OSError(code, os.strerror(code), source, None, target)

    monkeypatch.setattr(os, "link", link)
    said = refused(call("sweep", spec, "--out", tmp_path / "run"))
    assert "No hard links there" in said and "choose a directory on another file system" in said
    assert not list((tmp_path / "run").glob("trials/*"))
    assert os.listdir(tmp_path / "run" / "results") == []


def test_a_sweep_goes_on_in_a_directory_that_was_copied(spec, tmp_path):
    """Copies have other times of change, so that the index is in doubt."""
    assert call("sweep", spec, "--workers", 1, "--out", tmp_path / "a").exit_code == 0
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert (
        load(tmp_path / "b")
        .drop(columns="seconds")
        .equals(load(tmp_path / "a").drop(columns="seconds"))
    )
    assert Store(tmp_path / "b").finished() == Store(tmp_path / "a").finished()
