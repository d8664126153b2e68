"""Every public name of unit_scaling is there with its signature, or left out with a reason."""

import importlib
import inspect
import types

import pytest

import paramz.compat.unit_scaling as uu

peer = pytest.importorskip("unit_scaling")

MODULES = [
    "", "_modules", "constraints", "core", "core.functional", "formats", "functional", "optim",
    "parameter", "scale", "transforms", "utils",
]  # fmt: skip
# unit_scaling.analysis needs packages beyond its requirements; these are its public functions.
ANALYSIS = ["example_batch", "graph_to_dataframe", "plot", "visualiser"]
# Public by their documentation but in no __all__.
FURTHER = [
    "docs",
    "functional.torch_map",
    "parameter.ParameterData",
    "parameter.has_parameter_data",
    "transforms.utils",
]
# Options that only paramz has: by keyword, and off unless asked for.
PER_TENSOR = ("per_tensor", inspect.Parameter.KEYWORD_ONLY, False)
ADDED = {f"optim.{name}": [PER_TENSOR] for name in ("Adam", "AdamW", "SGD", "scaled_parameters")}


def public_names():
    names = [f"analysis.{name}" for name in ANALYSIS] + FURTHER
    for module in MODULES:
        found = importlib.import_module(f"unit_scaling.{module}".rstrip("."))
        for name in getattr(found, "__all__", ["MupType", "Parameter"]):
            names.append(f"{module}.{name}".lstrip(".").removeprefix("_modules."))
    return sorted(set(names))


def ours(name):
    module, _, name = name.rpartition(".")
    return getattr(importlib.import_module(f"{uu.__name__}.{module}".rstrip(".")), name)


def test_the_list_is_the_packages():
    names = public_names()
    assert len(names) == 94
    assert set(uu.ABSENT) <= set(names)


@pytest.mark.parametrize("name", public_names())
def test_a_name_exists_or_says_what_to_use(name):
    if name not in uu.ABSENT:
        assert ours(name) is not None
        return
    module, _, last = name.rpartition(".")
    with pytest.raises(ImportError, match=f"unit_scaling.{name} is not in paramz.*: .{{30,}}"):
        exec(f"from {uu.__name__}{'.' if module else ''}{module} import {last}")


def parameters(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", [n for n in public_names() if n not in uu.ABSENT])
def test_signatures_are_the_same(name):
    theirs = peer
    for part in name.split("."):
        theirs = getattr(theirs, part, None) or getattr(peer._modules, part)
    mine = ours(name)
    if isinstance(theirs, types.ModuleType | str) or name.endswith(("MupType", "ParameterData")):
        assert type(mine) is type(theirs)
        return
    if inspect.isclass(theirs):
        base = next(c for c in theirs.__mro__ if c.__module__.startswith("torch."))
        assert issubclass(mine, base)
    shared = [found for found in parameters(mine) if found not in ADDED.get(name, [])]
    assert len(shared) == len(parameters(mine)) - len(ADDED.get(name, []))
    for expected, found in zip(parameters(theirs), shared, strict=True):
        # Defaults that are functions, such as the tau rule, are each package's own.
        default = expected[2]
        function = callable(default) and default is not inspect.Parameter.empty
        assert (found[:2] if function else found) == (expected[:2] if function else expected)


def test_an_unknown_name_is_an_attribute_error():
    for module in (uu, uu.functional, importlib.import_module(f"{uu.__name__}.transforms")):
        with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute"):
            _ = module.nothing_like_this


def test_the_version_is_the_packages():
    assert uu.__version__ == peer.__version__
