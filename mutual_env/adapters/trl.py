"""Our tasks and verifiers for TRL's trainers: `pip install trl`. Nothing of TRL is imported here.

tasks = TRLTasks("mutual/arithmetic-v0", n=1000)
GRPOTrainer(model=..., train_dataset=Dataset.from_list(tasks.rows()), reward_funcs=tasks.reward, ...)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mutual_env.errors import InvalidInputError
from mutual_env.prompts import messages_of
from mutual_env.registry import source_of
from mutual_env.spec import whole_number
from mutual_env.tasks.source import InteractiveSource
from mutual_env.types import Task
from mutual_env.verifiers import VerifierPool


class TRLTasks:
    """The first `n` tasks of a family of one turn: rows for a data set, and the reward function of its completions.

    The trainer hands the columns of the rows back to the reward function, and "task_id" says which task it is. An
    answer that got no verdict is None, which TRL leaves out of the mean. `chat`: prompts are messages, and completions
    come back as such. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        family: str,
        *,
        n: int,
        seed: int = 0,
        chat: bool = False,
        pool: VerifierPool | None = None,
        **options: Any,
    ) -> None:
        source = source_of(family, **options)
        if isinstance(source, InteractiveSource):
            raise InvalidInputError(f"{family} has several turns, and a reward function sees one: name another family")
        self._verifier, self._chat = source.verifier, chat
        self._tasks = {task.id: task for task in source.draw(seed, 0, whole_number("n", n, 1))}
        self._owns_pool, self._pool = pool is None, VerifierPool() if pool is None else pool

    def rows(self) -> list[dict[str, Any]]:
        return [{"prompt": self._prompt(task), "task_id": task.id} for task in self._tasks.values()]

    def reward(self, *, completions: Sequence[Any], task_id: Sequence[str], **columns: Any) -> list[float | None]:
        """What TRL calls a reward function."""
        items = [(self._tasks[name], _text(c)) for name, c in zip(task_id, completions, strict=True)]
        return [verdict.reward for verdict in self._pool.verify(self._verifier, items)]

    def close(self) -> None:
        if self._owns_pool:
            self._pool.close()

    def __enter__(self) -> TRLTasks:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _prompt(self, task: Task) -> Any:
        if self._chat or not isinstance(task.prompt, str):
            return [dict(message) for message in messages_of(task.prompt)]
        return task.prompt


def _text(completion: Any) -> str:
    """A text, or messages: what the assistant said last."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])
