# Everything is done in a virtual environment of its own, set up from requirements-dev.txt (versions and hashes).
SHELL := bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --retries 2
READY := $(VENV)/.ready
PORT ?=
ONCE ?=
CLIENTS := tests/clients/node_modules/.ready

.PHONY: help demo test test-cluster test-clients test-captures lint docs build bench lock clean

help: ## Say what can be made
	@awk -F ' *:.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Settings: PYTHON=python3.12 (which Python makes the environment), ONCE=1 and PORT=8080 (for demo)"

demo: $(READY) ## Show a real Airflow at work against the sandbox exchange, until Ctrl-C (ONCE=1: ends by itself)
	@$(BIN)/python -m tools.demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

test: $(READY) ## Run all tests, the whole chain on a real Airflow included
	$(BIN)/python -m pytest

test-cluster: $(READY) ## Run the tests of the budget over Redis (needs redis-server)
	$(BIN)/python -m pytest -m cluster

test-clients: $(READY) $(CLIENTS) ## Run the tests of the stream with clients that are not ours (needs node and npm)
	$(BIN)/python -m pytest -m clients

test-captures: $(READY) ## Capture for 10 minutes over a bad network, through two kills, and check every file
	$(BIN)/python -W ignore -m benchmarks.captures --minutes 10

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

bench: $(READY) ## Measure beside other ways, two hours on a quiet machine (needs redis-server)
	$(BIN)/python -W ignore -m benchmarks.budget
	$(BIN)/python -W ignore -m benchmarks.poller
	$(BIN)/python -W ignore -m benchmarks.captures --minutes 60
	$(BIN)/python -W ignore -m benchmarks.streams

lock: $(READY) ## Write requirements-dev.txt anew (UPGRADE=--upgrade: with the newest versions)
	$(BIN)/uv pip compile setup.cfg requirements-dev.in --extra sandbox --extra redis --extra parquet --quiet $(UPGRADE) --universal \
		--python-version 3.11 --fork-strategy fewest --generate-hashes --no-annotate --no-emit-index-url \
		--no-emit-find-links --custom-compile-command "make lock" --output-file requirements-dev.txt

clean: ## Remove all that was made, the environment included
	rm -rf $(VENV) tests/clients/node_modules .demo build dist docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# setuptools goes first: pysher comes as source only, and is built by the locked setuptools instead of a fetched one.
$(VENV)/.locked: requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || \
		{ echo "$(PYTHON) is no Python 3.11, 3.12 or 3.13: name one, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make environments: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV) from requirements-dev.txt: about a minute"
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@awk '/^[^ ]/ {on = /^setuptools==/} on' requirements-dev.txt > $(VENV)/setuptools.txt
	@{ $(PIP) install --require-hashes --no-deps -r $(VENV)/setuptools.txt && \
		$(PIP) install --require-hashes --no-deps --no-build-isolation -r requirements-dev.txt; \
		} > $(VENV)/install.log 2>&1 || \
		{ echo "Could not install what requirements-dev.txt names (no network?): see $(VENV)/install.log" >&2; exit 1; }
	@touch $@

$(READY): $(VENV)/.locked setup.cfg pyproject.toml
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable . > $(VENV)/editable.log 2>&1 || \
		{ echo "Could not install this package: see $(VENV)/editable.log" >&2; exit 1; }
	@touch $@

$(CLIENTS): tests/clients/package-lock.json
	@{ command -v node && command -v npm; } > /dev/null || \
		{ echo "node or npm is missing: on Debian, apt-get install nodejs npm" >&2; exit 1; }
	@npm ci --prefix tests/clients --no-audit --no-fund --loglevel=error > $(VENV)/npm.log 2>&1 || \
		{ echo "Could not install what tests/clients/package-lock.json names (no network?): see $(VENV)/npm.log" >&2; exit 1; }
	@touch $@
