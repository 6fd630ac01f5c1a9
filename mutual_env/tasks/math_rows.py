"""`math/jsonl-v0`: problems from a stored data set, in the published columns of GSM8K, MATH-500 and AIME, or in the
form of verl's training files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mutual_env.errors import DatasetRowError, InvalidInputError
from mutual_env.prompts import PromptShape
from mutual_env.tasks.rows import Paths, Place, Row, read_rows
from mutual_env.tasks.source import check_split
from mutual_env.tasks.stored import Halves, Passes, answer_of, answered, cell, messages_of, named, task_id, text_of
from mutual_env.types import JSON, Message, Prompt, Task
from mutual_env.verifiers import VerifierSpec
from mutual_env.verifiers.answers import last_boxed

QUESTIONS = ("problem", "question")
ANSWERS = ("answer",)
SOLUTIONS = ("solution",)
TRUTHS = ("target", "answer", "solution")
_TEMPLATE = "{question}\n\nReason step by step, and put the final answer within \\boxed{}."
_KEPT = ("unique_id", "id", "subject", "level", "year", "type", "data_source")


class MathTasks:
    """The rows of a data set, each pass over it in another order.

    path             a .jsonl, .csv or .parquet file, a folder of them, a folder written by `datasets`' `save_to_disk`,
                     or several of these
    eval_path        the held-out rows, if they are stored apart; `path` may then be left out for `split="eval"`
    part, eval_part  which part of a stored `DatasetDict`, or of a folder with files such as train-*.parquet
    split            "train" or "eval". With `eval_path`, "eval" is all of its rows and "train" the rows of `path`
                     whose question is not among them. Without, `eval_share` of the questions are held out, by a hash
                     of their text. Either way no question is in both, whatever the seeds and the order of the rows.
    eval_share       0 trains on every row, 1 holds every row out
    template         the prompt; `{question}` stands for the question. None: the messages as published in verl's form,
                     else the question and a request to reason step by step and to box the answer
    chat             True: the prompt is one chat message of the user
    skip_unanswered  leave rows without an answer out, instead of refusing the file

    Columns, in any case: the question is `problem` or `question`; the answer is `answer`, after its last `####` where
    the first row has one (GSM8K, whose thousands separators are dropped), or else the last `\\boxed{}` of `solution`.
    In verl's form the question is the last message of `prompt` and the answer `reward_model.ground_truth`, a text, a
    number or a mapping with `target`. Rows equal in question and answer are one task. Every round takes the next rows
    of a pass, in an order that the seed and the pass decide; the last round of a pass is filled up from its beginning,
    so every row comes up in every pass and none twice in a round.
    """

    verifier = VerifierSpec("math_verify")

    def __init__(
        self,
        *,
        path: Paths | None = None,
        eval_path: Paths | None = None,
        part: str | None = None,
        eval_part: str | None = None,
        split: str = "train",
        eval_share: float = 0.1,
        template: str | None = None,
        chat: bool = False,
        skip_unanswered: bool = False,
    ) -> None:
        if template is not None and "{question}" not in template:
            raise InvalidInputError(f"template must contain {{question}}, got {template!r}")
        halves = Halves(path, eval_path, part, eval_part, check_split(split), eval_share)
        rows = halves.rows(partial(read_problems, skip_unanswered=skip_unanswered), lambda problem: problem.question)
        self._passes = Passes([r.task(template, chat) for r in rows], halves.where, halves.split, "math/jsonl-v0")

    def __len__(self) -> int:
        return len(self._passes)

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        return self._passes.draw(seed, round, n)


@dataclass(frozen=True, slots=True)
class Problem:
    """One row, read. `messages`: the prompt as it was published, where it was."""

    question: str
    answer: str
    metadata: Mapping[str, JSON]
    messages: tuple[Message, ...] = ()

    def task(self, template: str | None, chat: bool) -> Task:
        prompt: Prompt = (template or _TEMPLATE).replace("{question}", self.question)
        if template is None and self.messages:
            prompt = self.messages
        return Task(
            task_id("math/jsonl-v0", self.question, self.answer),
            PromptShape(chat=True)(prompt) if chat else prompt,
            self.answer,
            self.metadata,
        )


def read_problems(path: Paths, part: str | None = None, *, skip_unanswered: bool = False) -> list[Problem]:
    """The rows without their repetitions, in the stored order; a `DatasetRowError` names the place of a bad one."""
    reader = _Reader()
    problems: dict[tuple[str, str], Problem] = {}
    for problem in answered(read_rows(path, part), reader.read, skip=skip_unanswered):
        problems.setdefault((problem.question, problem.answer), problem)
    return list(problems.values())


class _Reader:
    """Knows from the first row whether answers end in "#### <number>"."""

    def __init__(self) -> None:
        self._marked: bool | None = None

    def read(self, row: Row) -> Problem:
        place, columns = row[0], {str(name).lower(): value for name, value in row[1].items()}
        kept: dict[str, JSON] = {k: columns[k] for k in _KEPT if isinstance(columns.get(k), (str, int, float))}
        if isinstance(columns.get("reward_model"), Mapping):
            return _published(place, columns, kept)
        question = _text(place, columns, QUESTIONS)
        if self._marked is None:
            self._marked = "####" in str(columns.get("answer"))
        return Problem(question, _answer(place, columns, self._marked), kept)


def _published(place: Place, columns: Mapping[str, Any], kept: Mapping[str, JSON]) -> Problem:
    """A row in verl's form."""
    messages = messages_of(cell(columns, "prompt", place), "prompt", place)
    truth = cell(columns, "reward_model.ground_truth", place)
    name = "reward_model.ground_truth"
    if isinstance(truth, Mapping):
        inner = next((n for n in TRUTHS if n in truth), TRUTHS[0])
        name, truth = f"{name}.{inner}", cell(truth, inner, place)
    return Problem(text_of(messages[-1]["content"], "prompt", place), answer_of(truth, name, place), kept, messages)


def _answer(place: Place, columns: Mapping[str, Any], marked: bool) -> str:
    if not any(name in columns for name in ANSWERS):
        solution = _text(place, columns, (*SOLUTIONS, *ANSWERS))
        boxed = last_boxed(solution)
        if boxed is None:
            raise DatasetRowError(
                f"{place}: field 'solution' has no whole \\boxed{{...}} and there is no field 'answer'"
            )
        return boxed.strip()
    text = _text(place, columns, ANSWERS, answer_of)
    if not marked:
        return text
    _, mark, final = text.rpartition("####")
    if not mark or not final.strip():
        raise DatasetRowError(
            f"{place}: field 'answer' must end in '#### <number>' as the first row's does, got {text[-60:]!r}"
        )
    return final.strip().replace(",", "")


def _text(
    place: Place, columns: Mapping[str, Any], names: Sequence[str], read: Callable[[Any, str, Place], str] = text_of
) -> str:
    name = next((n for n in names if n in columns), None)
    if name is None:
        raise DatasetRowError(f"{place}: no field {' or '.join(map(repr, names))}; it has {named(columns)}")
    return read(columns[name], name, place)
