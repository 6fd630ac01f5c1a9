# Trackers of experiments, the real packages, in an environment of their own: their pins and the others' do not agree.
TRACKERS_VENV ?= .venv-trackers
TRACKERS_PIP = $(TRACKERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: test-trackers install-trackers

install-trackers: $(TRACKERS_VENV)/.installed ## TensorBoard, Weights & Biases, MLflow and trackio, in an environment of their own

test-trackers: install-trackers ## what each tracker writes, offline
	@$(TRACKERS_VENV)/bin/python -m pytest tests/trackers -m trackers -p no:cacheprovider

$(TRACKERS_VENV)/.installed: pyproject.toml make/trackers.mk
	@$(PYTHON) -m venv $(TRACKERS_VENV)
	@echo "installing the trackers ..."
	@$(TRACKERS_PIP) pytest pytest-timeout --editable '.[tensorboard,wandb,mlflow,trackio]'
	@touch $@
