# The commands of this repository. `make` alone lists them.
# Everything installs into .venv here; nothing else on the machine is touched.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help quickstart test install install-dev lint format typecheck bench clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

quickstart: install ## install, then train two small policies of different families alone and together, and compare them
	@$(BIN)/mutual-env suite configs/quickstart.yaml

test: install-dev ## install, then run all tests
	@$(BIN)/python -m pytest -n 2 --dist worksteal

lint: install-dev ## ruff, linter and formatter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: install-dev ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

typecheck: install-dev ## mypy, strict
	@$(BIN)/mypy

bench: install-dev ## run the benchmarks and rewrite docs/performance.md
	@$(BIN)/python -m benchmarks

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

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.torch
	@echo "installing mutual-env and its development tools ..."
	@$(PIP) --editable '.[torch,math,gym,data,report,tokenizers,models,dev]'
	@touch $@ $(VENV)/.installed

clean: ## remove environments, caches and run outputs
	rm -rf .venv* runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks build dist *.egg-info

-include make/*.mk
