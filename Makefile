# Two commands matter to a newcomer: `make demo` and `make test`. Everything else is for those who stay.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
ENGINE := submit overhead heap planner_regret communication time_to_accuracy checkpoint_stall kill faults oom
SEARCH := compete cost overhead chaos ten_thousand

.PHONY: demo up down secrets docs test test-long fuzz check lint types imports lock benchmark-data benchmark-engine benchmark-search benchmark-service clean help

help:           ## what there is
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/: .*## /\t/' | expand -t 18

demo: $(READY)  ## one real job through the real service, then everything stops
	@exec $(BIN)/python -m local demo

up: $(READY)    ## the same services, kept running; `make up DATA=/my/pictures` lets jobs read that folder
	@TRAINYARD_DATA="$(DATA)" exec $(BIN)/python -m local up

down: $(READY)  ## stop what `make up` started
	@exec $(BIN)/python -m local down

test: $(READY) check  ## gates and tests, against a real PostgreSQL and Valkey started on free ports
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: lint types imports  ## ruff, mypy --strict, import rules

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports --no-cache

benchmark-data: $(PEERS)  ## the data path beside its peers (about half an hour); writes benchmarks/data/RESULTS.md
	for one in loader prepare cleaning s3_ingest memory kill small_data; do $(BIN)/python -m benchmarks.data.$$one || exit 1; done
	cat benchmarks/data/summary.md benchmarks/data/results/*.md > benchmarks/data/RESULTS.md

benchmark-engine: $(PEERS)  ## planner, step, checkpoints, time to accuracy beside their peers (about two hours); writes benchmarks/engine/RESULTS.md
	for one in $(ENGINE); do $(BIN)/python -m benchmarks.engine.$$one || exit 1; done
	cat benchmarks/engine/summary.md benchmarks/engine/results/*.md > benchmarks/engine/RESULTS.md

benchmark-service: $(READY)  ## hostile bodies, bombs and overload, before and after; writes benchmarks/service/RESULTS.md
	for one in bodies bombs overload; do $(BIN)/python -m benchmarks.service.$$one || exit 1; done
	cat benchmarks/service/summary.md benchmarks/service/results/*.md > benchmarks/service/RESULTS.md

benchmark-search: $(PEERS)  ## searches beside Optuna and Ray Tune (about an hour); writes benchmarks/search/RESULTS.md
	for one in $(SEARCH); do $(BIN)/python -m benchmarks.search.$$one || exit 1; done
	cat benchmarks/search/summary.md benchmarks/search/results/*.md > benchmarks/search/RESULTS.md

secrets: .env   ## random passwords and keys for the containers, written to .env once

.env:
	@umask 077; random() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'; }; \
	  printf 'POSTGRES_PASSWORD=%s\nVALKEY_PASSWORD=%s\nTRAINYARD_SECRETS_KEY=%s\nTRAINYARD_SIGNING_KEY=%s\n' \
	    "$$(random | tr -d =)" "$$(random | tr -d =)" "$$(random)" "$$(random | tr -d =)" > .env; \
	  echo "Wrote .env; keep it: what is encrypted with its key can be read with nothing else."

docs: $(READY)   ## write the pages that are made from code (docs/settings.md)
	$(BIN)/python docs/settings_reference.py

test-long: $(READY)  ## the tests that are too long for every day
	$(BIN)/python -m pytest -m long --timeout 1200

fuzz: $(READY)  ## 100,000 requests of schemathesis and of our own to a live API (about half an hour); CASES= and SEED= change that
	$(BIN)/python -m tests.fuzz --cases $(or $(CASES),100000) --seed $(or $(SEED),1)

lock:           ## resolve pyproject.toml into exact versions with hashes (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --extra api pyproject.toml -o requirements/api.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --extra worker pyproject.toml -o requirements/worker.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --extra worker pyproject.toml -o requirements/worker-without-torch.txt \
	  $$(grep -oE '^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z-]+)(\[[a-z,]+\])?==' requirements/worker.txt | sed -E 's/(\[.*\])?==//; s/^/--no-emit-package /')
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --extra api --extra worker --extra local --extra dev pyproject.toml -o requirements/all.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --all-extras pyproject.toml -o requirements/bench.txt

clean:          ## remove the environment and all local state
	rm -rf $(VENV) .trainyard

# The environment is rebuilt when the lock changes. Nothing is installed outside .venv. Ctrl-C leaves no stack trace,
# and an environment whose creation was cut short is made anew.
QUIET_INTERRUPT := import runpy, signal, sys; signal.signal(signal.SIGINT, lambda *_: sys.exit(130));
$(READY): requirements/all.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Trainyard needs Python 3.11 or newer: make PYTHON=/path/to/python3 …"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "Creating the environment in $(VENV) (PyTorch is a large download; once only)"; \
	  $(PYTHON) -c '$(QUIET_INTERRUPT) runpy.run_module("venv", run_name="__main__")' --clear $(VENV); }
	@$(BIN)/python -c '$(QUIET_INTERRUPT) runpy.run_module("pip", run_name="__main__", alter_sys=True)' \
	  install -q --disable-pip-version-check --require-hashes -r requirements/all.txt
	@touch $@

# The benchmarks' peers join the same environment: the lock resolves both together.
$(PEERS): $(READY) requirements/bench.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@
