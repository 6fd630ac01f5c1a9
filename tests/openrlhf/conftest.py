"""These tests need an environment of their own: they run where they are asked for, with `-m openrlhf`."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "openrlhf" in config.option.markexpr:
        return
    elsewhere = [item for item in items if item.get_closest_marker("openrlhf")]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in elsewhere]
