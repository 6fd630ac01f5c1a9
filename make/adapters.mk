# Other libraries' environments, the real packages, in an environment of their own.
ADAPTERS_VENV ?= .venv-adapters
ADAPTERS_PIP = $(ADAPTERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: test-adapters install-adapters

install-adapters: $(ADAPTERS_VENV)/.installed ## TextArena, OpenEnv, verifiers and Tinker, in an environment of their own

test-adapters: install-adapters install-dev ## their games, servers and tasksets in, our tasks out; TRL's trainer on our conversations
	@$(ADAPTERS_VENV)/bin/python -m pytest tests/adapters -m adapters -p no:cacheprovider
	@$(BIN)/python -m pytest tests/learners/test_trl_adapter.py

$(ADAPTERS_VENV)/.installed: pyproject.toml make/adapters.mk
	@$(PYTHON) -m venv $(ADAPTERS_VENV)
	@echo "installing the adapters' libraries ..."
	@make/install-torch.sh $(ADAPTERS_VENV)
	@$(ADAPTERS_PIP) pytest pytest-timeout --editable '.[textarena,openenv,verifiers,tinker]'
	@touch $@
