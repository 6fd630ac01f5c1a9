"""A family around another: its tasks and its verifier, with more turns."""

from __future__ import annotations

from typing import Any

from mutual_env.errors import InvalidInputError
from mutual_env.registry import source_of
from mutual_env.tasks.source import ClosableSource, InteractiveSource, TaskSource
from mutual_env.types import Task
from mutual_env.verifiers import VerifierSpec


class WrappedTasks:
    """The tasks of the family known as `family`, made with the options that are not this one's own."""

    def __init__(self, family: str, options: dict[str, Any]) -> None:
        self.inner: TaskSource = source_of(family, **options)
        if isinstance(self.inner, InteractiveSource):
            raise InvalidInputError(f"family {family!r} has turns of its own: name one of a single turn")

    @property
    def verifier(self) -> VerifierSpec:
        return self.inner.verifier

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        return self.inner.draw(seed, round, n)

    def close(self) -> None:
        if isinstance(self.inner, ClosableSource):
            self.inner.close()
