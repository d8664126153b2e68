"""Readers of specs, values, expressions, plans and results are given whatever can be made up.

Each either reads it or refuses it with the error that its docstring names, soon.
"""

import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import paramz
from paramz.sweeps import Store, Sweep, load
from paramz.sweeps.spec.expression import Expression
from paramz.sweeps.spec.values import ValueTextError, read_value
from paramz.sweeps.spec.yamlfile import SpecError

pytestmark = pytest.mark.slow
FUZZ = settings(
    max_examples=300,
    deadline=10_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 1e308, 5e-324, 10**30, 10**400])
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
KEYS = st.sampled_from(
    "train base axes resources budget refine halving loss_limit log2 step by cases otherwise axis "
    "minutes cpus gpus lr width a.b a over min_steps trials".split()
) | st.text(max_size=6)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=25,
)
SPECS = st.fixed_dictionaries(
    {"train": st.just("lab:train")},
    optional={
        "base": st.dictionaries(KEYS, JSON, max_size=3),
        "axes": st.dictionaries(KEYS, JSON, max_size=3),
        "resources": st.dictionaries(KEYS, JSON, max_size=2),
        "budget": st.dictionaries(KEYS, JSON, max_size=2),
        "refine": JSON,
        "halving": JSON,
        "loss_limit": SCALARS,
    },
)
SNIPPETS = st.lists(
    st.sampled_from(["a: ", "- ", "[", "]", "{", "}", "&x ", "*x", "!!int ", "!!set ", "? ", "<<: ",
                     "|\n", "'", '"', "\n", "  ", "1e9", "~", "#", "%YAML 1.1\n", "---\n", "\t",
                     "\0"])
    | st.text(max_size=4)
).map("".join)  # fmt: skip


@FUZZ
@given(spec=SPECS | JSON)
def test_specs(tmp_path, spec):
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps(spec), encoding="utf-8", errors="surrogatepass")
    try:
        sweep = Sweep.from_yaml(path)
    except SpecError as error:
        assert str(path) in str(error)
        return
    assert sweep.exceeds(10) is None or sweep.exceeds(10) > 10


@FUZZ
@given(text=SNIPPETS)
def test_values(text):
    begun = time.process_time()  # a busy machine does not count
    try:
        read_value(text)
    except ValueTextError as error:
        assert error.line >= 1 and error.problem
    assert time.process_time() - begun < 5


@FUZZ
@given(
    text=st.lists(
        st.sampled_from(["width", "lr", "1", "2.5", "**", "*", "/", "//", "%", "+", "-", "(", ")",
                         "min(", "log2(", ",", "1e300", "9" * 50, ".", "if", "lambda:", "[", "]"])
        | st.text(max_size=3)
    ).map(" ".join)
)  # fmt: skip
def test_expressions(text):
    try:
        value = Expression(text)({"width": 64, "lr": 0.1, "name": "x"})
    except ValueError:
        return
    assert isinstance(value, float)


def net(width=8):
    return nn.Sequential(nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 2))


PLAN = paramz.parametrize_(net(32), "mup", base=net).to_json()


def places(data, above=()):
    """Where every value in nested data is."""
    yield above
    items = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    for key, value in items:
        yield from places(value, (*above, key))


def replaced(data, place, value):
    if not place:
        return value
    copy = json.loads(json.dumps(data))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copy


@FUZZ
@given(place=st.sampled_from(list(places(PLAN))), value=JSON)
def test_plans(tmp_path, place, value):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(replaced(PLAN, place, value)))
    try:
        plan = paramz.Plan.load(path)
    except ValueError as error:
        assert str(error).startswith(f"{path} is no plan that this version reads: ")
        return
    for row in plan.rows:
        assert all(0 < ratio < float("inf") for ratio in row.ratios.values())


KEY = "0" * 16
RESULT = {
    "format": 1, "key": KEY, "status": "ok", "error": None, "traceback": None,
    "metrics": {"loss": 1.5, "other": "nan"}, "config": {"lr": 0.1, "adam": {"eps": 1}},
    "seconds": 1.0, "attempts": 1, "finished": 1.0, "code": {"source": "abc", "commit": None},
}  # fmt: skip


@FUZZ
@pytest.mark.filterwarnings("ignore::UserWarning")
@given(place=st.sampled_from(list(places(RESULT))), value=JSON)
def test_results(tmp_path, place, value):
    store = Store(tmp_path / "run").create()
    store.result(KEY).write_text(json.dumps(replaced(RESULT, place, value)))
    assert len(load(store.root)) == (store.read(KEY) is not None)
    list(store.records())
