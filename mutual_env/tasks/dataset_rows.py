"""`dataset/jsonl-v0`: any data set, its columns named by the caller, checked by any verifier."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from mutual_env.errors import InvalidInputError
from mutual_env.tasks.rows import Paths, Place, Row, read_hub, read_rows
from mutual_env.tasks.source import check_split
from mutual_env.tasks.stored import Halves, Passes, answer_of, answered, cell, messages_of, task_id, text_of
from mutual_env.types import JSON, Prompt, Task
from mutual_env.verifiers import VerifierSpec

PROMPT, ANSWER = "prompt", "answer"
Rows: TypeAlias = Callable[[Paths, str | None], Iterator[Row]]
_COLUMNS = {PROMPT: "prompt", ANSWER: "answer"}


class DatasetTasks:
    """The rows of a data set, each pass over it in another order.

    path             a .jsonl, .csv, .tsv or .parquet file, a folder of them, a folder written by `datasets`'
                     `save_to_disk`, or several of these; with `network`, the name of a data set on the Hub
    eval_path        the held-out rows, if they are stored apart; `path` may then be left out for `split="eval"`
    part, eval_part  which part of a `DatasetDict`, or of a folder with files such as train-*.parquet
    split            "train" or "eval": all rows of `eval_path`, or `eval_share` of the questions, by a hash of their
                     text. No question is in both.
    columns          where a row says what: `prompt` and `answer`, each a column or a dotted path into one
                     ("reward_model.ground_truth", "messages.0.content"), and further names for use in `template`
    template         the prompt; `{prompt}` and every other name of `columns` in braces stand for what the row says
    answer_after     the answer is what follows the last of these marks, such as "####"; empty: the whole column
    keep             columns that go along as the task's metadata, for reports and for verifiers that read them
    network          allow the Hub to be asked for a `path` that is no file here; never by itself
    hub_config       which configuration of a data set on the Hub
    skip_unanswered  leave rows without an answer out, instead of refusing the file

    A prompt column holds text, or chat messages, which stay messages and take no template. Rows with the same prompt
    and answer are one task. The verifier is `exact` unless the caller names another.
    """

    verifier = VerifierSpec("exact")

    def __init__(
        self,
        *,
        path: Paths | None = None,
        eval_path: Paths | None = None,
        part: str | None = None,
        eval_part: str | None = None,
        split: str = "train",
        eval_share: float = 0.1,
        columns: Mapping[str, str] | None = None,
        template: str = "{prompt}",
        answer_after: str = "",
        keep: Sequence[str] = (),
        network: bool = False,
        hub_config: str | None = None,
        skip_unanswered: bool = False,
    ) -> None:
        halves = Halves(path, eval_path, part, eval_part, check_split(split), eval_share)
        form = _Form.of(columns or {}, template, answer_after, keep)
        read = partial(_read, form, partial(_on_hub, hub_config) if network else read_rows, skip_unanswered)
        rows = halves.rows(read, lambda row: row.question)
        self._passes = Passes([row.task for row in rows], halves.where, halves.split, "dataset/jsonl-v0")

    def __len__(self) -> int:
        return len(self._passes)

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        return self._passes.draw(seed, round, n)


@dataclass(frozen=True, slots=True)
class _Form:
    """How a row becomes a task."""

    columns: Mapping[str, str]
    template: str
    answer_after: str
    keep: tuple[str, ...]

    @classmethod
    def of(cls, columns: Mapping[str, str], template: str, answer_after: str, keep: Sequence[str]) -> _Form:
        named = {**_COLUMNS, **columns}
        for name, column in named.items():
            if not (isinstance(name, str) and isinstance(column, str) and column):
                raise InvalidInputError(f"columns must map names to columns, got {name!r}: {column!r}")
        if isinstance(keep, str):
            raise InvalidInputError(f"keep must be a list of columns, got the single text {keep!r}")
        if not any(f"{{{name}}}" in template for name in named if name != ANSWER):
            raise InvalidInputError(f"template must contain {{prompt}} or another name of columns, got {template!r}")
        return cls(named, template, answer_after, tuple(keep))

    @property
    def used(self) -> list[str]:
        """The names that the template speaks of."""
        return [name for name in self.columns if f"{{{name}}}" in self.template and name != ANSWER]

    def read(self, placed: Row) -> _Read:
        place, row = placed
        answer = self._answer(place, row)
        kept: dict[str, JSON] = {name: _plain(cell(row, name, place), name, place) for name in self.keep}
        prompt = self._prompt(place, row)
        question = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        texts = [prompt] if isinstance(prompt, str) else [m["content"] for m in prompt]
        return _Read(question, Task(task_id("dataset/jsonl-v0", *texts, answer), prompt, answer, kept))

    def _prompt(self, place: Place, row: Mapping[str, Any]) -> Prompt:
        said = {name: cell(row, self.columns[name], place) for name in self.used}
        if self.template == "{prompt}" and isinstance(said[PROMPT], (list, tuple)):
            return messages_of(said[PROMPT], self.columns[PROMPT], place)
        texts = {name: text_of(value, self.columns[name], place) for name, value in said.items()}
        names = "|".join(map(re.escape, texts))
        return re.sub(rf"\{{({names})\}}", lambda found: texts[found[1]], self.template)

    def _answer(self, place: Place, row: Mapping[str, Any]) -> str:
        column = self.columns[ANSWER]
        text = answer_of(cell(row, column, place), column, place)
        if not self.answer_after:
            return text
        _, mark, rest = text.rpartition(self.answer_after)
        return answer_of(rest if mark else "", f"{column} after {self.answer_after!r}", place)


@dataclass(frozen=True, slots=True)
class _Read:
    question: str
    task: Task


def _read(form: _Form, rows: Rows, skip: bool, path: Paths, part: str | None) -> list[_Read]:
    read: dict[str, _Read] = {}
    for one in answered(rows(path, part), form.read, skip=skip):
        read.setdefault(one.task.id, one)
    return list(read.values())


def _on_hub(config: str | None, path: Paths, part: str | None) -> Iterator[Row]:
    """From the Hub, unless it is a file or a folder here."""
    if isinstance(path, str) and not Path(path).exists():
        return read_hub(path, config, part)
    return read_rows(path, part)


def _plain(value: Any, name: str, place: Place) -> JSON:
    """A cell as metadata: JSON as it is, anything else by its text."""
    if isinstance(value, (str, int, bool, type(None))) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, name, place) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, name, place) for inner in value]
    return text_of(str(value), name, place)
