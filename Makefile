# Everything that sets the project up or checks it. `make demo` and `make test` are all that a new machine needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One thread a test process: two processes share the cores of a small machine. Bytecode is kept whatever the environment
# says: without it every process compiles the tests anew, which takes longer than all their imports.
ENVIRONMENT := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=
PYTEST := $(ENVIRONMENT) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# Which tests `make test` runs.
TESTS ?= not slow and not distributed

.PHONY: help install demo test test-slow test-distributed check format clean

help:            ## show this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	DS_BUILD_OPS=0 $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(INSTALLED)

install: $(INSTALLED)  ## make the environment in .venv

demo: install    ## train the default model on the embedded corpus and print what it writes
	$(BIN)/python train.py experiment=demo

test: install    ## the fast tests
	$(PYTEST) -m '$(TESTS)'

test-distributed: install  ## the tests that start several processes
	$(PYTEST) -m 'distributed and not slow'

test-slow: install  ## the tests that take minutes
	$(ENVIRONMENT) $(BIN)/python -m pytest -m slow

check: install   ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:           ## remove caches and the environment; runs/ and shards/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
