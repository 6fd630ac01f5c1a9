"""`math/jsonl-v0`: problems from a stored data set, in the published columns of GSM8K, MATH-500 and AIME."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutual_env.errors import DatasetRowError, InvalidInputError
from mutual_env.seeding import generator
from mutual_env.spaces import MAX_CHARS, text_defect
from mutual_env.tasks.rows import Place, read_rows
from mutual_env.tasks.source import Split, check_split, split_of
from mutual_env.types import JSON, Prompt, Task
from mutual_env.verifiers import VerifierSpec

QUESTIONS = ("problem", "question")
ANSWERS = ("answer",)
SOLUTIONS = ("solution",)
_TEMPLATE = "{question}\n\nReason step by step, and put the final answer within \\boxed{}."
_KEPT = ("unique_id", "id", "subject", "level", "year", "type")


class MathTasks:
    """The rows of a data set, each pass over it in another order.

    path             a .jsonl or .parquet file, a folder of them, or a folder written by `datasets`' `save_to_disk`
    eval_path        the held-out rows, if they are stored apart; `path` may then be left out for `split="eval"`
    part, eval_part  which part of a stored `DatasetDict`, or of a folder with files such as train-*.parquet
    split            "train" or "eval". With `eval_path`, "eval" is all of its rows and "train" the rows of `path`
                     whose question is not among them. Without, `eval_share` of the questions are held out, by a hash
                     of their text. Either way no question is in both, whatever the seeds and the order of the rows.
    eval_share       0 trains on every row, 1 holds every row out
    template         the prompt; `{question}` stands for the question
    chat             True: the prompt is one chat message of the user

    Columns, in any case: the question is `problem` or `question`; the answer is `answer`, after its last `####` where
    the first row has one (GSM8K, whose thousands separators are dropped), or else the last `\\boxed{}` of `solution`.
    Rows equal in both are one task. Every round takes the next rows of a pass, in an order that the seed and the pass
    decide; the last round of a pass is filled up from its beginning, so every row comes up in every pass and none
    twice in a round.
    """

    verifier = VerifierSpec("math_verify")

    def __init__(
        self,
        *,
        path: str | Path | None = None,
        eval_path: str | Path | None = None,
        part: str | None = None,
        eval_part: str | None = None,
        split: str = "train",
        eval_share: float = 0.1,
        template: str = _TEMPLATE,
        chat: bool = False,
    ) -> None:
        if "{question}" not in template:
            raise InvalidInputError(f"template must contain {{question}}, got {template!r}")
        if not 0 <= eval_share <= 1:
            raise InvalidInputError(f"eval_share must lie in [0, 1], got {eval_share!r}")
        self._split = check_split(split)
        stored = path if self._split == "train" or eval_path is None else eval_path
        if stored is None:
            raise InvalidInputError(
                "path is missing: name the .jsonl or .parquet file, or the folder, that holds the rows"
            )
        if eval_path is None:
            rows = [row for row in read_problems(stored, part) if split_of(row.question, eval_share) == self._split]
        else:
            rows = _apart(self._split, stored, part, eval_path, eval_part)
        if not rows:
            raise InvalidInputError(f"path {str(stored)!r} holds no rows for split {self._split!r}")
        self._where = str(stored)
        self._tasks = [row.task(template, chat) for row in rows]

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
        order = generator(seed, "math/jsonl-v0", self._split, which).permutation(size)
        return [self._tasks[order[i % size]] for i in range(start, start + n)]


@dataclass(frozen=True, slots=True)
class Problem:
    """One row, read."""

    question: str
    answer: str
    metadata: Mapping[str, JSON]

    def task(self, template: str, chat: bool) -> Task:
        text = template.replace("{question}", self.question)
        prompt: Prompt = ({"role": "user", "content": text},) if chat else text
        key = json.dumps([self.question, self.answer]).encode()
        return Task(
            f"math/jsonl-v0:{hashlib.blake2b(key, digest_size=10).hexdigest()}", prompt, self.answer, self.metadata
        )


def read_problems(path: str | Path, part: str | None = None) -> list[Problem]:
    """The rows without their repetitions, in the stored order; a `DatasetRowError` names the place of a bad one."""
    problems: dict[tuple[str, str], Problem] = {}
    marked: bool | None = None
    for place, row in read_rows(path, part):
        columns = {str(name).lower(): value for name, value in row.items()}
        question = _text(place, columns, QUESTIONS)
        if marked is None:
            marked = "####" in str(columns.get("answer"))
        answer = _answer(place, columns, marked)
        kept: dict[str, JSON] = {k: columns[k] for k in _KEPT if isinstance(columns.get(k), (str, int, float))}
        problems.setdefault((question, answer), Problem(question, answer, kept))
    return list(problems.values())


def _apart(
    split: Split, stored: str | Path, part: str | None, eval_path: str | Path, eval_part: str | None
) -> list[Problem]:
    held_out = read_problems(eval_path, eval_part)
    if split == "eval":
        return held_out
    questions = {row.question for row in held_out}
    return [row for row in read_problems(stored, part) if row.question not in questions]


def _answer(place: Place, columns: Mapping[str, Any], marked: bool) -> str:
    if not any(name in columns for name in ANSWERS):
        return _boxed(place, _text(place, columns, (*SOLUTIONS, *ANSWERS)))
    text = _text(place, columns, ANSWERS)
    if not marked:
        return text
    _, mark, final = text.rpartition("####")
    if not mark or not final.strip():
        raise DatasetRowError(
            f"{place}: field 'answer' must end in '#### <number>' as the first row's does, got {text[-60:]!r}"
        )
    return final.strip().replace(",", "")


def _boxed(place: Place, solution: str) -> str:
    start = solution.rfind("\\boxed{")
    depth = 0
    for i in range(start + 6, len(solution) if start >= 0 else 0):
        depth += {"{": 1, "}": -1}.get(solution[i], 0)
        if depth == 0:
            return solution[start + 7 : i].strip()
    raise DatasetRowError(f"{place}: field 'solution' has no whole \\boxed{{...}} and there is no field 'answer'")


def _text(place: Place, columns: Mapping[str, Any], names: Sequence[str]) -> str:
    name = next((n for n in names if n in columns), None)
    if name is None:
        raise DatasetRowError(
            f"{place}: no field {' or '.join(map(repr, names))}; it has {', '.join(map(repr, columns))}"
        )
    value = columns[name]
    if isinstance(value, int) and not isinstance(value, bool):
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
