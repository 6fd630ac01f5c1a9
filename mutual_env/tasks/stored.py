"""What task families over stored rows share: which rows a split has, what a cell says, and passes over the tasks."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mutual_env.errors import DatasetRowError, InvalidInputError
from mutual_env.seeding import generator
from mutual_env.spaces import MAX_CHARS, text_defect
from mutual_env.tasks.rows import Paths, Place, Row
from mutual_env.tasks.source import Split, split_of
from mutual_env.types import Message, Task

R = TypeVar("R")
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Halves:
    """Where rows are stored, and which of them a split has.

    With `eval_path`, "eval" is all of its rows and "train" the rows of `path` whose question is not among them.
    Without, `eval_share` of the questions are held out, by a hash of their text. Either way no question is in both,
    whatever the seeds and the order of the rows.
    """

    path: Paths | None
    eval_path: Paths | None
    part: str | None
    eval_part: str | None
    split: Split
    eval_share: float

    def __post_init__(self) -> None:
        if not (isinstance(self.eval_share, (int, float)) and 0 <= self.eval_share <= 1):
            raise InvalidInputError(f"eval_share must lie in [0, 1], got {self.eval_share!r}")

    @property
    def stored(self) -> Paths:
        """Where the rows of this split lie."""
        stored = self.path if self.split == "train" or self.eval_path is None else self.eval_path
        if stored is None:
            raise InvalidInputError(
                "path is missing: name the .jsonl, .csv or .parquet file, or the folder, that holds the rows"
            )
        return stored

    @property
    def where(self) -> str:
        """The same, for sentences."""
        return str(self.stored) if isinstance(self.stored, (str, Path)) else ", ".join(map(str, self.stored))

    def rows(self, read: Callable[[Paths, str | None], Sequence[R]], question: Callable[[R], str]) -> list[R]:
        """The rows of this split, read by `read`; at least one."""
        stored = self.stored
        if self.eval_path is None:
            rows = [r for r in read(stored, self.part) if split_of(question(r), self.eval_share) == self.split]
        elif self.split == "eval":
            rows = list(read(self.eval_path, self.eval_part))
        else:
            held_out = {question(r) for r in read(self.eval_path, self.eval_part)}
            rows = [r for r in read(stored, self.part) if question(r) not in held_out]
        if not rows:
            raise InvalidInputError(f"path {self.where!r} holds no rows for split {self.split!r}")
        return rows


class Passes:
    """Every round takes the next tasks of a pass, in an order that the seed and the pass decide; the last round of a
    pass is filled up from its beginning, so every task comes up in every pass and none twice in a round."""

    def __init__(self, tasks: Sequence[Task], where: str, split: Split, name: str) -> None:
        self._tasks, self._where, self._split, self._name = list(tasks), where, split, name

    def __len__(self) -> int:
        return len(self._tasks)

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        size = len(self._tasks)
        if n > size:
            raise InvalidInputError(
                f"prompts_per_round={n}: {self._where!r} has only {size} rows for split {self._split!r}"
            )
        rounds_per_pass = -(-size // n)
        which, start = round // rounds_per_pass, round % rounds_per_pass * n
        order = generator(seed, self._name, self._split, which).permutation(size)
        return [self._tasks[order[i % size]] for i in range(start, start + n)]


def task_id(family: str, *parts: str) -> str:
    """The same for the same texts, in every process."""
    return f"{family}:{hashlib.blake2b(json.dumps(parts).encode(), digest_size=10).hexdigest()}"


def cell(row: Mapping[str, Any], path: str, place: Place) -> Any:
    """What stands at a dotted path, as in "reward_model.ground_truth" or "prompt.0.content"; a column of that very name
    goes first."""
    value: Any = row.get(path, _MISSING)
    if value is _MISSING:
        value, there = row, ""
        for step in path.split("."):
            outer, value = value, _inside(value, step)
            if value is _MISSING:
                has = named(outer) if isinstance(outer, Mapping) else f"no field {step!r} in it"
                raise DatasetRowError(f"{place}: no field {path!r}; {repr(there) if there else 'it'} has {has}")
            there = f"{there}.{step}".lstrip(".")
    return value


def named(row: Mapping[str, Any]) -> str:
    """The names of its fields, for a sentence."""
    return f"{', '.join(map(repr, row)):.300}"


def _inside(value: Any, step: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(step, _MISSING)
    if isinstance(value, (list, tuple)) and step.isdecimal() and int(step) < len(value):
        return value[int(step)]
    return _MISSING


class UnansweredRowError(DatasetRowError):
    """A row that holds no answer: a caller may leave those out."""


def answer_of(value: Any, name: str, place: Place) -> str:
    """A cell with the answer."""
    try:
        return text_of(value, name, place)
    except DatasetRowError as error:
        if value is None or (isinstance(value, str) and not value.strip()):
            raise UnansweredRowError(f"{error}; skip_unanswered=True leaves such rows out") from None
        raise


def answered(rows: Iterable[Row], read: Callable[[Row], R], *, skip: bool) -> Iterator[R]:
    """What `read` makes of each row; of those without an answer nothing, if they are to be skipped."""
    for row in rows:
        try:
            yield read(row)
        except UnansweredRowError:
            if not skip:
                raise


def text_of(value: Any, name: str, place: Place) -> str:
    """A cell as text without the white space around it; numbers as they are written, whole ones without a point."""
    if isinstance(value, Mapping):
        inner = next((str(key) for key in value), "...")
        has = f"has fields of its own, {named(value)}" if value else "is an empty mapping"
        raise DatasetRowError(f"{place}: field {name!r} {has}: name one of them, as in {f'{name}.{inner}'!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise DatasetRowError(f"{place}: field {name!r} is {value!r}, which is no number to compare with")
    if isinstance(value, float) and value == int(value):
        value = int(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)  # AIME's answers are stored as numbers
    defect = text_defect(value, MAX_CHARS)
    if defect is None and "\0" in value:
        defect = f"has a NUL at {value.index(chr(0))}"
    if defect is not None:
        raise DatasetRowError(f"{place}: field {name!r} {defect}")
    if not value.strip():
        raise DatasetRowError(f"{place}: field {name!r} is blank")
    text: str = value.strip()
    return text


def messages_of(value: Any, name: str, place: Place) -> tuple[Message, ...]:
    """A cell with chat messages."""
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(m, Mapping) for m in value):
        raise DatasetRowError(f"{place}: field {name!r} must be a list of messages with 'role' and 'content'")
    return tuple({"role": _said(m, "role", name, place), "content": _said(m, "content", name, place)} for m in value)


def _said(message: Mapping[str, Any], key: str, name: str, place: Place) -> str:
    return text_of(cell(message, key, place), f"{name}.{key}", place)
