# make demo   set everything up and walk through a generated place: video, contact sheet, HDF5 in out/demo
# make test   set everything up and run the quick tests
# make slow   the tests that take longer: examples, training by several processes
# make lint   ruff and mypy
# make results  measure everything again (hours) and write the tables of README.md and docs from what came out
# make clean  remove the virtual environment and what was built

SHELL := /bin/bash
# The first of these that is Python 3.11 or later.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && exit; done; \
	echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO ?= out/demo

.PHONY: demo test slow lint results clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/mirage-sim rollout --agent out_and_back --steps 64 --seed 0 --out $(DEMO) --overwrite

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow and not gpu"

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "slow and not gpu"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

RESULTS ?= out/results
MIRAGE := $(BIN)/mirage-sim
results: $(VENV)/.installed
	for name in codec depth loop realism walk consistency ablations moving explore trajectories; do \
		$(MIRAGE) eval $$name --out $(RESULTS)/eval-$$name || exit 1; done
	for name in step read memory counts; do $(MIRAGE) bench $$name --out $(RESULTS)/bench-$$name || exit 1; done
	$(MIRAGE) bench memory --preset full-size --out $(RESULTS)/bench-memory-full-size
	$(MIRAGE) bench memory --preset full-size --chunks 200 --one-place 5 --methods latent appended --encode-frames 0 \
		--out $(RESULTS)/bench-memory-one-place
	for document in README.md docs/full_size.md; do $(MIRAGE) results $$document --out $(RESULTS) || exit 1; done

clean:
	rm -rf $(VENV) build mirage_sim.egg-info

# torch goes first and pinned: without a pin, pip may pick a build that brings gigabytes of GPU libraries.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) "setuptools>=77"
	$(PIP) --editable ".[dev,examples,vipe]"
	touch $@
