"""`mutual/undercut-v0`: a game with a winner. Everybody names a number at once; no download."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mutual_env.errors import InvalidInputError
from mutual_env.interaction import Answer, Conversation, InteractionSpec, Over
from mutual_env.tasks.source import check_split
from mutual_env.types import Reply, Task, Verdict
from mutual_env.verifiers import VerifierSpec


@dataclass(frozen=True, slots=True)
class UndercutTable:
    """Two players of one sample score what they name, but one who names exactly one less takes both numbers; with more
    players everybody plays against everybody. What is no number from 1 to `limit` scores nothing.

    After `max_turns` moves the best score wins 1.0, a shared best one .5, all others 0.0.
    """

    max_turns: int = 3
    limit: int = 5
    inline: bool = True
    joint: bool = True

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        return [self._answer(c, [o for o in conversations if o.sample == c.sample]) for c in conversations]

    def _answer(self, own: Conversation, table: Sequence[Conversation]) -> Answer:
        if len(own.earlier) + 1 < self.max_turns:
            others = ",".join(c.text.strip()[:8] for c in table if c.author != own.author)
            return Reply(f"others: {others}\n")
        scores = self._scores(table)
        best = [author for author, score in scores.items() if score == max(scores.values())]
        won = own.author in best
        return Over(Verdict.scored(won / len(best) if len(best) > 1 else float(won), correct=won and len(best) == 1))

    def _scores(self, table: Sequence[Conversation]) -> Counter[str]:
        scores: Counter[str] = Counter({c.author: 0 for c in table})
        written = [[(c.author, text) for text in (*(w for w, _ in c.earlier), c.text)] for c in table]
        for moves in zip(*written, strict=True):
            for author, text in moves:
                named = self._number(text)
                for other, said in moves:
                    if other != author:
                        theirs = self._number(said)
                        undercut = named and theirs == named + 1
                        is_undercut = theirs and named == theirs + 1
                        scores[author] += named + theirs if undercut else 0 if is_undercut else named
        return scores

    def _number(self, text: str) -> int:
        stripped = text.strip()
        is_number = stripped.isascii() and stripped.isdigit() and len(stripped) < 6
        return int(stripped) if is_number and 1 <= int(stripped) <= self.limit else 0


class UndercutTasks:
    """`undercut 1-5#0:` asks for a number; a round's tasks are tables that differ in their number alone.

    limit  the largest number
    turns  moves of a game
    """

    verifier = VerifierSpec("numeric")

    def __init__(self, *, limit: int = 5, turns: int = 3, split: str = "train") -> None:
        if not (isinstance(limit, int) and 2 <= limit <= 9999):
            raise InvalidInputError(f"limit must be a whole number from 2 to 9999, got {limit!r}")
        self._limit, self._split = limit, check_split(split)
        self.interaction = InteractionSpec("undercut", {"max_turns": turns, "limit": limit})

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        names = [f"{round}.{table}" for table in range(n)]
        return [
            Task(f"mutual/undercut-v0:{self._split}:{name}", f"undercut 1-{self._limit}#{name}:", "") for name in names
        ]
