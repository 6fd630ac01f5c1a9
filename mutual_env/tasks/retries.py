"""`mutual/retries-v0`: any family of one turn, with further tries after a wrong answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mutual_env.errors import InvalidInputError
from mutual_env.interaction import Answer, Conversation, InteractionSpec, Over
from mutual_env.tasks.wrapped import WrappedTasks
from mutual_env.types import JSON, Reply, Task, Verdict


class TryAgain:
    """Verifies each try. A right one ends the conversation and is worth `discount` to the power of the tries before; to
    a wrong one it says `hint`, in which {prompt} stands for the question and {detail} for what the verifier found."""

    inline = needs_verdicts = True
    joint = False

    def __init__(
        self,
        *,
        max_turns: int = 2,
        hint: str = "That is wrong. Try again.",
        discount: float = 1.0,
    ) -> None:
        if not (isinstance(max_turns, int) and max_turns >= 1):
            raise InvalidInputError(f"turns must be a whole number of at least 1, got {max_turns!r}")
        if not 0.0 < discount <= 1.0:
            raise InvalidInputError(f"discount must be above 0 and at most 1, got {discount!r}")
        self.max_turns = max_turns
        self._hint, self._discount = hint, discount

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        return [self._answer(task, c) for c in conversations]

    def _answer(self, task: Task, conversation: Conversation) -> Answer:
        verdict = conversation.verdict or Verdict.unscored("error", detail="nobody verified this try")
        worth = verdict.reward
        if not verdict.correct and worth is not None:
            question = task.prompt if isinstance(task.prompt, str) else task.prompt[-1]["content"]
            return Reply(self._hint.replace("{detail}", verdict.detail).replace("{prompt}", question), reward=worth)
        if worth is None or self._discount == 1.0:
            return Over(verdict)
        return Over(Verdict.scored(worth * self._discount ** len(conversation.earlier), correct=True))


class RetryTasks(WrappedTasks):
    """Further tries at the tasks of another family.

    family    the id of the family, such as "mutual/arithmetic-v0"; its options are given beside these
    turns     tries in all
    hint      what is said after a wrong one; {prompt} is the question, {detail} what the verifier found
    discount  what a right answer is worth falls by this factor with each wrong try before it
    """

    def __init__(
        self,
        *,
        family: str,
        turns: int = 2,
        hint: str = "That is wrong. Try again.",
        discount: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(family, options)
        kwargs: dict[str, JSON] = {"max_turns": turns, "hint": hint, "discount": discount}
        self.interaction = InteractionSpec("retries", kwargs)
