# Docyard's front door; `make help` lists the targets. Works with GNU Make 3.81 (macOS) and newer.
#
#   PYTHON=python3.12   make the virtual environment with this Python
#   VENV=.venv-3.12     keep several of them
#   ARGS='-k lease'     more arguments for the command behind a target

VENV ?= .venv
PY = $(VENV)/bin/python
SETUP = @VENV="$(VENV)" PYTHON="$(PYTHON)" sh scripts/setup.sh

FUZZ_CASES ?= 20000

LOCK = $(PY) -m piptools compile --quiet --strip-extras --no-header --no-emit-index-url \
	--no-emit-find-links --no-emit-trusted-host --allow-unsafe

.DEFAULT_GOAL := help
.PHONY: help setup up demo listen status logs reset test chaos fuzz check fmt bench migrate lock clean \
	runtime development

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: development ## Only install: a virtual environment with the pinned packages

# The recipes below are single commands without shell syntax: make then runs them itself, and a
# SIGTERM to make reaches them.

up: runtime ## Start everything on this machine; Ctrl-C stops it, the data stays (PORT=8001, DATABASE_URL=…)
	@$(PY) -m app up $(ARGS)

demo: runtime ## Post 20 example documents to what is up, and show each arriving
	@$(PY) -m app demo $(ARGS)

listen: runtime ## Show the webhooks of what is up, with their signatures verified
	@$(PY) -m app listen $(ARGS)

status: runtime ## What runs, where, and whether it is ready
	@$(PY) -m app status $(ARGS) || true

logs: runtime ## The logs of all parts (ARGS='-f worker' follows one)
	@$(PY) -m app logs $(ARGS)

reset: runtime ## Delete the local data (asks first)
	@$(PY) -m app reset $(ARGS)

test: development ## Run all tests on a real Postgres and Valkey of their own
	@$(PY) -c 'import platform; print("Python", platform.python_version())'
	@$(PY) -m pytest -n auto --dist worksteal $(ARGS)

chaos: development ## Pull every plug at random and see that nothing is lost (ARGS='--seeds 20')
	@$(PY) -m tests.chaos $(ARGS)

fuzz: development ## Make 20,000 requests up, deliveries' lives, URLs, filters (FUZZ_CASES=…, FUZZ_SEED=… repeats)
	@env FUZZ_CASES="$(FUZZ_CASES)" $(PY) -m pytest tests/fuzz tests/domain $(ARGS)

check: development ## Everything that CI checks before the tests: lint, types, contracts
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) $(VENV)/bin/lint-imports --no-logo

fmt: development ## Format the code and fix what can be fixed
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: development ## Measure everything against the baselines; about 40 minutes (ARGS='bulk --short')
	$(PY) -m bench $(ARGS)

migrate: runtime ## Bring the database that DATABASE_URL names to the newest schema
	@$(PY) -m app migrate $(ARGS)

lock: development ## Pin the newest fitting packages anew (ARGS='--upgrade')
	$(LOCK) $(ARGS) -o requirements.txt pyproject.toml
	$(LOCK) $(ARGS) -c requirements.txt --extra embedded -o requirements-embedded.txt pyproject.toml
	$(LOCK) $(ARGS) -c requirements.txt --extra embedded --extra dev -o requirements-dev.txt pyproject.toml

clean: ## Delete caches and build results, but neither data nor the virtual environment
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

runtime:
	$(SETUP) requirements-embedded.txt

development:
	$(SETUP) requirements-dev.txt
