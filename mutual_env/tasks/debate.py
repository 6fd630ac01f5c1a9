"""`mutual/debate-v0`: any family of one turn; each agent reads what the others answered, and answers again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mutual_env.errors import InvalidInputError
from mutual_env.interaction import Answer, Conversation, InteractionSpec, Over
from mutual_env.tasks.wrapped import WrappedTasks
from mutual_env.types import JSON, Metrics, Reply, Task
from mutual_env.verifiers.answers import final_answer


class Debate:
    """After each turn but the last everybody reads the answers of the others, of the sample with its own number.

    `template` is what is said, {answers} stands for them; `line` is one of them, with {author} and {text}. What a turn
    was worth to the verifier is the reward of the reply to it.
    """

    inline = needs_verdicts = True
    joint = True

    def __init__(
        self,
        *,
        max_turns: int = 2,
        template: str = "Others answered:\n{answers}\nThink again, and give your final answer.",
        line: str = "{author}: {text}",
    ) -> None:
        if not (isinstance(max_turns, int) and max_turns >= 1):
            raise InvalidInputError(f"turns must be a whole number of at least 1, got {max_turns!r}")
        self.max_turns = max_turns
        self._template, self._line = template, line

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        return [self._answer(task, c, conversations) for c in conversations]

    def measure(self, author: str, conversations: Sequence[Conversation]) -> Metrics:
        """Who moved this author: the share of its conversations in which its answer changed at all, and to what each
        peer had said in the turn before."""
        own = [c for c in conversations if c.author == author and c.earlier]
        if not own:
            return {}
        moved = [c for c in own if _said(c.text) != _said(c.earlier[-1][0])]
        metrics = {"debate/changed_share": len(moved) / len(own)}
        for peer in sorted({c.author for c in conversations} - {author}):
            before = {c.sample: _said(c.earlier[-1][0]) for c in conversations if c.author == peer and c.earlier}
            metrics[f"debate/moved_by/{peer}"] = sum(_said(c.text) == before.get(c.sample) for c in moved) / len(own)
        return metrics

    def _answer(self, task: Task, conversation: Conversation, everybody: Sequence[Conversation]) -> Answer:
        if len(conversation.earlier) + 1 >= self.max_turns:
            return Over()
        others = [c for c in everybody if c.author != conversation.author and c.sample == conversation.sample]
        lines = (self._line.replace("{author}", c.author).replace("{text}", c.text) for c in others)
        reward = None if conversation.verdict is None else conversation.verdict.reward
        return Reply(self._template.replace("{answers}", "\n".join(lines)), reward=reward)


class DebateTasks(WrappedTasks):
    """A debate about the tasks of another family.

    family          the id of the family, such as "mutual/arithmetic-v0"; its options are given beside these
    turns           how often everybody answers
    template, line  what is said between two turns: see `Debate`
    """

    def __init__(
        self,
        *,
        family: str,
        turns: int = 2,
        template: str = "Others answered:\n{answers}\nThink again, and give your final answer.",
        line: str = "{author}: {text}",
        **options: Any,
    ) -> None:
        super().__init__(family, options)
        kwargs: dict[str, JSON] = {"max_turns": turns, "template": template, "line": line}
        self.interaction = InteractionSpec("debate", kwargs)


def _said(text: str) -> str:
    return final_answer(text) or ""
