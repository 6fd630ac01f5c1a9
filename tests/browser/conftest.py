"""A real headless Chromium, and reports of a real suite to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from learners.cli import main

SUITE = """
name: pair
seeds: [0]
base:
  rounds: 50
  env: {id: mutual/arithmetic-v0, group_size: 6, prompts_per_round: 5, options: {digits: 1, modulus: 10}}
  policies:
    ada:
      learner: tabular
      options: {tokenizer: {kind: char, alphabet: "0123456789+=()%"}, alphabet: "0123456789", max_new_tokens: 2}
    bob:
      learner: tabular
      options:
        tokenizer: {kind: pair, alphabet: "0123456789+=()%", merges: ["12", "%1"]}
        alphabet: "0123456789"
        max_new_tokens: 2
  evaluation: {every: 25, prompts: 12, samples: 2, part: operation}
arms:
  sgt: {sharing.strategy: sgt}
  ftis: {sharing.strategy: ftis}
"""
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip

Open = Callable[..., "object"]


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("suite")
    path = root / "suite.yaml"
    path.write_text(SUITE + f"output: {root}\n")
    assert main(["suite", str(path), "--quiet"]) == 0
    return root / "pair"


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


@pytest.fixture
def open_page(chromium) -> Open:
    from selenium.webdriver.support.ui import WebDriverWait

    def open_(path: Path, *, width: int = 1280, dark: bool = False, rounds: bool = True):
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 600}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chromium.get(path.as_uri())
        if rounds:
            WebDriverWait(chromium, 20).until(
                lambda d: d.execute_script("return document.querySelector('#rounds').dataset.ready")
            )
        return chromium

    return open_
