"""Training functions without torch, named by path in the tests' sweeps."""

import json
import os
import random
import socket
import time


def walk(seed, steps):
    """Where the random walk of a seed must end, whatever happened to the trial on its way."""
    position = 0.0
    for step in range(steps):
        position += random.Random(f"{seed} {step}").gauss(0, 1)
    return abs(position)


def resumable(config, trial):
    """A random walk that saves itself after every step and looks whether to stop.

    With a ``gate`` in its config it waits half way until there is a file of this name.
    """
    saved = trial.directory / "checkpoint.json"
    step, position = json.loads(saved.read_text()) if saved.exists() else (0, 0.0)
    while step < config["steps"]:
        while step == config["steps"] // 2 and not os.path.exists(config.get("gate") or "/"):
            time.sleep(0.1)
            if trial.should_stop():
                return {}
        position += random.Random(f"{config['seed']} {step}").gauss(0, 1)
        step += 1
        time.sleep(config["sleep"])
        with open(trial.directory / "steps", "a") as file:
            file.write(f"{os.getpid()} {step}\n")
        draft = saved.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps([step, position]))
        draft.replace(saved)
        if trial.should_stop():
            return {}
    return {"loss": abs(position), "attempt": trial.attempt}


def deaf(config, trial):
    """The same, saving itself but never asking whether to stop."""
    asking = trial.should_stop
    trial.should_stop = lambda: False
    try:
        return resumable(config, trial)
    finally:
        trial.should_stop = asking


def gather(config, trial):
    """Several processes: each sends its rank to the first, as torch's env:// start would."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    here = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    trial.log(0, rank=rank)
    if rank == config["fails"]:
        raise RuntimeError("no luck")
    if rank:
        for _ in range(600):
            try:
                with socket.create_connection(here, timeout=30) as server:
                    server.sendall(bytes([rank, int(os.environ["LOCAL_RANK"])]))
                return {"loss": 0.0}
            except ConnectionRefusedError:
                time.sleep(0.1)
        raise TimeoutError("rank 0 does not answer")
    with socket.create_server(("", here[1])) as server:
        seen = set()
        for _ in range(world - 1):
            client, _ = server.accept()
            with client:
                seen.add(tuple(client.recv(2)))
    assert seen == {(r, r % int(os.environ["LOCAL_WORLD_SIZE"])) for r in range(1, world)}
    return {"loss": float(world)}


def device(config, trial):
    """Which GPU the trial sees, and the threads that it is given."""
    time.sleep(1)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return {
        "loss": 0.0,
        "gpu": float(visible or -1),
        "threads": float(os.environ["OMP_NUM_THREADS"]),
        "extra": float(os.environ.get("EXTRA", "0")),
    }
