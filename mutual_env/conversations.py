"""The open conversations of a round of several turns: what was written, what was answered, which are over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from mutual_env.interaction import Answer, Conversation, Over, Wait
from mutual_env.types import Completion, Context, Experience, Prompt, Task, Turn, Verdict

Respond: TypeAlias = Callable[[Sequence[tuple[Task, Sequence[Conversation]]]], Sequence[Sequence[Answer]]]
"""From the conversations on some tasks to an answer to each."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a conversation is cut: after so many turns, or so many written tokens (None: no such bound)."""

    turns: int
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Spoken:
    """One conversation so far. `last` was written and not answered yet, or ends it; None: nothing was written.

    `is_cut`: it ended because a limit was reached. `verdict`: what the world said it came to. `is_failed`: it ended
    because the world broke on it. `is_opened`: the world spoke first, to a silence that nobody wrote.
    """

    context: Context
    last: Completion | None = None
    is_over: bool = False
    is_cut: bool = False
    verdict: Verdict | None = None
    is_failed: bool = False
    is_opened: bool = False

    @classmethod
    def opened(cls, prompt: Prompt) -> Spoken:
        """One in which the world is to speak first."""
        return cls(Context(prompt), Completion.silence(), is_opened=True)

    @property
    def waits(self) -> bool:
        """Whether others have to write before it is answered."""
        return self.last is not None and not self.is_over

    @property
    def written_turns(self) -> int:
        """How often something was written."""
        return len(self.context.turns) + (self.last is not None) - self.is_opened

    def as_seen(self, author: str, sample: int) -> Conversation:
        """What the world reads of it."""
        earlier = tuple((turn.completion.text, turn.reply.text) for turn in self.context.turns)
        text = "" if self.last is None else self.last.text
        return Conversation(author, sample, text, earlier, self.is_over)

    def without_room(self) -> Spoken:
        """Cut where the last answer is too long for its policy: what nobody can go on from is no part of it."""
        *before, last = self.context.turns
        context = Context(self.context.prompt, tuple(before))
        return replace(self, context=context, last=last.completion, is_over=True, is_cut=True)

    def answered(self, answer: Answer, limits: Limits) -> Spoken:
        """After the world's answer: over, cut, or waiting for the next turn."""
        if self.last is None:
            raise ValueError("a conversation in which nothing was written has no answer")
        if isinstance(answer, Wait):
            return self
        if isinstance(answer, Over):
            return replace(self, is_over=True, verdict=answer.verdict, is_failed=answer.failed)
        turns = (*self.context.turns, Turn(self.last, answer))
        written = sum(turn.completion.token_ids.size for turn in turns)
        if self.written_turns >= limits.turns or (limits.tokens is not None and written >= limits.tokens):
            return replace(self, is_over=True, is_cut=True)  # an answer that nobody reads is no part of it
        return Spoken(Context(self.context.prompt, turns), is_opened=self.is_opened)


