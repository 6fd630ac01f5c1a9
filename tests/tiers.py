"""Which cases `make test` tries, and which `make test-long` does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def rest_long(cases: Iterable[Any], *, quick: int) -> list[Any]:
    """The first cases are tried by `make test`, all of them with `make test-long`."""
    found = list(cases)
    return [*found[:quick], *(long(case) for case in found[quick:])]


def long(case: Any) -> Any:
    """A case of a parametrized test: a value, or a tuple of several."""
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long)
