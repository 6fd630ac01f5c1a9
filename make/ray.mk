# Policies on a Ray cluster. Ray lives in an environment of its own: it is large, and nothing else here needs it.

RAY_VENV ?= .venv-ray
.PHONY: test-ray test-ray-kills test-ray-resumes fleets

test-ray: $(RAY_VENV)/.installed ## the tests on a real Ray cluster of several nodes
	@RAY_USAGE_STATS_ENABLED=0 $(RAY_VENV)/bin/python -m pytest -m 'ray and not slow' tests/resources tests/sharing

test-ray-resumes: $(RAY_VENV)/.installed ## every exchange and staleness there, stopped and resumed (six minutes, more where others compute)
	@RAY_USAGE_STATS_ENABLED=0 $(RAY_VENV)/bin/python -m pytest -m 'ray and slow' tests/resources/test_ray_resumes.py

test-ray-kills: $(RAY_VENV)/.installed ## the same with 30 random kills of workers, of the exchange and of nodes
	@RAY_USAGE_STATS_ENABLED=0 RAY_KILLS=30 $(RAY_VENV)/bin/python -m pytest -m ray -s -k killed tests/resources

fleets: install-dev ## allocate for 10,000 random fleets and check every one
	@FLEETS=10000 $(BIN)/python -m pytest -o timeout=7200 tests/resources/test_simulate.py

$(RAY_VENV)/.installed: pyproject.toml
	@$(PYTHON) -m venv $(RAY_VENV)
	@echo "installing torch ..."
	@make/install-torch.sh $(RAY_VENV)
	@echo "installing mutual-env with ray ..."
	@$(RAY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[torch,ray,dev]'
	@touch $@
