"""How six frameworks make parameter groups of their settings, as far as exports count on it.

Each is a short rewrite of the upstream function that its comment names. `running` puts the modules
that an export imports in place, so that its text runs as it would where it is pasted.
"""

import re
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch, fnmatchcase
from types import ModuleType, SimpleNamespace

import torch
from torch import nn


@contextmanager
def running(monkeypatch, text, **modules):
    """The names that a text defines, run with modules of these names and contents."""
    for name, contents in modules.items():
        path = name.replace("__", ".")
        for end in range(1, path.count(".") + 2):
            part = ".".join(path.split(".")[:end])
            if part not in sys.modules or end == path.count(".") + 1:
                module = ModuleType(part)
                module.__dict__.update(contents if part == path else {})
                monkeypatch.setitem(sys.modules, part, module)
    space = {}
    exec(compile(text, "export", "exec"), space)
    yield SimpleNamespace(**space)


# Megatron-LM, megatron/core/optimizer/optimizer_config.py.
@dataclass(frozen=True)
class ParamWithNamePredicate:
    name: str
    fn: object = field(compare=False, hash=False)


@dataclass(frozen=True)
class ParamKey:
    name: str | tuple = ()
    with_name_predicate: ParamWithNamePredicate | None = None

    def matches(self, parameter, name):
        names = [self.name] if isinstance(self.name, str) else self.name
        if any(fnmatch(name, each) for each in names):
            return True
        return bool(self.with_name_predicate and self.with_name_predicate.fn(parameter, name))


class Tracker:
    """Counts what is drawn under each state of random numbers."""

    forks = Counter()

    @contextmanager
    def fork(self, name="model-parallel-rng"):
        Tracker.forks[name] += 1
        yield


def megatron(space, model, progress=0.0):
    """The optimizer as `_get_param_groups`, Adam and OptimizerParamScheduler leave it.

    Megatron-LM, megatron/core/optimizer/__init__.py and megatron/core/optimizer_param_scheduler.py.

    Args:
        space: what the export defines.
        model: the model chunk.
        progress: how much of a linear decay is over.
    """
    config = space.OPTIMIZER
    low = config["min_lr"]
    by_override = {}
    for name, parameter in model.named_parameters():
        joined = {}
        for key, override in space.config_overrides.items():
            if key.matches(parameter, name):
                for what, value in override.items():
                    assert joined.setdefault(what, value) == value, "Conflicting overrides"
        by_override.setdefault(tuple(sorted(joined.items())), []).append(parameter)
    groups = [
        {"params": params, "wd_mult": 1.0, "max_lr": config["lr"], "min_lr": low, **dict(override)}
        for override, params in by_override.items()
    ]
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    kind = torch.optim.AdamW if config.get("decoupled_weight_decay") else kinds[config["optimizer"]]
    options = {"lr": config["lr"], "weight_decay": config["weight_decay"]}
    options |= {"eps": config["adam_eps"]} if "adam_eps" in config else {}
    if "adam_beta1" in config:
        options["betas"] = (config["adam_beta1"], config["adam_beta2"])
    optimizer = kind(groups, **options)
    for group in optimizer.param_groups:
        group["lr"] = group["min_lr"] + (1 - progress) * (group["max_lr"] - group["min_lr"])
        group["weight_decay"] = config["weight_decay"] * group["wd_mult"]
    return optimizer


MEGATRON = {
    "megatron.core.optimizer": {"ParamKey": ParamKey},
    "megatron.core.optimizer.optimizer_config": {"ParamWithNamePredicate": ParamWithNamePredicate},
    "megatron.core.tensor_parallel.random": {
        "get_cuda_rng_tracker": Tracker,
        "get_expert_parallel_rng_tracker_name": lambda: "expert-parallel-rng",
    },
}


# torchtitan, torchtitan/components/optimizer.py.
@dataclass(kw_only=True)
class ParamGroupConfig:
    pattern: str
    optimizer_name: str
    optimizer_kwargs: dict


class OptimizersContainer:
    @dataclass(kw_only=True)
    class Config:
        param_groups: list


def torchtitan(space, model):
    """The optimizers of `OptimizersContainer._build_param_groups`: the first pattern has a name."""
    kinds = {"AdamW": torch.optim.AdamW, "Adam": torch.optim.Adam, "Muon": torch.optim.Muon}
    by_kind, claimed = {}, set()
    for config in space.optimizer.param_groups:
        found = [
            name
            for name, _ in model.named_parameters()
            if name not in claimed and re.search(config.pattern, name)
        ]
        assert found, f"pattern {config.pattern} matched no parameters"
        claimed |= set(found)
        group = {"params": [model.get_parameter(name) for name in found], **config.optimizer_kwargs}
        by_kind.setdefault(config.optimizer_name, []).append(group)
    assert claimed == {name for name, _ in model.named_parameters()}, "Parameter mismatch"
    return [kinds[kind](groups) for kind, groups in by_kind.items()]


TORCHTITAN = {
    "torchtitan.components.optimizer": {
        "ParamGroupConfig": ParamGroupConfig,
        "OptimizersContainer": OptimizersContainer,
    }
}


# OLMo-core, src/olmo_core/optim/config.py.
@dataclass
class OptimGroupOverride:
    params: list
    opts: dict


