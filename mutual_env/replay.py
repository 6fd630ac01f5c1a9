"""What somebody would have heard in another's place: the world is asked again with texts that were written before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mutual_env.conversations import Respond
from mutual_env.interaction import Conversation
from mutual_env.types import Reply, Task


def again(table: Sequence[Conversation], reader: str, turn: int) -> tuple[int, list[Conversation]]:
    """The table as it was when everybody had written their `turn`-th text, and the reader's place at it."""
    seen = [_until(c, turn) for c in table]
    return next(i for i, c in enumerate(seen) if c.author == reader), seen


def _until(conversation: Conversation, turn: int) -> Conversation:
    """What was there of a conversation after so many turns; one that was over by then is over."""
    earlier = conversation.earlier
    if turn >= len(earlier):
        return replace(conversation, is_over=turn > len(earlier))
    return Conversation(conversation.author, conversation.sample, earlier[turn][0], earlier[:turn])


def heard_in_turns(respond: Respond, task: Task, table: Sequence[Conversation], reader: str) -> Iterator[str]:
    """What the reader hears, reply after reply, where agents write one after the other: everybody at the table writes
    again what it wrote there, when it is asked for it."""
    scripts = [[*(text for text, _ in c.earlier), c.text] for c in table]
    now = [Conversation(c.author, c.sample, "") for c in table]
    moved = True
    while moved:
        [answers] = respond([(task, now)])
        moved = False
        for i, (c, answer) in enumerate(zip(now, answers, strict=True)):
            if c.is_over or not isinstance(answer, Reply):
                continue
            if c.author == reader:
                yield answer.text
            earlier = (*c.earlier, (c.text, answer.text))
            is_left = len(earlier) < len(scripts[i])
            text = scripts[i][len(earlier)] if is_left else ""
            now[i] = Conversation(c.author, c.sample, text, earlier, is_over=not is_left)
            moved |= is_left
