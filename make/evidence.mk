# What sharing does: suites over paired seeds, and the page that is made from their result files.

.PHONY: evidence-tiny evidence-real
FAMILIES ?= letters retries triple sums

evidence-tiny: install-dev ## every way of sharing on small policies, with controls, ten seeds (hours; resumable)
	@for family in $(FAMILIES); do \
	  $(BIN)/mutual-env suite configs/evidence/$$family.yaml && $(BIN)/python -m benchmarks.evidence collect $$family || exit 1; \
	done
	@$(BIN)/python -m benchmarks.evidence.plane
	@$(BIN)/python -m benchmarks.costs --only tiny
	@$(BIN)/python -m benchmarks.evidence page

# REAL: which part of the suite on real models, as in REAL="--arm sgt --arm grpo --seed 0"; default: all.
evidence-real: install-dev models ## where two real models differ, and what sharing does to them (hours on a CPU; QWEN=directory adds a third to the survey)
	@$(BIN)/python -m benchmarks.evidence.survey smollm2=models/smollm2 gemma3=models/gemma3 $(if $(QWEN),qwen=$(QWEN) --as teacher)
	@$(BIN)/mutual-env suite configs/evidence/real.yaml $(REAL) && $(BIN)/python -m benchmarks.evidence collect real
	@$(BIN)/python -m benchmarks.evidence page
