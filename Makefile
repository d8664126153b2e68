# Every target makes its own .venv. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test slow check bench docs clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,mup]'
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
