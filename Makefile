# Two commands for everybody: `make study` runs the main job, `make test` all checks.
# Each sets up all it needs: a virtual environment in .venv with the locked packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV ?= uv
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# Worker processes do the parallel work; nothing else should start threads beside them.
export OMP_NUM_THREADS ?= 1
# Packages are compiled when they are first imported, not all ahead. Where that may not be kept, as in
# many containers, every process would take 15 s to import Keras instead of 6.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help install study test test-slow test-oldest check collected docs system slurm lock clean

help:
	@echo "make install    a virtual environment with the locked packages, and nothing else"
	@echo "make study      the main job: synthetic storms, a small grid, a report (minutes)"
	@echo "make test       lint, types, layering and all tests but the slow ones"
	@echo "make test-slow  the slow tests"
	@echo "make test-oldest  the unit tests with the oldest packages that pyproject.toml allows (needs uv)"
	@echo "make docs       the documentation as a site, in docs/_build/html"
	@echo "make slurm      a real Slurm of four small nodes on this machine, until Ctrl-C (as root)"
	@echo "make lock       resolve the locked packages anew (needs uv)"
	@echo "make clean      remove the virtual environment and caches"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11) or sys.version_info[:2] > (3, 13))' \
	  || { echo "Stormsweep needs Python 3.11 to 3.13; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python cannot make a virtual environment (on Debian: apt install python3-venv)"; exit 1; }

# The package itself is installed in place, from the locked build tool, without a network.
$(VENV)/.run: requirements/run.lock pyproject.toml | $(BIN)/python
	@echo "Installing the locked packages (the first time takes some minutes) ..."
	$(PIP) --no-compile --require-hashes -r requirements/run.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.run
	$(PIP) --no-compile --require-hashes -r requirements/dev.lock
	@touch $@

install: $(VENV)/.run

study: $(VENV)/.run
	$(BIN)/stormsweep run studies/quickstart.toml

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Slurm and Chromium are what some tests run for real; without them those tests skip and say so.
system:
	@sh tests/install-system-packages.sh

# Once, while types are checked: else each process of the tests compiles all packages and test files
# that it finds, at the same time as the others. What goes wrong in it is said by the tests.
collected: $(VENV)/.dev
	@$(BIN)/pytest -m "not slow" --collect-only -q >/dev/null 2>&1 || true

# Packages of the system are installed while those of Python are: each waits for the network and the
# disk half of its time.
# Half of the processes wait at any time, for workers or for Slurm: four keep two cores busy.
PYTEST_ARGS ?= -n 4 --dist loadfile --no-loadscope-reorder
test:
	@$(MAKE) --no-print-directory -j2 system check collected
	$(BIN)/pytest -m "not slow" --durations=25 $(PYTEST_ARGS)

test-slow: $(VENV)/.dev system
	$(BIN)/pytest -m slow -rP
	HYPOTHESIS_PROFILE=wander $(BIN)/pytest -m "not slow" tests/unit

# The lower bounds of pyproject.toml, tried: an environment of its own with the oldest of all that is
# named there, extras included.
OLDEST := .venv-oldest
test-oldest:
	$(UV) venv --quiet --allow-existing --python 3.11 $(OLDEST)
	$(UV) pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct --group dev --editable .
	$(OLDEST)/bin/python -m pytest -m "not slow" tests/unit

docs: $(VENV)/.dev
	$(BIN)/sphinx-build -b html -W --keep-going -d docs/_build/doctrees docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

slurm:
	@$(PYTHON) -m tests.slurm

lock:
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --group build \
	  --generate-hashes --no-emit-index-url --output-file requirements/run.lock
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --group dev \
	  --constraint requirements/run.lock \
	  --generate-hashes --no-emit-index-url --output-file requirements/dev.lock

clean:
	rm -rf $(VENV) $(OLDEST) docs/_build docs/from-repository .mypy_cache .ruff_cache .pytest_cache .hypothesis
