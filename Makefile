# Everything is done in virtual environments of the project's own, set up from locked requirements (versions and hashes).
SHELL := bash
.DEFAULT_GOAL := help

# Where it is set, every process of the tests compiles every test anew: four seconds each.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := bin/python -m pip --disable-pip-version-check --retries 2
READY := $(VENV)/.ready
# The rivals that the benchmarks measure beside this package have an environment of their own.
BENCH_VENV := .venv-bench
# The newest pre-release of the next Airflow.
NEXT_VENV := .venv-next
CLIENTS := tests/clients/node_modules/.ready
ARGS ?=
ONCE ?=
PORT ?=
MINUTES ?= 10
# Many tests wait, so more of them than there are cores run at once; each process takes five seconds to begin.
WORKERS ?= 4
PYTEST := $(BIN)/python -m pytest
SIDE_BY_SIDE := $(PYTEST) --numprocesses $(WORKERS) --dist worksteal
# What is of payments and of the pages, and so must hold on every Airflow that is supported.
PAYMENTS ?= tests/payments tests/operators tests/cli tests/desk tests/plugins tests/dags/test_example_dags.py
# The same on a whole Airflow.
PAYMENTS_ON_AIRFLOW ?= tests/system/money
LOCK := $(BIN)/uv pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.PHONY: help demo unit test test-airflow test-system test-paced test-alone test-cluster test-clients test-browser \
	test-captures test-next coverage covered lint docs build bench lock clean

help: ## Say what can be made
	@awk -F ' *:.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Settings: PYTHON=python3.12 (which Python makes the environment), WORKERS=4 (how many tests of unit run at once),"
	@echo "          ARGS (for test: make test ARGS=tests/hooks runs these, one by one), ONCE=1 and PORT=8080 (for demo)"

demo: $(READY) ## Show a real Airflow at work against the sandbox exchange, until Ctrl-C (ONCE=1: ends by itself)
	@$(BIN)/python -m tools.demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

# Each process imports all that it looks at. The folders that are left out have no such test: their conftest.py marks
# each of theirs as something else (tests/tools/test_makefile.py).
unit: $(READY) ## Run the tests that need no Airflow process, in a minute
	$(SIDE_BY_SIDE) --ignore=tests/browser --ignore=tests/plugins --ignore=tests/system \
		-m "not airflow and not system and not long and not paced and not alone and not cluster and not clients and not browser"

ifdef ARGS
test: $(READY)
	$(PYTEST) $(ARGS)
else
test: $(READY) ## Run all tests but those of test-cluster, test-clients, test-browser and test-captures (ARGS=path: only these)
	$(BIN)/python -m tools.lanes test
endif

# Each process of these makes Airflow's API servers for itself, for ten seconds of processor time.
test-airflow: $(READY) ## Run the tests that run tasks on Airflow in their own process, and what takes seconds of processor
	$(PYTEST) --numprocesses 3 --dist worksteal -m "(airflow or long) and not alone and not cluster"

# A group of tests that share an Airflow is run by one process.
test-system: $(READY) ## Run the tests of a whole Airflow with scheduler and triggerer
	$(PYTEST) --numprocesses 2 --dist loadgroup -m "system and not alone and not cluster" tests/system

# Captures wait: three at a time take a seventh of two processors. All are in one folder (tests/tools/test_makefile.py),
# and each process imports all that it looks at.
test-paced: $(READY) ## Run the tests that capture for seconds, five at a time
	$(PYTEST) --numprocesses 5 --dist worksteal -m paced tests/captures

test-alone: $(READY) ## Run the tests that measure time, one by one
	$(PYTEST) -m "alone and not cluster"

test-cluster: $(READY) ## Run the tests over Redis and PostgreSQL (needs redis-server and PostgreSQL)
	$(PYTEST) -m cluster

test-clients: $(READY) $(CLIENTS) ## Run the tests of the stream with clients that are not ours (needs node and npm)
	$(PYTEST) -m clients

test-browser: $(READY) ## Run the tests of the desk's page in Chromium (needs chromium); pictures go to build/browser
	$(PYTEST) -m browser tests/browser

test-captures: $(READY) ## Capture for 10 minutes through kills, black holes and a store that hangs; account for all (MINUTES=1)
	$(BIN)/python -W ignore -m benchmarks.captures --minutes $(MINUTES)

