"""On a real Slurm: the same numbers as locally, whatever the cluster does to the jobs."""

import getpass
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import processes
from slurm_functions import walk

from paramz.check.run import coord_check
from paramz.cli.look import look_at
from paramz.slurm import Profile, queue, submit
from paramz.slurm.submission import SubmissionError
from paramz.sweeps import Store, Sweep, load, run

pytestmark = pytest.mark.slurm

SWEEPS = Path(__file__).parents[2] / "sweeps"
DEMO = SWEEPS / "demo_lm.yaml"
MLP = f"{SWEEPS / 'train_mlp.py'}:task"


def test_the_demo_has_the_numbers_of_a_local_run_bit_for_bit(lab, tmp_path):
    """The demo's own spec and training function, with fewer points and steps."""
    demo = Sweep.from_yaml(DEMO)
    axes = {"parametrization": ["sp", "mup"], "width": [32, 64], "lr": [2**-7], "seed": [0, 1]}
    base = demo.base | {"steps": 4}
    wanted = Sweep(train=demo.train, base=base, axes=axes, resources={"minutes": 5})
    lab.submit(wanted)
    local = run(wanted, tmp_path / "local", workers=2)
    lab.finish(8)
    assert (local["status"] == "ok").all() and local["loss"].nunique() > 2
    columns = [name for name in local if "seconds" not in name]
    assert load(lab.out)[columns].equals(local[columns])


@pytest.mark.parametrize(
    ("way", "function"),
    [("warned", "resumable"), ("warned", "deaf"), ("preempted", "deaf"), ("requeued", "resumable")],
)
def test_an_interrupted_trial_resumes_and_ends_bit_equal(lab, sweep, way, function):
    """Warned: USR2, as before a time limit. Preempted: SIGTERM, then SIGKILL, by a better job."""
    wanted = sweep(function, base={"steps": 100, "sleep": 0.1}, axes={"seed": [0, 1]})
    (job,) = lab.submit(wanted).jobs
    lab.wait(lambda: len(list(lab.out.glob("trials/*/checkpoint.json"))) == 2)
    match way:
        case "warned":
            subprocess.run(["scancel", "--signal=USR2", job], check=True)
        case "preempted":
            urgent = ["sbatch", "-p", "urgent", "-N4", "--exclusive", "-o", "/dev/null"]
            subprocess.run([*urgent, "--wrap=true"], check=True, stdout=subprocess.DEVNULL)
        case "requeued":
            subprocess.run(["scontrol", "requeue", job], check=True)
    lab.finish(2)
    table = load(lab.out).set_index("seed").sort_index()
    assert table["loss"].tolist() == [walk(0, 100), walk(1, 100)]
    assert table["attempt"].tolist() == [2, 2] and (table["status"] == "ok").all()
    steps = [path.read_text().splitlines() for path in lab.out.glob("trials/*/steps")]
    assert all(len(lines) <= 101 for lines in steps)  # at most the step that was cut off, twice


def test_a_script_that_does_not_know_paramz_is_warned_saves_and_resumes(lab):
    script = Path(__file__).parents[1] / "sweeps" / "train_script.py"
    words = f"python {script} --steps 80 --pause 0.1 --out {{trial.directory}} --lr {{lr}}"
    wanted = Sweep(
        command=words,
        resume="--resume {trial.directory}/ckpt.json",
        metrics={"file": "{trial.directory}/log.csv", "step": "iter", "loss": "val loss"},
        axes={"lr": [2**-6, 2**-7]},
        resources={"minutes": 3, "memory_gb": 0.1},
    )
    (job,) = lab.submit(wanted).jobs
    lab.wait(lambda: len(list(lab.out.glob("trials/*/ckpt.json"))) == 2)
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    lab.finish(2)
    table = load(lab.out).sort_values("lr")
    assert table["loss"].tolist() == pytest.approx([2.1 + 3 / 80 + 1 / 8, 2 + 3 / 80 + 1 / 8])
    for path in lab.out.glob("trials/*/log.csv"):
        steps = [line.split(",")[0] for line in path.read_text().splitlines()[1:]]
        assert steps == [str(step) for step in range(80)]


