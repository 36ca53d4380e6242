# rkvisor: everything below uses an environment of its own in .venv and never touches the system's Python.
#
#   make run      a real model on the CPU, a question answered, a worker killed in mid-stream, the answer finished
#   make test     the whole test suite            make lint     ruff and mypy
#   make bench    the numbers of docs/bench.md    make chaos    1000 fault scenarios (SEED=n replays one schedule)
#   make sanitize the C parts under ASan/UBSan    make docs     the tables of the documentation, from the code
#   make clean    remove what was built, but not the engine's cache

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
SOURCES := setup.py pyproject.toml $(shell find cython_ext -name '*.pyx' -o -name '*.pxi' -o -name '*.pxd' -o -name '*.c' \
	-o -name '*.h' -o -name '*.hpp' | grep -v '^cython_ext/llama/')

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: all env llama run test unit lint docs bench chaos leaks sanitize clean
.DEFAULT_GOAL := all

all: env

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cannot use $(PYTHON): Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 1; }
	@for tool in gcc g++; do command -v $$tool >/dev/null || { echo "cannot build: $$tool is not installed"; exit 1; }; done
	@echo "== environment: making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(STAMP): $(VENV)/bin/python $(SOURCES)
	@echo "== rkvisor: installing what it needs, compiling the binding and the simulators (about a minute)"
	@$(PY) -m pip install --quiet 'setuptools>=80' 'cython>=3.1' wheel
	@$(PY) -m pip install --quiet --no-build-isolation --editable '.[dev]'
	@touch $@

env: $(STAMP)

# The CPU runtime: llama-cpp-python of the pinned version, built once into a cache of its own, and a small model.
llama: env
	@$(PY) -P -m rkvisor.cython_ext.llama_engine install
	@$(PY) -P -m rkvisor.cython_ext.build_llama

run: llama
	@$(PY) -P -m rkvisor.client.quickstart

unit: env
	@$(PY) -P -m pytest -q tests/unit

test: llama
	@$(PY) -P -m pytest

lint: env
	@$(PY) -P -m ruff check .
	@$(PY) -P -m ruff format --check .
	@$(PY) -P -m mypy

docs: env
	@$(PY) -P docs/generate.py

bench: llama
	@$(PY) -P bench/run.py

# The confusion matrix of the leak estimator: PART=held-out for the part that it was not tuned on.
leaks: env
	@PYTHONPATH=tests $(PY) -P -m leaks $(or $(PART),tuning)

chaos: env
	@PYTHONPATH=tests $(PY) -P -m chaos.run $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT))

sanitize: env
	@$(PY) -P tests/sanitize.py

clean:
	rm -rf build dist *.egg-info $(VENV) cython_ext/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
