# The targets people use; what they do is in scripts/ and in the command line `modelyard`.

SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
export VENV
export MODELYARD_HOME ?= $(CURDIR)/.modelyard

.DEFAULT_GOAL := help
.PHONY: help install install-dev up demo test check lint format types unit integration exact-resume chaos soak measure-recovery bench-recorder catalog clean distclean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## Make the environment in .venv, with the command .venv/bin/modelyard
	@scripts/install run

install-dev: ## The same, with what the tests need
	@scripts/install dev

up: install ## Start everything on this machine until Ctrl-C
	@$(BIN)/modelyard up

demo: install ## Start everything and train a model on the sample data; EXIT=1 stops afterwards
	@$(BIN)/modelyard demo $(if $(EXIT),--exit) $(if $(DETECTION),--detection)

test: check integration ## Run everything: the fast part first, then with real services

# The types beside the unit tests: they are looked at by one process, which leaves cores idle.
check: install-dev lint ## The fast part: format, lint, types, unit tests (under 2 minutes)
	@$(MAKE) --no-print-directory -j2 types unit

lint: install-dev
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .

types: install-dev
	@$(BIN)/mypy

unit: install-dev
	@$(BIN)/python -m pytest --no-header -n logical --maxprocesses 8 --dist loadfile tests/unit

# These wait more than they compute (for leases, restarts, timeouts): one more at once than cores,
# at most 4. Files are begun in the order of tests/conftest.py, not by their number of tests.
integration: install-dev
	@scripts/test-needs
	@$(BIN)/python -m pytest --no-header -n $$(n=$$(getconf _NPROCESSORS_ONLN); echo $$(( n < 3 ? n + 1 : 4 ))) --dist loadfile --no-loadscope-reorder tests/integration tests/faults tests/e2e

exact-resume: install-dev ## Interrupt timm jobs at random, TIMES=20 of them; FIRST=<seed> repeats them
	@EXACT_RESUME_TIMES=$(or $(TIMES),20) EXACT_RESUME_FIRST=$(FIRST) \
		$(BIN)/python -m pytest --no-header -s tests/integration/test_exact_resume.py

format: install-dev ## Format the code and mend what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

chaos: install-dev ## Kill at random while 30 jobs train: MINUTES=10 SEED=0 DATABASE=sqlite
	@$(BIN)/python -m tests.faults.chaos --minutes $(or $(MINUTES),10) --seed $(or $(SEED),0) --database $(or $(DATABASE),sqlite)

soak: install-dev ## Run short jobs and see that no process grows: MINUTES=30 FRAMEWORK=timm
	@$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),30) --framework $(or $(FRAMEWORK),timm)

measure-recovery: install-dev ## Measure how long lost workers, a lost Redis and cancels take
	@$(BIN)/python -m tests.faults.measure

bench-recorder: install-dev ## Measure how fast the recorder catches up, on both databases
	@scripts/test-needs
	@PYTHONPATH=. $(BIN)/python scripts/bench-recorder

catalog: ## Make the lists of models anew, after a framework's version has changed
	@$(BIN)/python -m adapters.catalog_build

clean: ## Remove what the tools left behind; the home folder with its jobs stays
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## The same, and the environment
	rm -rf $(VENV)