def test_a_time_limit_that_is_too_short_costs_nothing(lab, sweep):
    """Slurm's limit is a minute, and its warning comes 20 to 50 s before; the trial takes longer.

    An earlier one could come before the job has begun to listen, which ends it.
    """
    wanted = sweep("resumable", minutes=1, base={"steps": 90, "sleep": 0.5}, axes={"seed": [0]})
    lab.submit(wanted, signal_seconds=20, sbatch={"time": "1"}, slack_minutes=1)
    lab.finish(1, seconds=300)
    (row,) = load(lab.out).to_dict("records")
    assert row["loss"] == walk(0, 90) and row["attempt"] >= 2


def test_several_nodes_and_processes_with_the_variables_of_torchrun(lab, sweep):
    wanted = sweep("gather", axes={"fails": [None, 3]}, resources={"nodes": 2, "gpus": 2})
    lab.submit(wanted)
    lab.finish(2)
    well, ill = load(lab.out).sort_values("loss").to_dict("records")
    assert (well["status"], well["loss"]) == ("ok", 4.0)
    assert (ill["status"], ill["error"]) == ("failed", "rank 3: RuntimeError: no luck")
    history = lab.store.trial(well["key"]) / "history.jsonl"
    assert len(history.read_text().splitlines()) == 1  # only the first process is recorded
    lab.wait(lambda: not lab.jobs())  # the ranks that waited for the failed one end


def test_four_trials_share_a_gpu_and_two_gpus_are_used(lab, sweep):
    wanted = sweep("device", axes={"a": list(range(8))}, resources={"gpus": 0.25})
    lab.submit(wanted, pack={"workers": 8, "minutes": 3}, environment={"EXTRA": 7})
    lab.finish(8)
    table = load(lab.out)
    assert table.groupby("gpu").size().tolist() == [4, 4]
    assert set(table["threads"]) == {1.0} and set(table["extra"]) == {7.0}


