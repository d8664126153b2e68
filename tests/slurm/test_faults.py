"""200 trials on virtual nodes while everything that can break is broken, at random.

PARAMZ_FAULTS sets the number of faults, each of which must hit. Most trials wait half way until all
have come, so that there is always something to hit, however fast or slow the machine is.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import TESTBED, processes
from slurm_functions import walk

from paramz.cli.look import look_at
from paramz.slurm.queue import SlurmError, cancel
from paramz.sweeps import load
from paramz.sweeps.store.attempt import STALE, holder

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.filterwarnings("ignore:.*moved to.*quarantine"),
]

TRIALS = 200
FAULTS = int(os.environ.get("PARAMZ_FAULTS", "20"))
STEPS, SLEEP = 12, 0.2
FREE = 60  # trials that do not wait
PACKING = {"pack": {"workers": 4, "minutes": 60}, "array_parallelism": 12}


class Faults:
    """Ways to hurt a running sweep; each is tried on a random victim."""

    def __init__(self, lab, cluster, keys):
        self.lab, self.root, self.keys = lab, cluster, sorted(keys)
        self.rng = random.Random(0)
        self.done = []
        self.broken = set()

    def jobs(self):
        return sorted(job.job for job in self.lab.jobs() if job.state == "RUNNING")

    def scancel(self):
        subprocess.run(["scancel", self.rng.choice(self.jobs())], check=True)

    def requeue(self):
        subprocess.run(["scontrol", "requeue", self.rng.choice(self.jobs())], check=True)

    def kill_worker(self):
        workers = processes(command="paramz.sweeps.running.worker", TRIALS_OF=str(self.lab.out))
        os.kill(self.rng.choice(workers), signal.SIGKILL)

    def kill_pool(self):
        """The whole job dies, as when a node is lost."""
        running = filter(None, (holder(self.lab.store.trial(key)) for key in self.keys))
        os.kill(self.rng.choice([attempt["pid"] for attempt in running]), signal.SIGKILL)

    def restart_node(self):
        name = f"n{self.rng.randrange(4)}"
        self._kill(self.root / "run" / f"slurmd.{name}.pid")
        time.sleep(1)
        subprocess.run([TESTBED / "node", name], check=True)

    def lose_node(self):
        """Slurm loses sight of a node whose job lives on, and starts the job elsewhere."""
        job = self.rng.choice(self.jobs())
        name = subprocess.check_output(["squeue", "-h", "-j", job, "-o", "%N"], text=True).strip()
        node = ["scontrol", "update", f"nodename={name}"]
        self._kill(self.root / "run" / f"slurmd.{name}.pid", signal.SIGKILL)
        try:
            subprocess.run([*node, "state=down", "reason=lost"], check=True)
            time.sleep(20)
        finally:
            subprocess.run([TESTBED / "node", name], check=True)
            subprocess.run([*node, "state=resume"], check=True)

    def suspend(self):
        job = self.rng.choice(self.jobs())
        subprocess.run(["scontrol", "suspend", job], check=True)
        time.sleep(6)
        subprocess.run(["scontrol", "resume", job], check=True)

    def restart_controller(self):
        self._kill(self.root / "run" / "slurmctld.pid")
        time.sleep(2)
        subprocess.run(["slurmctld"], check=True, stdout=subprocess.DEVNULL)

    def half_written(self):
        """Some result files lose their end, others are garbage from the start."""
        for path in self.rng.sample(sorted(self.lab.store.results.glob("*.json")), 3):
            self.broken.add(path.stem)
            path.write_text(path.read_text()[: self.rng.randrange(100)])
        for key in self.rng.sample(self.keys, 3):
            if not self.lab.store.result(key).exists():
                self.broken.add(key)
                self.lab.store.result(key).write_text('{"key": ')

    def full_disk(self):
        filler = self.lab.out / "filler"
        try:
            with open(filler, "wb") as file:
                while True:
                    file.write(b"x" * 4096)
                    file.flush()
        except OSError:
            time.sleep(4)
        finally:
            filler.unlink()

    @staticmethod
    def _kill(pidfile, number=signal.SIGTERM):
        pid = int(pidfile.read_text())
        os.kill(pid, number)
        give_up = time.monotonic() + 20
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < give_up:
            time.sleep(0.1)

    def inject(self, name):
        try:
            getattr(self, name)()
        except (IndexError, ValueError, SlurmError, subprocess.CalledProcessError, OSError):
            return False  # no victim at this moment, or the controller is away
        self.done.append(name)
        return True


class Looks(threading.Thread):
    """Looks at the sweep all the time, and compares what it says with processes and files."""

    def __init__(self, lab, keys, broken):
        super().__init__(daemon=True)
        self.lab, self.keys = lab, sorted(keys)
        self.broken = broken  # keys whose results were broken, perhaps while a look was at them
        self.over = threading.Event()
        self.number, self.wrong = 0, []

    def run(self):
        while not self.over.wait(2):
            try:
                self._look()
            except Exception as error:  # a thread's own exceptions would not fail the test
                self.wrong.append(repr(error))

    def _look(self):
        finished, alive = self.lab.store.finished(), self._alive()
        found = look_at(self.lab.store).status
        finished_later, alive_later = self.lab.store.finished(), self._alive()
        results = sum(found.counts[name] for name in ("ok", "failed", "diverged", "stopped"))
        running = {trial["key"] for trial in found.running}
        self.number += 1
        if sum(found.counts.values()) != TRIALS:
            self.wrong.append(f"{found.counts} are not {TRIALS}")
        sound = finished & finished_later - set(self.broken)
        if not len(sound) <= results <= len(finished | finished_later):
            self.wrong.append(f"{results} results of {len(finished)} to {len(finished_later)}")
        both = {key for key in alive if alive[key] == alive_later.get(key)} - finished_later
        if not both <= running:
            self.wrong.append(f"run, but are not said to: {both - running}")
        unheard = {key for key in running - alive.keys() - alive_later.keys() if self._silent(key)}
        if unheard:
            self.wrong.append(f"are said to run, but do not: {unheard}")

    def _alive(self):
        """The number of the attempt of each trial that a process of this machine is making."""
        found = {}
        for key in self.keys:
            files = sorted(self.lab.store.trial(key).glob("attempt-*.json"))
            try:
                last = json.loads(files[-1].read_text()) if files else {"ended": 0}
                stat = Path(f"/proc/{last['pid']}/stat").read_text() if "ended" not in last else ""
            except (OSError, ValueError):
                continue
            if stat and stat.rpartition(")")[2].split()[19] == last["born"]:
                found[key] = last["number"]
        return found

    def _silent(self, key):
        (*_, last) = sorted(self.lab.store.trial(key).glob("attempt-*.json"))
        return time.time() - last.stat().st_mtime > STALE + 10


@contextmanager
def small_disk(cluster, name):
    """A folder on the small disk of the testbed, if this user could mount it."""
    disk = cluster / "disk"
    folder = disk / name
    folder.mkdir(parents=True)
    try:
        yield folder, os.path.ismount(disk)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def settle(lab, seconds):
    """Wait until no job is left; a controller that is away is not the end."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        try:
            if not lab.jobs():
                return
        except SlurmError:
            pass
        time.sleep(1)
    cancel([job.job for job in lab.jobs()])
    lab.wait(lambda: not lab.jobs())


