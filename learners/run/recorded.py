"""Reading back what a run recorded: who solved what, who taught whom, and any round without reading the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learners.run import lines
from learners.run.directory import RunDirectory
from learners.run.lines import REMEDY, check_fields, read_line, read_lines
from mutual_env.errors import ConfigError, StorageError
from mutual_env.options import check_value, typed

_ROUND = re.compile(rb'"round": (\d+), "policy": "((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Written:
    """One sample as it was recorded. `advantage` is that of the author's own lesson on it, None where it had none."""

    text: str
    reward: float | None
    status: str
    correct: bool
    tokens: int = 0
    detail: str = ""
    advantage: float | None = None

    @classmethod
    def of(cls, fields: Sequence[Any]) -> Written:
        """Runs of earlier versions kept the first three alone."""
        text, reward, status, *more = fields
        return cls(text, reward, status, *more) if more else cls(text, reward, status, bool(reward))


@dataclass(frozen=True, slots=True)
class RecordedGroup:
    """One policy's samples of one prompt."""

    task: str
    prompt: str | Sequence[Mapping[str, str]]
    answer: str
    samples: tuple[Written, ...]


@dataclass(frozen=True, slots=True)
class RecordedLesson:
    """One borrowed lesson, and what became of it: `given` is the weight it was trained with, None where `dropped` says
    why not. `pieces`: text, chunk, log ratio of each of the reader's tokens, where they were kept."""

    reader: str
    author: str
    task: str
    text: str
    advantage: float
    weight: float
    loss: str
    correction: str
    dropped: str = ""
    given: float | None = None
    exact: float | None = None
    ratio: float | None = None
    pieces: tuple[tuple[str, int, float | None], ...] = ()


@dataclass(frozen=True, slots=True)
class RecordedRound:
    """`groups[policy]`, and the lessons that policies borrowed. `left_out`: groups and lessons beyond the allowance."""

    number: int
    groups: Mapping[str, tuple[RecordedGroup, ...]]
    lessons: tuple[RecordedLesson, ...]
    left_out: int


class Recorded:
    """The rounds of a run. Files are gone through once, for where each round stands; a round is read when asked for."""

    def __init__(self, path: Path) -> None:
        directory = RunDirectory.open(path)
        self._files = (directory.samples, directory.lessons)
        self._places: dict[int, list[tuple[Path, int]]] = {}
        policies: dict[str, None] = {}
        for file in self._files:
            for number, policy, offset in _places(file):
                self._places.setdefault(number, []).append((file, offset))
                policies[policy] = None
        self.policies = tuple(policies)
        self.numbers = tuple(sorted(self._places))

    @property
    def size(self) -> int:
        """Bytes of all rounds."""
        return sum(file.stat().st_size for file in self._files if file.is_file())

    def round(self, number: int) -> RecordedRound:
        groups: dict[str, tuple[RecordedGroup, ...]] = {}
        lessons: list[RecordedLesson] = []
        left_out = 0
        for line in self.lines(number):
            content = read_line(line, where := f"{self._files[0].parent}, round {number}")
            check_fields({"left_out": 0, **content}, {"policy": str, "left_out": int}, where)
            left_out += content.get("left_out", 0)
            with _whole(where):
                if "groups" in content:
                    groups[content["policy"]] = tuple(map(_group, content["groups"]))
                lessons += [_lesson(content["policy"], lesson) for lesson in content.get("lessons", ())]
        return RecordedRound(number, groups, tuple(lessons), left_out)

    def lines(self, number: int) -> Iterator[bytes]:
        """The round's lines as they stand in the files."""
        for path, offset in self._places[number]:
            with path.open("rb") as file:
                file.seek(offset)
                yield file.readline()


@dataclass(frozen=True, slots=True)
class Shares:
    """Of one round: how many prompts each policy solved, prompt by prompt; and of each reader, author -> (lessons,
    accepted, pull)."""

    number: int
    right: Mapping[str, tuple[int, ...]]
    flow: Mapping[str, Mapping[str, tuple[float, float, float]]]
    dropped: Mapping[str, Mapping[str, int]]


def read_shares(path: Path) -> list[Shares]:
    """Every round's counts, which are of everything whatever was left out."""
    directory = RunDirectory.open(path)
    found: dict[int, Shares] = {}
    samples, lessons = read_lines(directory.samples, lines.samples), read_lines(directory.lessons, lines.lessons)
    for line in (*samples, *lessons):
        at = found.setdefault(line["round"], Shares(line["round"], {}, {}, {}))
        right, flow, dropped = dict(at.right), dict(at.flow), dict(at.dropped)
        if "right" in line:
            right[line["policy"]] = tuple(line["right"])
        if "flow" in line:
            flow[line["policy"]] = {author: tuple(counts) for author, counts in line["flow"].items()}
            dropped[line["policy"]] = line["dropped"]
        found[line["round"]] = Shares(line["round"], right, flow, dropped)
    return [found[number] for number in sorted(found)]


def _places(path: Path) -> Iterator[tuple[int, str, int]]:
    """Round, policy and offset of every whole line."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        offset = 0
        for line in file:
            head = _ROUND.search(line, 0, 400)
            if head is not None and line.endswith(b"\n"):
                with _whole(str(path)):
                    policy = json.loads(b'"' + head[2] + b'"')
                yield int(head[1]), policy, offset
            offset += len(line)


@contextmanager
def _whole(where: str) -> Iterator[None]:
    """A boundary: what a damaged file makes of the parts of a line."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise StorageError(f"{where} was damaged ({type(error).__name__}: {error}): {REMEDY}") from error


def _group(content: Mapping[str, Any]) -> RecordedGroup:
    task = content.get("task") or json.dumps(content["prompt"])
    samples = tuple(typed(Written.of(sample)) for sample in content["completions"])
    group = typed(RecordedGroup(task, content["prompt"], str(content["answer"]), samples))
    for message in () if isinstance(group.prompt, str) else group.prompt:
        check_value("prompt", message["content"], str)
    return group


def _lesson(reader: str, content: Mapping[str, Any]) -> RecordedLesson:
    known = {key: content[key] for key in RecordedLesson.__dataclass_fields__ if key in content and key != "pieces"}
    pieces = tuple((text, chunk, log) for text, chunk, log in content.get("pieces", ()))
    return typed(RecordedLesson(reader=reader, pieces=pieces, **known))
