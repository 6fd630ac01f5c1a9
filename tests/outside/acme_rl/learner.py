"""A learner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from learners import Example
from learners.tabular import TabularLearner
from mutual_env.types import Metrics


class Patient(TabularLearner):
    """Says how long it has been learning."""

    def __init__(self, *args: Any, born: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        self._born = born

    def update(self, examples: Sequence[Example]) -> Metrics:
        return {**super().update(examples), "acme/age": float(self._born + self.version)}
