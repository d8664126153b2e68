"""What an export consists of, and the parts of its text that frameworks share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paramz.anatomy.tensors import listed
from paramz.plan.export.entries import Contents, Entry, Start
from paramz.plan.export.patterns import regexes


@dataclass(frozen=True)
class ExportedGroup:
    """The tensors of one parameter group, and what the framework is told of them.

    Attributes:
        patterns: what names them: one regular expression, or wildcards (OLMo-core).
        names: the tensors that the plan has of them, in the framework's names.
        optimizer: the family's name.
        values: lr, weight_decay, eps, as numbers at the target.
    """

    patterns: tuple[str, ...]
    names: tuple[str, ...]
    optimizer: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Export:
    """A plan in a framework's own settings: ``print`` it and paste it.

    Attributes:
        framework: its name.
        text: Python that one pastes; ``missing`` is in it as comments.
        groups: the parameter groups.
        starts: pattern, kind and number of how tensors start, as in the text.
        missing: what the framework has no setting for, one sentence each, with the way out.
    """

    framework: str
    text: str
    groups: tuple[ExportedGroup, ...]
    starts: tuple[tuple[str, str, float], ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        return self.text


def merged(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries with equal optimizer and values together: the least number of groups."""
    found: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        key = (entry.settings.family.name, *sorted(entry.values.items()))
        found.setdefault(key, []).append(entry)
    return list(found.values())


def group_of(patterns: Sequence[str], entries: Sequence[Entry]) -> ExportedGroup:
    """The record of one group."""
    return ExportedGroup(
        patterns=tuple(patterns),
        names=tuple(entry.name for entry in entries),
        optimizer=entries[0].settings.family.name,
        values=entries[0].values,
    )


def by_pattern(entries: Sequence[Entry], between: str = "") -> tuple[ExportedGroup, ...]:
    """One group with one regular expression for every set of values; tied names are in it, too."""
    groups = merged(entries)
    names = [[name for e in group for name in (e.name, *e.others)] for group in groups]
    found = regexes([list(dict.fromkeys(each)) for each in names], between)
    return tuple(group_of([p], each) for p, each in zip(found, groups, strict=True))


def start_patterns(
    entries: Sequence[Entry], between: str = ""
) -> tuple[tuple[str, str, float], ...]:
    """Pattern, kind and number of how tensors start, equal ones together.

    Stds of the base are measured on samples, so those of tensors with one rule are pooled where
    they differ by no more than five times the error that samples of their sizes have.
    """
    pools: list[list[Entry]] = []
    for entry in entries:
        if entry.start is None or entry.start.kind == "own":
            continue
        pool = next((p for p in pools if _poolable(p[0].start, entry.start)), None)
        if pool is None:
            pools.append([entry])
        else:
            pool.append(entry)
    together: dict[tuple[str, float], list[str]] = {}
    for pool in pools:
        start = pool[0].start
        if start is not None:
            names = [name for entry in pool for name in (entry.name, *entry.others)]
            together.setdefault((start.kind, _pooled(pool)), []).extend(names)
    found = regexes([list(dict.fromkeys(names)) for names in together.values()], between)
    return tuple(
        (pattern, kind, number) for pattern, (kind, number) in zip(found, together, strict=True)
    )


def _poolable(a: Start | None, b: Start | None) -> bool:
    if a is None or b is None or a.kind != b.kind:
        return False
    if a.kind == "constant":
        return a.number == b.number
    if a.rule != b.rule or min(a.size, b.size) < 100:
        return a == b  # the std of a few entries says little of another tensor's
    error = a.number * (0.5 / a.size + 0.5 / b.size) ** 0.5
    return bool(abs(a.number - b.number) <= 5 * error)


def _pooled(pool: Iterable[Entry]) -> float:
    starts = [entry.start for entry in pool if entry.start is not None]
    if starts[0].kind == "constant":
        return starts[0].number
    entries = sum(start.size for start in starts)
    square = sum(start.number**2 * start.size for start in starts) / entries
    return float(f"{square**0.5:.4g}")