class Conversations:
    """P tasks, A agents, G conversations of each agent on each task."""

    def __init__(self, tasks: Sequence[Task], agents: Sequence[str], group_size: int, limits: Limits) -> None:
        self._tasks = tuple(tasks)
        self._limits = limits
        self._size = group_size
        self._spoken: dict[str, list[list[Spoken]]] = {
            agent: [[Spoken(Context(task.prompt)) for _ in range(group_size)] for task in tasks] for agent in agents
        }

    def open(self, respond: Respond) -> None:
        """Let the world speak first, to everybody."""
        for groups in self._spoken.values():
            for p, group in enumerate(groups):
                groups[p] = [Spoken.opened(self._tasks[p].prompt) for _ in group]
        self.answer(respond, joint=True)

    def is_over(self, agent: str) -> bool:
        return all(spoken.is_over for group in self._spoken[agent] for spoken in group)

    def was_cut(self, agent: str) -> bool:
        """Whether any of its conversations reached a limit."""
        return any(spoken.is_cut for group in self._spoken[agent] for spoken in group)

    def contexts(self, agent: str) -> tuple[tuple[Context | None, ...], ...]:
        """What the agent goes on from, for each prompt and sample; None where the conversation is over or waits."""
        return tuple(tuple(None if s.is_over or s.waits else s.context for s in group) for group in self._spoken[agent])

    def spoken(self, agent: str) -> Iterator[Spoken]:
        """All its conversations, group after group."""
        return (spoken for group in self._spoken[agent] for spoken in group)

    def without_the_over(self, agent: str, action: Any) -> Any:
        """The action with an empty text wherever a conversation is over or waits: what is given there is not read."""
        return without_the_over([[s.is_over or s.waits for s in group] for group in self._spoken[agent]], action)

    def write(self, said: Mapping[str, Sequence[Completion]]) -> None:
        """Add what each agent wrote to its open conversations; group after group, one for each conversation. Whoever
        waits for somebody who found no room to write is cut as well."""
        places = {place for together in self._places(joint=True) for place in together}
        waiting = {place for place in places if self._at(place).waits}
        full: list[tuple[int, int]] = []
        for agent, completions in said.items():
            written = iter(completions)
            for p, group in enumerate(self._spoken[agent]):
                for g, spoken in enumerate(group):
                    completion = next(written)
                    if spoken.is_over or spoken.waits:
                        continue
                    is_full = completion.found_no_room and bool(spoken.context.turns)
                    group[g] = spoken.without_room() if is_full else replace(spoken, last=completion)
                    full += [(p, g)] * is_full
        for p, g in full:
            left = {(a, p, g) for a in self._spoken if not self._at((a, p, g)).is_over}
            if left <= waiting:
                self._cut(left)

    def answer(self, respond: Respond, *, joint: bool) -> None:
        """Let the world answer all that was just written."""
        places = [
            places for places in self._places(joint=joint) if any(not self._at(place).is_over for place in places)
        ]
        asked = [
            (self._tasks[group[0][1]], [self._at((a, p, g)).as_seen(a, g) for a, p, g in group]) for group in places
        ]
        for group, answers in zip(places, respond(asked), strict=True):
            for (agent, p, g), answer in zip(group, answers, strict=True):
                spoken = self._spoken[agent][p][g]
                if not spoken.is_over:
                    self._spoken[agent][p][g] = spoken.answered(answer, self._limits)
            if any(isinstance(answer, Wait) for answer in answers):
                self._cut_with_others(group)

    def _cut_with_others(self, places: Sequence[tuple[str, int, int]]) -> None:
        """Where all that are open wait, the one that they waited for was cut just now, and so are they."""
        for sample in {g for _, _, g in places}:
            open_ones = [place for place in places if place[2] == sample and not self._at(place).is_over]
            if all(self._at(place).waits for place in open_ones):
                self._cut(open_ones)

    def _cut(self, places: Iterable[tuple[str, int, int]]) -> None:
        for agent, p, g in places:
            self._spoken[agent][p][g] = replace(self._spoken[agent][p][g], is_over=True, is_cut=True)

    def as_seen(self) -> list[list[Conversation]]:
        """All conversations on each task, as the world reads them."""
        return [[self._at((a, p, g)).as_seen(a, g) for a, p, g in group] for group in self._places(joint=True)]

    def table(self, experience: Experience, reader: str) -> list[Conversation]:
        """Everybody's conversations beside the one of `experience` (those of the sample with its number, on its task),
        with what its author wrote in the reader's place. A stranger's is taken as the first sample's."""
        tasks = [task.id for task in self._tasks]
        others: list[Conversation] = []
        sample = 0
        if experience.task.id in tasks:
            p = tasks.index(experience.task.id)
            of_author = self._spoken.get(experience.author, [()] * len(tasks))[p]
            written = (experience.earlier, experience.completion)
            sample = next((g for g, s in enumerate(of_author) if (s.context.turns, s.last) == written), 0)
            if reader in self._spoken:
                others = [self._at((a, p, sample)).as_seen(a, sample) for a in self._spoken if a != reader]
        earlier = tuple((turn.completion.text, turn.reply.text) for turn in experience.earlier)
        own = Conversation(reader, sample, experience.completion.text, earlier, is_over=True)
        return sorted((own, *others), key=lambda c: c.author)

    def _places(self, *, joint: bool) -> Iterator[list[tuple[str, int, int]]]:
        """What is answered in one call: all conversations on a task, or each by itself. Authors are in the order of
        their names, so that no answer depends on the order of the agents."""
        for p in range(len(self._tasks)):
            together = [(agent, p, g) for agent in sorted(self._spoken) for g in range(self._size)]
            yield from [together] if joint else ([place] for place in together)

    def _at(self, place: tuple[str, int, int]) -> Spoken:
        agent, p, g = place
        return self._spoken[agent][p][g]


def without_the_over(over: Sequence[Sequence[bool]], action: Any) -> Any:
    """The action with an empty text wherever nothing was asked for."""
    if not isinstance(action, Sequence) or [_size(group) for group in action] != [len(group) for group in over]:
        return action  # it does not fit, and is refused as such
    pairs = zip(over, action, strict=True)
    return [["" if is_over else item for is_over, item in zip(*pair, strict=True)] for pair in pairs]


def _size(group: object) -> int:
    return len(group) if isinstance(group, Sequence) and not isinstance(group, (str, bytes)) else -1
