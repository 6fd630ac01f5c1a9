# Reports in a real browser. Chromium and its driver come from the distribution: a headless one is enough.
.PHONY: test-browser install-browser

install-browser: $(VENV)/.installed-browser ## Chromium, its driver and selenium, for the tests of reports

test-browser: install-browser ## look at reports in a real headless Chromium
	@$(BIN)/python -m pytest tests/browser -m browser

$(VENV)/.installed-browser: pyproject.toml make/browser.mk $(VENV)/.installed-dev
	@which chromium chromedriver > /dev/null || (apt-get update -qq && apt-get install -y -qq chromium chromium-driver > /dev/null)
	@$(PIP) --editable '.[browser]'
	@touch $@
