# What sharing does: suites over paired seeds, and the page that is made from their result files.

.PHONY: evidence-tiny evidence-real
FAMILIES ?= letters retries triple

evidence-tiny: install-dev ## every way of sharing on small policies, with controls, ten seeds (hours; resumable)
	@for family in $(FAMILIES); do \
	  $(BIN)/python -m benchmarks.evidence run $$family && $(BIN)/python -m benchmarks.evidence collect $$family || exit 1; \
	done
	@$(BIN)/python -m benchmarks.evidence page

evidence-real: install-dev models ## where two real models differ, family by family (hours on a CPU; QWEN=directory adds a third)
	@$(BIN)/python -m benchmarks.evidence.survey smollm2=models/smollm2 gemma3=models/gemma3 $(if $(QWEN),qwen=$(QWEN))
