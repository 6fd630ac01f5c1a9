"""The files of lines that a run writes as it goes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass

from learners.run.directory import RunDirectory
from learners.run.lines import JsonLines


@dataclass(frozen=True, slots=True)
class Files:
    """What a run writes as it goes."""

    metrics: JsonLines
    timings: JsonLines
    samples: JsonLines
    lessons: JsonLines
    evaluations: JsonLines

    @classmethod
    def open(cls, directory: RunDirectory, stack: ExitStack) -> Files:
        paths = (directory.metrics, directory.timings, directory.samples, directory.lessons, directory.evaluations)
        return cls(*(stack.enter_context(closing(JsonLines(path))) for path in paths))

    def sync(self) -> None:
        """What they hold by now is on the disk."""
        for name in self.__slots__:
            getattr(self, name).sync()

    def positions(self) -> dict[str, int]:
        return {name: getattr(self, name).position() for name in self.__slots__}

    def cut(self, positions: Mapping[str, int]) -> None:
        for name in self.__slots__:
            getattr(self, name).cut(positions.get(name, 0))
