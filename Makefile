# Every target makes its own .venv. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test slow check bench docs clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	# The peer that tests compare with; --no-deps because it would pull torchvision, which
	# nothing here uses and which breaks where its build does not match torch's.
	$(BIN)/python -m pip install -q --no-deps mup==1.0.0
	touch $@

demo: $(STAMP)  ## train two models of growing width under SP and muP, write runs/demo/report.html
	$(BIN)/paramz demo

test: $(STAMP)  ## the default suite
	$(BIN)/python -m pytest -q -n 2

slow: $(STAMP)  ## the tests that take minutes
	$(BIN)/python -m pytest -q -n 2 -m slow

check: $(STAMP)  ## what CI lints and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## ratios against peers, medians of alternating runs
	for f in benchmarks/[a-z]*.py; do $(BIN)/python $$f || exit 1; done

docs: $(STAMP)  ## build the documentation into site/
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site dist .pytest_cache .mypy_cache .ruff_cache
