"""A strategy is imported when it is asked for, by its short name or by its class's."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sharing
from sharing import registry


def test_importing_the_package_imports_no_strategy() -> None:
    program = (
        "import sys, sharing, sharing.testing\n"
        "loaded = lambda: sorted(m for m in sys.modules if m.startswith('sharing.strategies.'))\n"
        "print(loaded()); sharing.names(); from sharing import Hacpo; print(loaded())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["[]", "['sharing.strategies.hacpo']"]


def test_every_strategy_of_ours_is_exported_under_its_classs_name() -> None:
    for name in registry.OWN:
        cls = registry.strategy(name)
        assert cls.__name__ in sharing.__all__
        assert getattr(sharing, cls.__name__) is cls
        assert cls.__name__ in dir(sharing)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sharing' has no attribute 'Hackpo'"):
        sharing.Hackpo  # type: ignore[attr-defined]  # noqa: B018
