.PHONY: fuzz-turns

fuzz-turns: install-dev ## a hundred thousand random conversations between ten tokenizers
	@$(BIN)/python -m tests.learners.fuzz_turns --cases 100000