test-next: $(NEXT_VENV)/.ready ## Run the tests of payments and of the pages on the newest pre-release of Airflow
	$(NEXT_VENV)/bin/python -m pytest --numprocesses 3 --dist loadgroup -m "not long and not alone and not cluster" $(PAYMENTS) $(PAYMENTS_ON_AIRFLOW)

coverage: $(READY) ## Print which branches of the package no test reaches (test-system left out)
	$(SIDE_BY_SIDE) -m "not system and not paced and not alone and not cluster and not clients and not browser" --cov --cov-report=
	$(PYTEST) -m "(paced or alone) and not cluster" --cov --cov-append --cov-report=term-missing:skip-covered

covered: $(READY) ## Print the branches that no test of .ci/run has reached, but those of test-system
	$(BIN)/coverage combine $(wildcard .coverage-*)
	$(BIN)/coverage report --skip-covered

lint: $(READY) ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(READY) ## Make the documentation in docs/_build
	$(BIN)/python -m sphinx -W --keep-going -n -q docs docs/_build
	@echo "docs/_build/index.html"

build: $(READY) ## Make wheel and sdist in dist/
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --outdir dist .

bench: $(BENCH_VENV)/.ready ## Measure beside other ways, over an hour on a quiet machine (needs redis-server and PostgreSQL)
	$(BENCH_VENV)/bin/python -W ignore -m benchmarks.budget
	$(BENCH_VENV)/bin/python -W ignore -m benchmarks.poller
	$(BENCH_VENV)/bin/python -W ignore -m benchmarks.captures
	$(BENCH_VENV)/bin/python -W ignore -m benchmarks.streams
	$(BENCH_VENV)/bin/python -W ignore -m benchmarks.ledger --payments 100000

lock: $(READY) ## Write the locked requirements anew (UPGRADE=--upgrade: with the newest versions)
	$(LOCK) setup.cfg requirements-dev.in --extra sandbox --extra redis --extra postgres --extra parquet --output-file requirements-dev.txt
	$(LOCK) setup.cfg requirements-next.in --extra sandbox --extra redis --extra postgres --extra parquet --output-file requirements-next.txt
	$(LOCK) setup.cfg benchmarks/requirements.in --extra sandbox --extra redis --extra postgres --output-file benchmarks/requirements.txt

clean: ## Remove all that was made, the environments included
	rm -rf $(VENV) $(BENCH_VENV) $(NEXT_VENV) tests/clients/node_modules .demo build dist docs/_build *.egg-info .coverage* \
		.mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.locked: requirements-dev.txt
$(BENCH_VENV)/.locked: benchmarks/requirements.txt
$(NEXT_VENV)/.locked: requirements-next.txt

# setuptools goes first: pysher comes as source only, and is built by the locked setuptools instead of a fetched one.
$(VENV)/.locked $(BENCH_VENV)/.locked $(NEXT_VENV)/.locked: %/.locked:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || \
		{ echo "$(PYTHON) is no Python 3.11, 3.12 or 3.13: name one, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make environments: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $* from $<: about a minute"
	@rm -rf $* && $(PYTHON) -m venv $*
	@awk '/^[^ ]/ {on = /^setuptools==/} on' $< > $*/setuptools.txt
	@{ $*/$(PIP) install --require-hashes --no-deps -r $*/setuptools.txt && \
		$*/$(PIP) install --require-hashes --no-deps --no-build-isolation -r $<; \
		} > $*/install.log 2>&1 || \
		{ echo "Could not install what $< names (no network?): see $*/install.log" >&2; exit 1; }
	@touch $@

$(VENV)/.ready $(BENCH_VENV)/.ready $(NEXT_VENV)/.ready: %/.ready: %/.locked setup.cfg pyproject.toml
	@$*/$(PIP) install --quiet --no-deps --no-build-isolation --editable . > $*/editable.log 2>&1 || \
		{ echo "Could not install this package: see $*/editable.log" >&2; exit 1; }
	@touch $@

$(CLIENTS): tests/clients/package-lock.json
	@{ command -v node && command -v npm; } > /dev/null || \
		{ echo "node or npm is missing: on Debian, apt-get install nodejs npm" >&2; exit 1; }
	@npm ci --prefix tests/clients --no-audit --no-fund --loglevel=error > $(VENV)/npm.log 2>&1 || \
		{ echo "Could not install what tests/clients/package-lock.json names (no network?): see $(VENV)/npm.log" >&2; exit 1; }
	@touch $@
