"""`logic/knights-knaves-v0`: who tells the truth? Puzzles from a seed, or the rows of Logic-RL's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mutual_env.errors import DatasetRowError, InvalidInputError
from mutual_env.seeding import generator
from mutual_env.tasks.islanders import FEWEST, MOST, make_puzzle
from mutual_env.tasks.rows import Paths, Row, read_rows
from mutual_env.tasks.source import Split, check_split, split_of, take_distinct
from mutual_env.tasks.stored import Halves, Passes, cell, task_id, text_of
from mutual_env.types import Prompt, Task
from mutual_env.verifiers import VerifierSpec
from mutual_env.verifiers.islanders import roles_of

FAMILY = "logic/knights-knaves-v0"
SYSTEM = (
    "You are a helpful assistant. The assistant first thinks about the reasoning process in the mind and then provides "
    "the user with the answer. The reasoning process and answer are enclosed within <think> </think> and<answer> "
    "</answer> tags, respectively, i.e., <think> reasoning process here </think><answer> answer here </answer>.  Now "
    "the user asks you to solve a logical reasoning problem. After thinking, when you finally reach a conclusion, "
    "clearly state the identity of each character within <answer> </answer> tags. i.e., <answer> (1) Zoey is a "
    "knight\n(2) ... </answer>."
)
"""What the prompts of Logic-RL's files say, so that files and generated puzzles ask in the same words."""


class KnightsKnavesTasks:
    """A puzzle a task; the prompt is a chat of Logic-RL's system message and the puzzle.

    people     how many inhabitants, 2 to 8, or a list of such numbers: the tasks of a round take them in turn. With
               `path`, which rows to take (None: all)
    depth      how deep claims are nested: 2 is one connective, as in Logic-RL, more makes harder puzzles. Plain claims
               alone never leave one solution: with everybody's role turned around they are as true as before
    path       Logic-RL's files, such as kk/3ppl-train.parquet, instead of puzzles from the seed; several are joined
    eval_path  the held-out files, such as kk/3ppl-test.parquet
    split      "train" or "eval". A puzzle belongs to one of them: by a hash of its text (a quarter to "eval", of stored
               rows `eval_share`), or by lying in `eval_path`
    system     the system message; empty: none

    A puzzle has exactly one solution. `Task.answer` has a line for each person, `metadata["people"]` their number. The
    verifier, `knights_knaves`, gives rewards from -3 to 3: see its options for others.
    """

    verifier = VerifierSpec("knights_knaves")

    def __init__(
        self,
        *,
        people: int | Sequence[int] | None = None,
        depth: int = 2,
        path: Paths | None = None,
        eval_path: Paths | None = None,
        eval_share: float = 0.1,
        split: str = "train",
        system: str = SYSTEM,
    ) -> None:
        chosen = _people(people)
        if not (isinstance(depth, int) and 2 <= depth <= 6):
            raise InvalidInputError(f"depth must be a whole number from 2 to 6, got {depth!r}")
        self._source: _Made | Passes
        if path is None and eval_path is None:
            self._source = _Made(chosen or (3,), depth, check_split(split), system)
        else:
            halves = Halves(path, eval_path, None, None, check_split(split), eval_share)
            tasks = halves.rows(lambda stored, _: _read(stored, chosen, system), lambda task: question_of(task.prompt))
            self._source = Passes(tasks, halves.where, halves.split, FAMILY)

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        return self._source.draw(seed, round, n)


@dataclass(frozen=True, slots=True)
class _Made:
    """Puzzles from a seed."""

    people: tuple[int, ...]
    depth: int
    split: Split
    system: str

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        what = f"{FAMILY} (people {list(self.people)}, depth {self.depth}, split {self.split!r})"
        return take_distinct(self._candidates(seed, round, attempts=100 + 20 * n), n, what)

    def _candidates(self, seed: int, round: int, attempts: int) -> Iterator[Task]:
        rng = generator(seed, FAMILY, self.split, round)
        taken = 0
        for _ in range(attempts):
            puzzle = make_puzzle(rng, self.people[taken % len(self.people)], self.depth)
            if split_of(puzzle.text) == self.split:
                taken += 1
                yield _task(puzzle.text, puzzle.solution, self.system)


def question_of(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def _task(question: str, solution: str, system: str) -> Task:
    asked = {"role": "user", "content": question}
    prompt: Any = ({"role": "system", "content": system}, asked) if system else (asked,)
    return Task(task_id(FAMILY, question, solution), prompt, solution, {"people": len(roles_of(solution))})


def _people(people: int | Sequence[int] | None) -> tuple[int, ...]:
    chosen = () if people is None else (people,) if isinstance(people, int) else tuple(people)
    if people is not None and not chosen:
        raise InvalidInputError(f"people is empty: give a number from {FEWEST} to {MOST}, or several")
    for number in chosen:
        if isinstance(number, bool) or not isinstance(number, int) or not FEWEST <= number <= MOST:
            raise InvalidInputError(f"people must be whole numbers from {FEWEST} to {MOST}, got {number!r}")
    return chosen


def _read(stored: Paths, people: Sequence[int], system: str) -> list[Task]:
    tasks: dict[str, Task] = {}
    for row in read_rows(stored):
        task = _row_task(row, system)
        if not people or task.metadata["people"] in people:
            tasks.setdefault(task.id, task)
    return list(tasks.values())


def _row_task(row: Row, system: str) -> Task:
    place, columns = row
    question = text_of(cell(columns, "quiz", place), "quiz", place)
    solution = text_of(_solution(columns, place), "solution_text_format", place)
    if not roles_of(solution):
        raise DatasetRowError(f"{place}: field 'solution_text_format' names no knight and no knave: {solution[:60]!r}")
    return _task(question, solution, system)


def _solution(columns: Mapping[str, Any], place: str) -> Any:
    name = "solution_text_format"
    return columns[name] if name in columns else cell(columns, f"reward_model.ground_truth.{name}", place)
