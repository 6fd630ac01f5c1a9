"""`mutual/judged-v0` and `mutual/user-v0`: any family of one turn, with a policy that is not trained in a seat: a judge
who says what an answer is worth, or a user who answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mutual_env.interaction import Answer, Conversation, InteractionSpec, Over
from mutual_env.prompts import text_of
from mutual_env.spec import whole_number
from mutual_env.tasks.wrapped import WrappedTasks
from mutual_env.types import JSON, Message, Prompt, Reply, Task, Verdict


@dataclass(frozen=True, slots=True)
class Judge:
    """Reads the question and the answer, and decides. What it says begins with `yes`, whatever the case: 1.0; with
    anything else: 0.0. The verifier's opinion is not asked.

    `ask` is what it reads: {prompt}, {answer} stand for what was asked and what was written. `chat`: as a message.
    """

    ask: str = "Question: {prompt}\nAnswer: {answer}\nIs the answer right? Say yes or no."
    yes: str = "yes"
    chat: bool = False
    max_turns: int = 1
    inline: bool = True
    joint: bool = False
    seat: str = "judge"

    def asks(self, task: Task, conversation: Conversation) -> Prompt | None:
        return _asked(self.ask, task, conversation, chat=self.chat)

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        return [Over(self._verdict(c.said)) for c in conversations]

    def _verdict(self, said: str) -> Verdict:
        right = said.strip().lower().startswith(self.yes.lower())
        return Verdict.scored(float(right), correct=right, detail=f"the judge said: {said}"[:200])


@dataclass(frozen=True, slots=True)
class User:
    """Answers what is not right yet; a right answer ends the conversation. What a turn was worth to the verifier is the
    reward of the reply to it.

    `ask` is what the user reads: {prompt} and {answer} as for `Judge`; {truth} stands for the task's own answer.
    """

    ask: str = "Question: {prompt}\nAnswer: {answer}\nThat is wrong. Say what to look at again, not the answer."
    chat: bool = False
    max_turns: int = 2
    inline: bool = True
    joint: bool = False
    needs_verdicts: bool = True
    seat: str = "user"

    def asks(self, task: Task, conversation: Conversation) -> Prompt | None:
        return None if self._ends(conversation) else _asked(self.ask, task, conversation, chat=self.chat)

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        return [self._answer(c) for c in conversations]

    def _answer(self, c: Conversation) -> Answer:
        reward = None if c.verdict is None else c.verdict.reward
        return Over(c.verdict) if self._ends(c) else Reply(c.said, reward=reward)

    def _ends(self, c: Conversation) -> bool:
        """Right, not to be judged, or the last turn."""
        is_settled = c.verdict is not None and (c.verdict.correct or c.verdict.reward is None)
        return is_settled or len(c.earlier) + 1 >= self.max_turns


def _asked(template: str, task: Task, conversation: Conversation, *, chat: bool) -> Prompt:
    parts = {"{prompt}": text_of(task.prompt), "{answer}": conversation.text, "{truth}": task.answer}
    text = _filled(template, parts)
    message: Message = {"role": "user", "content": text}
    return (message,) if chat else text


def _filled(template: str, parts: dict[str, str]) -> str:
    """Each part in its place, once: what stands in a part is text, whatever it spells."""
    for place, text in parts.items():
        if place in template:
            before, _, after = template.partition(place)
            return _filled(before, parts) + text + _filled(after, parts)
    return template


class JudgedTasks(WrappedTasks):
    """The tasks of another family, paid by a judge.

    family  the id of the family, such as "mutual/arithmetic-v0"; its options are given beside these
    ask, yes, chat  what the judge reads, and what its yes begins with: see `Judge`
    """

    def __init__(
        self, *, family: str, ask: str = Judge().ask, yes: str = "yes", chat: bool = False, **options: Any
    ) -> None:
        super().__init__(family, options)
        self.interaction = InteractionSpec("judge", {"ask": ask, "yes": yes, "chat": chat})


class UserTasks(WrappedTasks):
    """The tasks of another family, with a user who answers what is wrong.

    family     the id of the family, such as "mutual/arithmetic-v0"; its options are given beside these
    turns      answers in all
    ask, chat  what the user reads: see `User`
    """

    def __init__(
        self, *, family: str, turns: int = 2, ask: str = User().ask, chat: bool = False, **options: Any
    ) -> None:
        super().__init__(family, options)
        kwargs: dict[str, JSON] = {"max_turns": whole_number("turns", turns, 1), "ask": ask, "chat": chat}
        self.interaction = InteractionSpec("user", kwargs)
