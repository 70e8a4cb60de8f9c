# Every target sets itself up: a fresh machine needs only python3 (3.11 or newer) and make.
PYTHON ?= python3
BIN := .venv/bin
STAGE := $(PYTHON) scripts/stage
PYTEST_ARGS ?=

.PHONY: help dev demo test test-evasion test-stories test-slow faults soak check format bench bench-door bench-governor bench-faults bench-see bench-connectors bench-judgment bench-release judgment-model screenshots docs clean
.DEFAULT_GOAL := help

help: ## what there is to do
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.venv/pyvenv.cfg:
	@$(PYTHON) scripts/python_floor.py
	@$(STAGE) --quiet "make the virtual environment .venv" $(PYTHON) -m venv .venv

.venv/ready: .venv/pyvenv.cfg pyproject.toml constraints.txt hatch_build.py $(wildcard src/circuit_script/judgment/*.pyx)
	@$(STAGE) --quiet "install Circuit Script and what it is built with into .venv (about 40 s)" \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@

.venv/ready-bench: .venv/ready
	@$(STAGE) --quiet "install the peers that the benchmark runs beside (Flask, gunicorn, Celery)" \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs,bench]'
	@touch $@

dev: .venv/ready ## make .venv, ready to work in
	@echo "   ready: source .venv/bin/activate"

demo: .venv/ready ## the whole road on 2,000 signed webhooks of a GoHighLevel stand-in, and back (KEEP=1 leaves it up)
	@$(STAGE) "demo: a new app on a GoHighLevel stand-in, 2,000 signed deliveries over HTTP, their outcomes" \
	  $(BIN)/circuit-script demo $(if $(KEEP),--keep)

test: .venv/ready ## every test but tricks, stories and the slow ones, with coverage (refused under 86 %)
	@$(BIN)/coverage erase
	@$(BIN)/coverage run --source=circuit_script -m circuit_script.cli --version >/dev/null  # counts what nothing runs
	@PYTHONDONTWRITEBYTECODE= PYTHONPATH=$(CURDIR)/tests/measured $(STAGE) "tests (unit, integration, contract, acceptance)" $(BIN)/coverage run -m pytest -n 4 --dist worksteal $(PYTEST_ARGS)
	@$(BIN)/coverage combine --quiet
	@$(STAGE) "coverage" $(BIN)/coverage report

test-evasion: .venv/ready ## hostile handlers, and a hundred tricks to get around limits and isolation, in both modes
	@$(STAGE) "evasion (tricks in standard and strict isolation)" $(BIN)/python -m pytest -n 3 -m evasion $(PYTEST_ARGS)

test-stories: .venv/ready ## what a person does: the command line, dev, Flask, every command and snippet of the documentation
	@$(STAGE) "stories (command line, dev, Flask, documentation)" $(BIN)/python -m pytest -n 4 --dist loadscope -m "story and not slow" $(PYTEST_ARGS)

test-slow: .venv/ready ## the tests that take minutes, and each property with ten times as many examples
	@$(STAGE) "slow tests" $(BIN)/python -m pytest --hypothesis-profile thorough -m "slow or hypothesis" $(PYTEST_ARGS)

faults: .venv/ready ## accidents from a printed seed, each audited (SCHEDULES=1000, SEED=7, BESIDE=3; QUICK=1: a hundred)
	@PYTHONDONTWRITEBYTECODE= $(STAGE) "faults: kills, cuts, stalls, restarts, a full disk, clocks, vendors that misbehave" \
	  $(BIN)/python -m tests.faults --schedules $(or $(SCHEDULES),$(if $(QUICK),100,1000)) --beside $(or $(BESIDE),3) \
	  $(if $(SEED),--seed $(SEED))

soak: .venv/ready-bench ## a steady load with failures: memory, tables and latency stay flat (MINUTES=10)
	@$(STAGE) "soak: $(or $(MINUTES),10) minutes of load" $(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),10)

check: .venv/ready ## format, lint, types, import direction, no machine's address, documentation
	@$(STAGE) "format (ruff)" $(BIN)/ruff format --check --quiet .
	@$(STAGE) "lint (ruff)" $(BIN)/ruff check --quiet .
	@$(STAGE) "types (mypy --strict)" $(BIN)/mypy
	@$(STAGE) --quiet "imports go down only (import-linter)" $(BIN)/lint-imports
	@$(STAGE) "no file names a machine or a registry" $(BIN)/python scripts/check_addresses.py
	@$(STAGE) --quiet "documentation builds, no link is broken" $(BIN)/zensical build --strict --clean

format: .venv/ready ## let ruff format and fix
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

test-one-back: .venv/ready ## tests and code of an earlier version on this schema (REF=v0.1.0, TESTS=tests/integration/test_intake.py)
	@$(STAGE) "the code of $(REF) on this schema" $(BIN)/python scripts/one_release_back.py $(REF) $(TESTS)

bench: .venv/ready-bench ## speed beside a bare prototype and Flask + Celery (QUICK=1: under 90 s)
	@$(STAGE) "benchmark: the road" $(BIN)/python -m benchmarks.road $(if $(QUICK),--quick)

bench-door: .venv/ready-bench ## what a developer feels: import, reload, an endpoint's answer, the quickstart (QUICK=1: smaller)
	@$(STAGE) "benchmark: the author's door" $(BIN)/python -m benchmarks.door $(if $(QUICK),--quick)

bench-governor: .venv/ready-bench ## what governing costs, how fast a runaway is gone, tricks stopped, money overspent (QUICK=1: smaller)
	@$(STAGE) "benchmark: the governor" $(BIN)/python -m benchmarks.governor $(if $(QUICK),--quick)

bench-faults: .venv/ready-bench ## what faults cost: a bad record, a loud neighbour, an old snapshot, a large ledger (QUICK=1: smaller)
	@$(STAGE) "benchmark: faults" $(BIN)/python -m benchmarks.faults $(if $(QUICK),--quick)

bench-see: .venv/ready-bench ## what seeing costs: search of ten million lines, pages, the road, alerts, roles (QUICK=1, ONLY=search)
	@$(STAGE) "benchmark: seeing" $(BIN)/python -m benchmarks.see $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

bench-connectors: .venv/ready-bench ## what connectors cost: conformance, 10,000 updates at the limit with a kill -9, doubles, enrichment (QUICK=1, ONLY=leads)
	@$(STAGE) "benchmark: connectors" $(BIN)/python -m benchmarks.connectors $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

bench-judgment: .venv/ready-bench ## how well and how fast untrusted texts are judged (CIRCUIT_SHARED has the corpus; QUICK=1, ONLY=evasion or speed)
	@$(STAGE) "benchmark: judgment" $(BIN)/python -m benchmarks.judgment $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

bench-release: .venv/ready-bench ## deploy, rollback, shadow and mirror under 500 events a second with kill -9; bad releases (QUICK=1, ONLY=rollback)
	@$(STAGE) "benchmark: releases" $(BIN)/python -m benchmarks.release $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

judgment-model: .venv/ready-bench ## train the model that judges untrusted texts (CORPUS=folder with dev.jsonl)
	@$(STAGE) "train the model of level 16" env OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m training.judgment $(CORPUS)

screenshots: .venv/ready ## pictures of every page of the dashboard, for people to look at (needs chromium), in .bench/screenshots
	@$(STAGE) "screenshots" $(BIN)/python -m tests.browser.screenshots

docs: .venv/ready ## read the documentation at http://127.0.0.1:8001, built again on change
	@$(BIN)/python scripts/link_pages.py
	@$(BIN)/zensical serve --dev-addr 127.0.0.1:8001

clean: ## remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache site .cache .bench .coverage .coverage.* htmlcov
