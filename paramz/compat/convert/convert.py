"""What code, settings or a model of another package become in paramz."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paramz.compat.convert.code import Finding, lines, scan
from paramz.compat.convert.config import config_code
from paramz.compat.convert.settings import read_file, read_settings

if TYPE_CHECKING:
    from torch import nn

    from paramz.plan.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was found, and what it becomes in paramz.

    Attributes:
        kind: ``code``, ``base shapes``, ``model``, ``megatron`` or ``cerebras``.
        source: where it was found.
        findings: each use or setting, with the place, the equivalent and what changes.
        code: paramz code for the whole; empty for source code, which has a finding per line.
        notes: what a reader should know, one sentence each.
        plan: the plan of a model; None for anything else.
    """

    kind: str
    source: str
    findings: tuple[Finding, ...]
    code: str = ""
    notes: tuple[str, ...] = ()
    plan: Plan | None = None

    def text(self) -> Iterator[str]:
        """The conversion as lines to print."""
        yield from lines(list(self.findings))
        if self.plan is not None:
            yield ""
            yield str(self.plan.summary())
        if self.code:
            yield ""
            yield self.code.rstrip()
        if self.notes:
            yield ""
            yield from self.notes

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "kind": self.kind,
            "source": self.source,
            "findings": [asdict(one) for one in self.findings],
            "code": self.code,
            "notes": list(self.notes),
            "plan": None if self.plan is None else self.plan.to_json(),
        }


def convert(source: str | os.PathLike[str] | nn.Module) -> Conversion:
    """What code, settings or a model of another package become in paramz. Nothing is changed.

    Args:
        source: a folder, a ``.py`` file or a notebook that uses mup or unit_scaling (parsed, not
            run); a ``.bsh`` file; a shell script, YAML or JSON with the muP settings of Megatron-LM
            or of Cerebras' model zoo; flags themselves (``"--use-mup --hidden-size 1024 ..."``); or
            a model.

    Raises:
        ValueError: nothing is found in it, or a setting is missing; the message says what was
            looked for.
        FileNotFoundError: there is no such file.

    >>> found = convert("--use-mup --mup-base-hidden-size 64 --mup-base-head-dim 16 "
    ...     "--hidden-size 256 --num-layers 2 --num-attention-heads 16")
    >>> found.kind, "base_width=64" in found.code
    ('megatron', True)
    """
    if not isinstance(source, str | os.PathLike):
        return _convert_model(source, type(source).__name__)
    text = os.fspath(source)
    if text.lstrip().startswith("--"):
        settings = read_settings(text, "flags")
    else:
        path = Path(text)
        if path.is_dir() or path.suffix in (".py", ".ipynb"):
            if not path.exists():
                raise FileNotFoundError(f"no file {path}")
            return _convert_code(path)
        if path.suffix == ".bsh":
            # Not at the top: it loads torch, which takes seconds and only models and shapes need.
            from paramz.compat.convert.model import shapes_findings

            code, found, notes = shapes_findings(path)
            return Conversion(
                kind="base shapes",
                source=text,
                findings=tuple(found),
                code=code,
                notes=tuple(notes),
            )
        settings = read_file(path)
    code, found, notes = config_code(settings)
    return Conversion(
        kind="megatron" if settings.megatron else "cerebras",
        source=settings.source,
        findings=tuple(found),
        code=code,
        notes=tuple(notes),
    )


def _convert_code(path: Path) -> Conversion:
    found = scan(path)
    if not any(one.becomes for one in found):
        raise ValueError(f"{path} uses neither mup nor unit_scaling: nothing in it imports them")
    files = len({one.file for one in found})
    drop_in = sum(one.becomes.startswith(("import ", "from ")) for one in found)
    notes = (
        f"{len(found)} uses in {files} file{'s' * (files > 1)}. Changing the {drop_in} imports is "
        "enough to run; the other lines say what paramz does not need, or does differently",
    )
    return Conversion(kind="code", source=str(path), findings=tuple(found), notes=notes)


def _convert_model(model: nn.Module, source: str) -> Conversion:
    # Not at the top: see above.
    from paramz.compat.convert.model import equivalent_plan, model_findings

    plan = equivalent_plan(model)
    if plan.parametrization.unit_scaled:
        code = (
            "# from a plain model, whatever its layers\n"
            "plan = paramz.parametrize_(model, 'u-mup', example=batch)\n"
        )
    else:
        code = (
            "# from the plain model; build(width) returns it, at any width\n"
            "plan = paramz.parametrize_(model, 'mup', base=build, base_width=...)\n"
        )
    code += (
        "optimizer = torch.optim.AdamW(plan.param_groups(model, 'adamw', lr=...))\n"
        "\n"
        "# from this model as it is, for any optimizer\n"
        "plan = paramz.convert(model).plan\n"
    )
    return Conversion(
        kind="model",
        source=source,
        findings=tuple(model_findings(model, plan)),
        code=code,
        plan=plan,
    )
