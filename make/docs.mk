# The documentation as a site, and everything on it as Markdown.
.PHONY: docs docs-serve install-docs

install-docs: $(VENV)/.installed-docs ## mkdocs, its theme and the reader of docstrings

docs: install-docs ## build the site into site/; a link that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

docs-serve: install-docs ## look at the site while writing it
	@$(BIN)/python -m mkdocs serve

$(VENV)/.installed-docs: pyproject.toml make/docs.mk $(VENV)/.installed-dev
	@$(PIP) --editable '.[docs]'
	@touch $@
