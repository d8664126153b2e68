"""Training functions without torch whose best learning rate and losses are known."""

import math
import random


def train(config, trial):
    """A parabola in log2 lr around 2^-6, above a law in width, and in steps if there are any."""
    noise = random.Random(f"{config['seed']} {config['width']}").gauss(0, 1e-4)
    center = -6 + config.get("drift", 0.0) * math.log2(config["width"] / 32)
    loss = 2 + 8 / config["width"] ** 0.7 + noise
    if "steps" in config:
        center -= config.get("moves", 0.32) * math.log2(config["steps"] / 100)
        loss += 30 / config["steps"] ** 0.8
    return {"loss": loss + 0.05 * (math.log2(config["lr"]) - center) ** 2}


def without_trial(config):
    return {"loss": config["lr"]}