@dataclass
class AdamWConfig:
    lr: float = 1e-3
    betas: tuple = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2
    group_overrides: list = ()


def olmo_core(space, model):
    """The optimizer of `OptimConfig.build`: wildcards take what earlier ones left."""
    config, left = space.optim, dict(model.named_parameters())
    groups = []
    for override in config.group_overrides:
        groups.append({"params": [], **override.opts})
        for pattern in override.params:
            found = [name for name in left if fnmatchcase(name, pattern)]
            assert found, f"override pattern {pattern} does not match any parameters"
            groups[-1]["params"] += [left.pop(name) for name in found]
    groups += [{"params": list(left.values())}] if left else []
    options = {"lr": config.lr, "betas": config.betas, "eps": config.eps}
    return torch.optim.AdamW(groups, **options, weight_decay=config.weight_decay)


OLMO_CORE = {
    "olmo_core.optim": {"AdamWConfig": AdamWConfig, "OptimGroupOverride": OptimGroupOverride}
}


def deepspeed(space, model):
    """The optimizer of DeepSpeedEngine._configure_basic_optimizer.

    DeepSpeed, deepspeed/runtime/engine.py. FusedAdam has an option adam_w_mode for what are two
    classes in torch.
    """
    section = space.CONFIG["optimizer"]
    options = dict(section["params"])
    if section["type"] in ("Adam", "AdamW"):
        decoupled = options.pop("adam_w_mode", True) or section["type"] == "AdamW"
        known = {"lr", "bias_correction", "betas", "eps", "weight_decay", "amsgrad"}
        assert set(options) <= known, "FusedAdam got an unexpected keyword argument"
        kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    else:
        kind = getattr(torch.optim, section["type"])
    return kind(space.parameter_groups(model), **options)


class Nanochat(nn.Module):
    """nanochat's model without its forward pass: names, shapes and setup_optimizer.

    nanochat, nanochat/gpt.py. The newer one has embeddings of values and scalars per layer.
    """

    def __init__(self, width, newer=False, vocab=48, layers=2):
        super().__init__()

        def block():
            attn = {n: nn.Linear(width, width, bias=False) for n in ("c_q", "c_k", "c_v", "c_proj")}
            up, down = (
                nn.Linear(width, 4 * width, bias=False),
                nn.Linear(4 * width, width, bias=False),
            )
            mlp = {"c_fc": up, "c_proj": down}
            return nn.ModuleDict({"attn": nn.ModuleDict(attn), "mlp": nn.ModuleDict(mlp)})

        h = nn.ModuleList([block() for _ in range(layers)])
        self.transformer = nn.ModuleDict({"wte": nn.Embedding(vocab, width), "h": h})
        self.lm_head = nn.Linear(width, vocab, bias=False)
        self.newer = newer
        if newer:
            self.value_embeds = nn.ModuleDict({"1": nn.Embedding(vocab, width)})
            self.resid_lambdas = nn.Parameter(torch.ones(layers))
            self.x0_lambdas = nn.Parameter(torch.zeros(layers))

    def forward(self, ids):
        x = first = self.transformer.wte(ids)
        for i, block in enumerate(self.transformer.h):
            attn, mlp = block["attn"], block["mlp"]
            values = attn["c_v"](x)
            if self.newer:
                x = self.resid_lambdas[i] * x + self.x0_lambdas[i] * first
                values = values + self.value_embeds["1"](ids)
            q, k, v = (t.unflatten(-1, (-1, 8)) for t in (attn["c_q"](x), attn["c_k"](x), values))
            mixed = nn.functional.scaled_dot_product_attention(
                *(t.transpose(1, 2) for t in (q, k, v))
            )
            x = x + attn["c_proj"](mixed.transpose(1, 2).flatten(-2))
            x = x + mlp["c_proj"](mlp["c_fc"](x).relu().square())
        return self.lm_head(x)

    def setup_optimizer(
        self,
        unembedding_lr=0.004,
        embedding_lr=0.2,
        matrix_lr=0.02,
        weight_decay=0.0,
        scalar_lr=0.5,
    ):
        scale = (self.transformer["wte"].weight.shape[1] / 768) ** -0.5
        head, wte = [self.lm_head.weight], [self.transformer["wte"].weight]
        groups = [
            {"params": head, "lr": unembedding_lr * scale, "weight_decay": 0.01},
            {"params": wte, "lr": embedding_lr * scale, "weight_decay": 0.001},
        ]
        if self.newer:
            values = list(self.value_embeds.parameters())
            groups += [
                {"params": values, "lr": embedding_lr * scale * 0.5, "weight_decay": 0.01},
                {"params": [self.resid_lambdas], "lr": scalar_lr * 0.01, "weight_decay": 0.05},
                {"params": [self.x0_lambdas], "lr": scalar_lr, "weight_decay": 0.0},
            ]
        groups = [{"kind": "adamw", "eps": 1e-10, **group} for group in groups]
        matrices = list(self.transformer["h"].parameters())
        for shape in sorted({p.shape for p in matrices}):
            same = [p for p in matrices if p.shape == shape]
            group = {"params": same, "lr": matrix_lr, "weight_decay": weight_decay}
            groups.append({"kind": "muon", **group})
        return SimpleNamespace(param_groups=groups)
