# `make demo` and `make test` need nothing but Python (3.11 or later), git and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests write thousands of small files: into memory where it has 4 GB for them, since a slow disk
# takes a quarter of their time. Otherwise the usual place.
MEMORY := $(shell test -w /dev/shm && df -Pk /dev/shm | awk 'NR == 2 && $$4 > 4e6 {print "/dev/shm"}')
PYTEST := PYTEST_DEBUG_TEMPROOT=$(MEMORY) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

.PHONY: demo test test-long check bench results docs clean

demo: $(VENV)/core
	$(BIN)/dreamquant demo --out out/demo
	$(BIN)/dreamquant demo --transformer --out out/demo-transformer

test: $(VENV)/all check
	$(PYTEST) --dist worksteal

# Measurements over seeds, kills and leaks: minutes more.
test-long: $(VENV)/all
	$(PYTEST) -m long

check: $(VENV)/all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Strict: a dead link, a missing page or name ends the build. The site lies in out/site.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/all
	$(BIN)/python benchmarks/cifar10_resnet20.py
	$(BIN)/python tools/check_results.py

# Whether what is on record reaches its goals: after any benchmark that wrote a record.
results: $(VENV)/core
	$(BIN)/python tools/check_results.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/core: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/all: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	touch $(VENV)/core $@

$(VENV)/docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $(VENV)/core $@

clean:
	rm -rf $(VENV) out
