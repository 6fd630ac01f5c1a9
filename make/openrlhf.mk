# OpenRLHF in an environment of its own: its pins do not go with the rest.
OPENRLHF_VENV ?= .venv-openrlhf

.PHONY: test-openrlhf install-openrlhf

install-openrlhf: $(OPENRLHF_VENV)/.installed ## OpenRLHF, for a machine without a GPU, in an environment of its own

test-openrlhf: install-openrlhf ## install OpenRLHF, then run the tests of its learner on the real package
	@$(OPENRLHF_VENV)/bin/python -m pytest tests/openrlhf -m openrlhf -p no:cacheprovider

# flock: pip writes what it makes of an editable package into the checkout, and another environment may be made beside it.
$(OPENRLHF_VENV)/.installed: requirements/openrlhf-cpu.txt pyproject.toml make/openrlhf.mk
	@$(PYTHON) -m venv $(OPENRLHF_VENV)
	@echo "installing torch ..."
	@make/install-torch.sh $(OPENRLHF_VENV)
	@echo "installing OpenRLHF ..."
	@$(OPENRLHF_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements/openrlhf-cpu.txt
	@$(OPENRLHF_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps openrlhf==0.11.2 ring-flash-attn==0.1.8
	@flock pyproject.toml $(OPENRLHF_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