def no_start(entries: Sequence[Entry]) -> list[str]:
    """What to say of tensors that `start_` does not fill, each with the way out."""
    said = []
    names = [entry.name for entry in entries if entry.start is None]
    if names:
        said.append(
            f"init of {listed(names, 3)}: the plan holds none, because it was made without "
            "measuring the base. Make it with paramz.parametrize_ on a freshly built model"
        )
    own: dict[float, list[str]] = {}
    for entry in entries:
        if entry.start is not None and entry.start.kind == "own":
            own.setdefault(entry.start.number, []).append(entry.name)
    for factor, some in own.items():
        then = "" if factor == 1.0 else f", and multiply them by {factor:.6g}"
        said.append(
            f"init of {listed(some, 3)}: in the base they are no draws around zero, so start_ "
            f"leaves them. Fill them as the model's own code does{then}"
        )
    return said


def heading(framework: str, contents: Contents, groups: int, missing: Sequence[str]) -> str:
    """The comments on top of the text: what it is, and what is not in it."""
    lines = [
        f"# {framework}, by paramz: {contents.title}",
        f"# {len(contents.entries)} tensors in {groups} groups, with the values of the target.",
    ]
    if missing:
        lines.append(f"# {framework} has no setting for:")
        lines += [f"#   - {each}" for each in missing]
    return "\n".join(lines) + "\n"


def starts_code(starts: Sequence[tuple[str, str, float]], around: str = "") -> str:
    """Code that draws every tensor as the plan starts it.

    Args:
        starts: pattern, kind and number.
        around: a line ``with ...:`` around the drawing, indented as in the function.
    """
    lines = "".join(f"    ({written(p)}, {kind!r}, {x!r}),\n" for p, kind, x in starts)
    deeper = "    " if around else ""
    return (
        "# How tensors start: pattern of names, kind, and std (of a constant: the value).\n"
        f"STARTS = [\n{lines}]\n\n\n"
        "@torch.no_grad()\n"
        "def start_(model):\n"
        '    """Draw every tensor as the plan starts it: after building, before training."""\n'
        "    for name, parameter in model.named_parameters():\n"
        "        found = [(kind, x) for p, kind, x in STARTS if re.fullmatch(p, name)]\n"
        "        for kind, x in found:\n"
        + (f"            {around}\n" if around else "")
        + f'            {deeper}if kind == "constant":\n'
        f"            {deeper}    parameter.fill_(x)\n"
        f'            {deeper}elif kind == "uniform":\n'
        f"            {deeper}    parameter.uniform_(-(3**0.5) * x, 3**0.5 * x)\n"
        f"            {deeper}else:\n"
        f"            {deeper}    parameter.normal_(0.0, x)\n"
        "    for module in model.modules():\n"
        "        if isinstance(module, (torch.nn.Embedding, torch.nn.EmbeddingBag)):\n"
        "            if module.padding_idx is not None:\n"
        "                module.weight[module.padding_idx].zero_()\n"
    )


def written(pattern: str) -> str:
    r"""A pattern as a raw string of Python.

    >>> print(written(r"h\.\d+"))
    r'h\.\d+'
    """
    return f"r'{pattern}'"


def call(name: str, values: Mapping[str, Any]) -> str:
    """A call with keyword arguments, as text.

    >>> call("dict", {"lr": 0.1})
    'dict(lr=0.1)'
    """
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in values.items())})"


def known_optimizer(framework: str, contents: Contents, known: Mapping[str, str]) -> str:
    """The framework's name of the one optimizer that the export is for.

    Raises:
        ValueError: there are two, or the framework does not have it.
    """
    if len(contents.settings) > 1:
        raise ValueError(
            f"the export to {framework} is for one optimizer; two (muon=dict(...), "
            "adamw=dict(...)) can go to torchtitan and nanochat"
        )
    family = contents.settings[0].family.name
    if family not in known:
        raise ValueError(
            f"{framework} is exported to with {', '.join(known)}, not with {family}: take "
            "plan.param_groups(model, ...) into your own training loop, or choose one of those"
        )
    return known[family]


def unknown_options(contents: Contents, known: Sequence[str]) -> list[str]:
    """What to say of options that the user gave and the framework's settings do not have."""
    return [
        f"{name}={value!r} of {settings.family.name}: an option that it does not pass on"
        for settings in contents.settings
        for name, value in settings.options.items()
        if name not in known
    ]
