"""Training functions without torch, named by path in the tests' specs."""

import json
import math
import os
import random
import signal
import time


def train(config, trial):
    """A parabola in log2 lr whose optimum does not move with width."""
    with open(trial.directory / "ran", "a") as file:
        file.write("x")
    time.sleep(config.get("sleep", 0))
    return {"loss": (math.log2(config["lr"]) + 3) ** 2 + 1 / config["width"]}


def one_argument(config):
    return {"loss": config["lr"]}


def faulty(config, trial):
    """Fails in the way that its config names."""
    match config["fault"]:
        case "raise":
            raise RuntimeError(f"no luck with {os.environ.get('LAB_TOKEN')}")
        case "exit":
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(3600)
        case "chatty hang":
            while True:
                trial.log(0, loss=1.0)
                time.sleep(0.05)
        case "nan":
            return {"loss": math.nan, "accuracy": 0.5}
        case "log nan":
            trial.log(3, loss=math.inf)
        case "high":
            trial.log(3, loss=1e6)
        case "no loss":
            return {"accuracy": 1.0}
        case "text":
            return {"loss": "low"}
        case "environment":
            os.environ["LEFT_BEHIND"] = "1"
    return {"loss": random.random(), "left": float("LEFT_BEHIND" in os.environ)}


def resumable(config, trial):
    """A random walk that saves itself whenever asked to stop, and every step.

    While there is a file "hold" in the directory of the sweep, it stays at a step.
    """
    hold = trial.directory.parents[1] / "hold"
    saved = trial.directory / "checkpoint.json"
    step, position = json.loads(saved.read_text()) if saved.exists() else (0, 0.0)
    while step < config["steps"]:
        rng = random.Random(f"{config['seed']} {step}")
        position, step = position + rng.gauss(0, 1), step + 1
        trial.log(step, loss=abs(position))
        draft = saved.with_suffix(".tmp")
        draft.write_text(json.dumps([step, position]))
        draft.replace(saved)
        while hold.exists() and not trial.should_stop():
            time.sleep(0.01)
        if trial.should_stop():
            return {}
    return {"loss": abs(position), "attempt": trial.attempt}


def curve(config, trial):
    """A loss that falls with the steps towards what its lr is worth; slow ones show early."""
    for step in range(1, 82):
        time.sleep(0.002)
        trial.log(step, loss=abs(math.log2(config["lr"]) + 5) + config["width"] + 1 / step)
    return {"loss": abs(math.log2(config["lr"]) + 5) + config["width"]}


def leaky(config, trial):
    """Fail with a message that repeats a secret of the environment, as HTTP clients do."""
    raise RuntimeError(f"401 for https://{os.environ['LAB_API_KEY']}@tracker")
