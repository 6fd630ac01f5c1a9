"""The seam of this package: where tasks come from, and which of them are held out.

A new task family is one file with one class like this, and one `mutual_env.register(id, "module:Class")` or one entry
point in the group `mutual_env.tasks`:

    class Doubling:
        verifier = VerifierSpec("numeric")

        def __init__(self, *, limit: int = 100) -> None: ...

        def draw(self, seed: int, round: int, n: int) -> list[Task]: ...
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from mutual_env.errors import InvalidInputError
from mutual_env.interaction import InteractionSpec
from mutual_env.types import Task
from mutual_env.verifiers import VerifierSpec

Split: TypeAlias = Literal["train", "eval"]
EVAL_SHARE = 0.25


@runtime_checkable
class TaskSource(Protocol):
    """Where the tasks of a round come from."""

    @property
    def verifier(self) -> VerifierSpec:
        """What checks the answers unless the caller of `make` names another."""

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        """n tasks with n different ids. A pure function: same arguments, same tasks, in every process and machine."""


@runtime_checkable
class InteractiveSource(TaskSource, Protocol):
    """A source whose episodes have several turns."""

    @property
    def interaction(self) -> InteractionSpec:
        """What answers between two turns."""


@runtime_checkable
class ClosableSource(TaskSource, Protocol):
    """A source that holds something: a process, an open file. `ReasoningEnv.close` closes it."""

    def close(self) -> None: ...


def check_split(split: str) -> Split:
    if split == "train":
        return "train"
    if split == "eval":
        return "eval"
    raise InvalidInputError(f"split must be 'train' or 'eval', got {split!r}")


def split_of(question: str, eval_share: float = EVAL_SHARE) -> Split:
    """Which split a question belongs to: by a hash of its text alone, so that no question is ever in both, whatever the
    seeds, the processes and the versions."""
    digest = hashlib.blake2b(question.encode(), digest_size=8, person=b"split").digest()
    return "eval" if int.from_bytes(digest, "big") < eval_share * 2**64 else "train"


def take_distinct(candidates: Iterable[Task], n: int, what: str) -> list[Task]:
    """The first n tasks with different ids; an error if the candidates run out before, or nothing new comes any more.

    Where all of K tasks are equally likely, the last one takes K candidates on average, and fifty times as many in one
    of e^50 cases.
    """
    chosen: dict[str, Task] = {}
    since_new = 0
    for task in candidates:
        since_new = since_new + 1 if task.id in chosen else 0
        chosen.setdefault(task.id, task)
        if len(chosen) == n:
            return list(chosen.values())
        if since_new > 1000 + 50 * len(chosen):
            break
    raise InvalidInputError(
        f"prompts_per_round={n}: {what} gave only {len(chosen)} different tasks; ask for fewer, or widen its options"
    )