def plan_of_faults(mounted):
    names = ["scancel", "requeue", "kill_worker", "kill_pool", "suspend", "restart_node"]
    names += ["restart_controller", "half_written"] + ["full_disk"] * mounted
    return ["lose_node", *(names * FAULTS)[: FAULTS - 1]]


def test_every_trial_ends_with_one_valid_result_whatever_happens(
    lab_in, cluster, sweep, tmp_path, monkeypatch
):
    gate = str(tmp_path / "gate")
    wanted = sweep(
        "resumable",
        minutes=20,
        base={"steps": STEPS, "sleep": SLEEP},
        axes={"gate, seed": [[None if n < FREE else gate, n] for n in range(TRIALS)]},
    )
    with small_disk(cluster, tmp_path.name) as (folder, mounted):
        lab = lab_in(folder / "run")
        monkeypatch.setenv("TRIALS_OF", str(lab.out))  # jobs and workers inherit it
        lab.submit(wanted, **PACKING)
        faults = Faults(lab, cluster, wanted.trials)
        looks = Looks(lab, wanted.trials, faults.broken)
        lab.wait(lambda: len(lab.store.finished()) >= 5)
        looks.start()
        for name in plan_of_faults(mounted):
            for _ in range(30):  # the job that a fault chose may have ended, or none runs yet
                if not lab.jobs_or_silence():
                    lab.submit(wanted, **PACKING)
                if faults.inject(name):
                    break
                time.sleep(2)
            time.sleep(1)
        Path(gate).touch()
        settle(lab, 240)
        first = load(lab.out)
        assert set(first["key"]) <= set(wanted.trials) and first["key"].is_unique
        for _ in range(4):  # resubmitting completes the rest
            if not lab.submit(wanted, **PACKING).packing.trials:
                break
            settle(lab, 300)
        looks.over.set()
        looks.join()
        table = load(lab.out).set_index("seed").sort_index()
        assert set(table["key"]) == set(wanted.trials), lab.logs()
        for key in wanted.trials:
            assert_never_run_by_two_at_once(lab.store.trial(key))
        quarantined = {path.stem.partition(".")[0] for path in (lab.out / "quarantine").iterdir()}
    print(len(faults.done), "faults:", faults.done, looks.number, "looks")
    assert table.index.tolist() == list(range(TRIALS))
    assert (table["status"] == "ok").all()
    assert table["loss"].tolist() == [walk(seed, STEPS) for seed in range(TRIALS)]
    assert quarantined <= faults.broken
    assert looks.number > 10 and not looks.wrong, looks.wrong
    assert faults.done == plan_of_faults(mounted)


def assert_never_run_by_two_at_once(folder):
    """Each process appears in the trial's own log of steps in one unbroken run."""
    pids = [line.split()[0] for line in (folder / "steps").read_text().splitlines()]
    runs = [pid for pid, before in zip(pids, [None, *pids], strict=False) if pid != before]
    assert len(runs) == len(set(runs)), (folder, runs)