def test_two_people_submitting_the_same_sweep_do_not_run_it_twice(lab, sweep):
    wanted = sweep("resumable", base={"steps": 3, "sleep": 0.1}, axes={"seed": list(range(12))})
    profile = Profile(pack={"workers": 2, "minutes": 6})
    both = [threading.Thread(target=submit, args=(wanted, profile, lab.out)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    lab.finish(12)
    assert lab.submit(wanted).packing.trials == 0
    assert all(len(p.read_text().splitlines()) == 3 for p in lab.out.glob("trials/*/steps"))


def test_what_waits_in_the_queue_is_not_submitted_again_and_can_be_cancelled(lab, sweep):
    wanted = sweep("resumable", base={"steps": 3, "sleep": 0.1}, axes={"seed": [0, 1, 2, 3]})
    hold = {"begin": "now+1hour"}
    assert lab.submit(wanted, sbatch=hold).packing.trials == 4
    again = lab.submit(wanted, sbatch=hold)
    assert (again.packing.trials, again.skipped) == (0, 4)
    paramz = [sys.executable, "-c", "from paramz.cli import main; main()"]
    said = subprocess.check_output([*paramz, "status", str(lab.out)], text=True)
    assert "4 trials: 4 queued" in said and "jobs: 1 pending" in said
    assert "jobs wait because of: 1 BeginTime" in said
    said = subprocess.check_output([*paramz, "cancel", str(lab.out)], text=True)
    assert said == "1 job cancelled\n"
    lab.wait(lambda: not lab.jobs())
    assert lab.submit(wanted).packing.trials == 4
    lab.finish(4)


def test_arrays_stay_within_the_limit_of_the_cluster(lab, sweep):
    wanted = sweep("resumable", base={"steps": 1, "sleep": 0}, axes={"seed": list(range(40))})
    packing = lab.submit(wanted, pack={"workers": 1, "minutes": 3}, sbatch={"hold": True}).packing
    assert queue.max_array_size() == 33
    assert [len(array.jobs) for array in packing.arrays] == [33, 7]
    assert len(lab.jobs()) == 40


@pytest.fixture
def most_submitted(accounting):
    """Set how many jobs the accounting lets this user submit."""
    limit = ["sacctmgr", "-i", "modify", "user", getpass.getuser(), "set"]

    def to(number):
        command = [*limit, f"MaxSubmitJobs={number}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    yield to
    to(-1)


def test_jobs_stay_within_what_the_accounting_lets_the_user_submit(lab, sweep, most_submitted):
    """The limit is enforced here: Slurm refuses what would exceed it."""
    few, wanted, more = (
        sweep("resumable", base={"steps": 1, "sleep": 0}, axes={"seed": list(range(n))})
        for n in (3, 40, 50)
    )
    profile = {"pack": {"workers": 1, "minutes": 3}, "sbatch": {"hold": True}}
    most_submitted(7)
    # Jobs that the test before this one has cancelled take a moment to leave the queue.
    lab.wait(lambda: queue.submittable() == 7, seconds=60)
    assert lab.submit(few, **profile).packing.jobs == 3
    assert queue.submittable() == 4  # what is queued counts
    packing = lab.submit(wanted, **profile).packing
    assert packing.jobs <= 4 and packing.trials == 37
    assert queue.submittable() == 7 - len(lab.jobs())
    assert lab.submit(wanted, **profile).packing.trials == 0
    most_submitted(len(lab.jobs()))
    with pytest.raises(SubmissionError, match="lets you submit no further job"):
        lab.submit(more, **profile)
    most_submitted(-1)
    assert queue.submittable() is None


def test_a_function_that_cannot_be_imported_leaves_its_trials_missing(lab, sweep, tmp_path):
    file = tmp_path / "lab.py"
    file.write_text("import no_such_package\ndef train(config): ...\n")
    wanted = sweep("resumable", axes={"seed": [0]}).model_copy(update={"train": f"{file}:train"})
    lab.submit(wanted)
    lab.wait(lambda: "No module named 'no_such_package'" in lab.logs())
    lab.wait(lambda: not lab.jobs())
    assert lab.store.finished() == set()


def test_a_coordinate_check_has_the_table_of_a_local_one(lab):
    """The verb submits, says so with its exit code, and judges when called again."""
    profile = lab.out.parent / "profile.yaml"
    profile.write_text("pack: {workers: 3, minutes: 10}\n")
    command = [sys.executable, "-c", "from paramz.cli import main; main()"]
    command += ["check", MLP, "--widths", "32,64,128,256", "--steps", "1", "--lr", "2^-8"]
    command += ["--minutes", "5", "--profile", str(profile), "--out", str(lab.out)]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 3 and "12 trials in 2 jobs" in first.stdout
    store = Store(lab.out / "coord" / "mup-adamw")
    lab.wait(lambda: len(store.finished()) == 12)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0 and "PASS: mup with adamw" in again.stdout
    local = coord_check(MLP, widths=[32, 64, 128, 256], steps=1, workers=2)
    gathered = pd.read_csv(lab.out / "coord" / "mup-adamw.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(gathered, local)


def test_ddp_and_fsdp2_on_two_nodes_train_as_one_process_does(lab, tmp_path):
    function = f"{Path(__file__).parent / 'distributed_functions.py'}:train"
    both = {"minutes": 3, "memory_gb": 1, "nodes": 2}
    wanted = Sweep(
        train=function, base={"width": 32}, axes={"kind": ["ddp", "fsdp2"]}, resources=both
    )
    lab.submit(wanted)
    single = Sweep(train=function, base={"width": 32}, axes={"kind": ["single"]})
    (alone,) = run(single, tmp_path / "single", workers=1)["loss"]
    lab.finish(2)
    table = load(lab.out)
    assert (table["status"] == "ok").all(), table["error"].tolist()
    assert table["loss"].tolist() == pytest.approx([alone, alone], rel=1e-10)


@pytest.mark.parametrize("victim", ["worker", "rank"])
def test_the_loss_of_one_process_ends_a_trial_on_two_nodes(lab, victim):
    """Worker: the one that trains on the second node. Rank: the process that watches it."""
    function = f"{Path(__file__).parent / 'distributed_functions.py'}:train"
    wanted = Sweep(
        train=function,
        base={"width": 32, "steps": 100000, "sleep": 0.05},
        axes={"kind": ["ddp" if victim == "worker" else "fsdp2"]},
        resources={"minutes": 30, "memory_gb": 1, "nodes": 2},
    )
    lab.submit(wanted)
    (job,) = (job.job for job in lab.jobs())
    lab.wait(lambda: list(lab.out.glob("trials/*/history.jsonl")))
    ours = {"SLURM_JOB_ID": job, "SLURM_PROCID": 1}
    if victim == "worker":
        (pid,) = processes(command="paramz.sweeps.running.worker", **ours)
    else:
        (pid,) = processes(command="submitit.core._submit", **ours)
    os.kill(pid, signal.SIGKILL)
    lab.wait(lambda: not lab.jobs())
    lab.wait(lambda: not processes(command="paramz.sweeps.running.worker", SLURM_JOB_ID=job))
    look = look_at(lab.store).status
    assert look.counts["ok"] == look.counts["running"] == look.counts["queued"] == 0
    if victim == "worker":
        # Whoever is first records it: the process that watches the victim, or rank 0, whose gloo
        # has lost its peer and says so as the system put it (closed, reset, broken pipe).
        (error,) = load(lab.out)["error"]
        assert "rank 1: the worker process " in error or "gloo" in error


def test_any_directory_name_survives(lab_in, sweep, tmp_path):
    """A comma ends a name for squeue, sbatch expands % and reads backslashes."""
    lab = lab_in(tmp_path / "100%n, \\lr 'é' %j")
    wanted = sweep("resumable", base={"steps": 3, "sleep": 0.1}, axes={"seed": [0, 1]})
    lab.submit(wanted, sbatch={"begin": "now+1hour"})
    assert lab.submit(wanted).packing.trials == 0 and look_at(lab.store).jobs == {"pending": 1}
    paramz = [sys.executable, "-c", "from paramz.cli import main; main()"]
    said = subprocess.check_output([*paramz, "cancel", str(lab.out)], text=True)
    assert said == "1 job cancelled\n"
    lab.wait(lambda: not lab.jobs())
    lab.submit(wanted)
    lab.finish(2)
    assert (load(lab.out)["status"] == "ok").all()
    assert list(lab.out.glob("slurm/logs/*_log.out"))


def test_a_job_that_was_just_requeued_is_live_all_the_time(lab, sweep):
    wanted = sweep("resumable", base={"steps": 10000, "sleep": 0.1}, axes={"seed": [0]})
    (job,) = lab.submit(wanted).jobs
    lab.wait(lambda: list(lab.out.glob("trials/*/checkpoint.json")))
    subprocess.run(["scontrol", "requeue", job], check=True)
    states = []
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up:
        counts = look_at(lab.store).status.counts
        states.append("queued" if counts["queued"] else "running" if counts["running"] else "lost")
        if list(lab.out.glob("trials/*/attempt-0002.json")):
            break
    assert set(states) <= {"queued", "running"} and "queued" in states
    assert lab.submit(wanted).packing.trials == 0


def test_each_node_has_a_hostname_of_its_own(cluster):
    names = subprocess.check_output(["srun", "-N4", "hostname"], text=True).split()
    assert sorted(names) == ["n0", "n1", "n2", "n3"]
