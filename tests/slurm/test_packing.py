"""Packing and dry runs: no Slurm is needed for these."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paramz.cli import app
from paramz.slurm import Profile, pack
from paramz.slurm.packing import sbatch_text
from paramz.sweeps import Sweep
from paramz.sweeps.spec.yamlfile import SpecError

ROOT = Path(__file__).parents[2]


def packed(profile=None, axes=None, max_array=None, **spec):
    axes = axes or {"width": [64, 128], "lr": {"log2": [-11, -4]}, "seed": [0, 1]}
    spec.setdefault("resources", {"minutes": 10})
    sweep = Sweep(train="lab:train", axes=axes, **spec)
    return pack(sweep, Profile(**(profile or {})), sweep.trials, max_array)


@pytest.mark.parametrize("spec", sorted(ROOT.glob("sweeps/*.yaml")), ids=lambda path: path.stem)
def test_the_sweeps_that_ship_fit_the_profile_that_ships(spec):
    sweep = Sweep.from_yaml(spec)
    made = pack(sweep, Profile.from_yaml(ROOT / "slurm" / "cpu.yaml"), sweep.trials)
    assert made.trials == len(sweep.trials) > 0
    assert max(array.minutes for array in made.arrays) <= 2 * 60


def test_every_trial_is_in_exactly_one_job():
    made = packed({"pack": {"workers": 3, "minutes": 20}})
    keys = [key for array in made.arrays for job in array.jobs for key in job]
    assert len(keys) == len(set(keys)) == made.trials == 32


def test_a_job_takes_as_many_rounds_as_fit_into_its_time():
    (array,) = packed({"pack": {"workers": 4, "minutes": 25}, "slack_minutes": 5}).arrays
    assert [len(job) for job in array.jobs] == [8, 8, 8, 8]
    assert (array.workers, array.minutes, array.cpus) == (4, 25, 4)


def test_jobs_stay_within_what_the_user_may_submit():
    sweep = Sweep(
        train="lab:train", axes={"seed": list(range(100))}, resources={"minutes": "1 + seed % 2"}
    )
    for allowed in (3, 10, 99):
        made = pack(sweep, Profile(pack={"minutes": 1}), sweep.trials, max_jobs=allowed)
        assert made.trials == 100 and made.jobs <= allowed


def test_trials_of_different_needs_do_not_share_a_job():
    resources = {"minutes": "width / 8", "gpus": "width // 128"}
    made = packed({"pack": {"workers": 2, "minutes": 16}}, resources=resources)
    assert [(a.need.minutes, a.gpus, a.workers, len(a.jobs)) for a in made.arrays] == [
        (8, 0, 2, 4),
        (16, 2, 2, 8),
    ]
    assert made.gpu_hours == pytest.approx(8 * 2 * 21 / 60)


def test_trials_share_a_gpu_by_fractions():
    resources = {"minutes": 5, "gpus": 0.25}
    (array,) = packed({"pack": {"workers": 8, "minutes": 5}}, resources=resources).arrays
    assert (array.workers, array.gpus, len(array.jobs)) == (8, 2, 4)


def test_trials_of_many_processes_have_a_job_each():
    resources = {"minutes": 5, "gpus": 8, "nodes": 2, "cpus": 4}
    made = packed({"pack": {"workers": 8}}, resources=resources)
    (array,) = made.arrays
    text = sbatch_text(array, Profile(gpu_type="h100"), "sweep", "logs")
    assert (array.workers, len(array.jobs), array.gpus) == (1, 32, 8)
    for line in ("--nodes=2", "--ntasks-per-node=8", "--gres=gpu:h100:8", "--cpus-per-task=4"):
        assert f"#SBATCH {line}\n" in text
    assert "--kill-on-bad-exit=1" in text


def test_arrays_and_jobs_stay_within_the_limits():
    made = packed({"pack": {"minutes": 10}, "max_jobs": 16}, max_array=7)
    assert [len(array.jobs) for array in made.arrays] == [7, 7, 2]
    assert {array.minutes for array in made.arrays} == {25}  # two rounds and the slack


def test_100_000_trials_in_arrays_within_the_limits():
    axes = {
        "width": [64, 128, 256, 512, 1024],
        "lr": {"log2": [-12, -3]},
        "seed": list(range(2000)),
    }
    profile = {"pack": {"workers": 8, "minutes": 120}, "max_jobs": 500}
    made = packed(profile, axes, max_array=101, resources={"minutes": "width / 64"})
    assert made.trials == 100_000 and made.jobs <= 500
    assert max(len(array.jobs) for array in made.arrays) <= 101


def test_a_budget_of_hours_is_kept():
    budget = {"gpu_hours": 5}
    with pytest.raises(ValueError, match=r"may take 8.0 gpu-hours by their .* allows 5"):
        packed(resources={"minutes": 10, "gpus": 1}, budget=budget, profile={"slack_minutes": 5,
             "pack": {"minutes": 10}})  # fmt: skip


def test_slurm_asks_for_a_time_limit():
    with pytest.raises(ValueError, match="Slurm needs a time limit: give resources.minutes"):
        packed(resources={})


def test_whole_gpus_above_one():
    with pytest.raises(ValueError, match="a fraction of one GPU or a whole number of GPUs"):
        packed(resources={"minutes": 1, "gpus": 1.5})


def test_a_profile_says_what_it_does_not_know(tmp_path):
    path = tmp_path / "h100.yaml"
    path.write_text("partition: gpu\npack: {worker: 3}\ntime: 10\n")
    with pytest.raises(SpecError) as caught:
        Profile.from_yaml(path)
    first, second = str(caught.value).splitlines()
    assert first == f"{path}:2: unknown key 'pack.worker'; known keys: workers, minutes"
    assert second.startswith(f"{path}:3: unknown key 'time'; known keys: partition, account")


def test_the_script_carries_the_profile():
    profile = Profile(
        partition="gpu",
        account="lab",
        setup=["module load cuda"],
        environment={"HF_HOME": "/scratch/it's"},
        container="lab.sqsh",
        sbatch={"licenses": "x", "mail-type": "END"},
        signal_seconds=300,
    )
    (array,) = packed({"pack": {"minutes": 1000}}).arrays
    text = sbatch_text(array, profile, "sweep", "logs")
    for line in ("--partition=gpu", "--account=lab", "--licenses=x", "--mail-type=END"):
        assert f"#SBATCH {line}\n" in text
    assert "#SBATCH --signal=USR2@300\n" in text and "#SBATCH --requeue\n" in text
    assert "export HF_HOME='/scratch/it'\\''s'\nmodule load cuda\n" in text
    assert "--container-image=lab.sqsh" in text


def test_the_warning_comes_after_the_time_of_the_trials():
    """Slurm may send it a minute too early."""
    for seconds, minutes in ((120, 15), (600, 21)):
        made = packed({"pack": {"minutes": 10}, "signal_seconds": seconds})
        assert {array.minutes for array in made.arrays} == {minutes}


def test_dry_run_needs_no_slurm_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    (tmp_path / "lab.py").write_text("def train(config): ...\n")
    (tmp_path / "spec.yaml").write_text(
        "train: lab.py:train\naxes: {width: [64, 128]}\nresources: {minutes: width / 2}\n"
    )
    (tmp_path / "site.yaml").write_text("partition: gpu\n")
    before = sorted(tmp_path.iterdir())
    command = ["sweep", f"{tmp_path}/spec.yaml", "--profile", f"{tmp_path}/site.yaml", "--dry-run"]
    command += ["--out", f"{tmp_path}/run"]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0
    assert shown.stdout.count("#SBATCH --partition=gpu") == 2
    assert "2 trials in 2 jobs in 2 arrays, at most 0.0 GPU-hours" in shown.stdout
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert [array["minutes"] for array in found["arrays"]] == [32 + 5, 64 + 5]
    assert sorted(tmp_path.iterdir()) == before


def test_submitting_without_slurm_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    (tmp_path / "lab.py").write_text("def train(config): ...\n")
    (tmp_path / "spec.yaml").write_text("train: lab.py:train\nresources: {minutes: 1}\n")
    (tmp_path / "site.yaml").write_text("partition: gpu\n")
    command = ["sweep", f"{tmp_path}/spec.yaml", "--profile", f"{tmp_path}/site.yaml"]
    said = CliRunner().invoke(app, [*command, "--out", f"{tmp_path}/run"])
    assert said.exit_code == 2
    assert said.stderr == "error: no command squeue: is this a machine of the cluster?\n"
    assert not (tmp_path / "run").exists()
