"""Co-RL: the majority of a peer's answers is the label."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

from mutual_env.errors import ConfigError
from mutual_env.types import Group, Lesson, Metrics, PolicyGradient
from mutual_env.verifiers.answers import Extraction, check_extraction, final_answer
from mutual_env.verifiers.numeric import last_number
from sharing.advantages import Std, checked_std, group_advantages
from sharing.records import Kind
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class CoRL(SharingWrapper):
    """GRPO on the reader's own rollouts with the reward 1[own answer = majority vote of a peer's answers].

    The peer is the next by name, the first after the last (a ring); a reader that finds no peer on a prompt votes for
    itself, which is test-time RL (TTRL). An answer is what `extraction` finds in a text (see `final_answer`), the same
    number however it is written, or the same text but for case and spaces; a text without one takes no part in the vote
    and is worth 0. Of equally frequent answers the one written first wins; a vote of less than `threshold` of the
    answers is none, and teaches nothing.

    The verifier's verdicts reach the metrics alone. Where p_A + p_B > 1, p the two policies' chances to be right on a
    prompt, mutual voting leads to the right answer, else away from it: `vote/converges` is the share of such prompts.
    """

    kinds: tuple[Kind, ...] = ("rollout",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"own rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        extraction: Extraction = "auto",
        threshold: float = 0.0,
        std: Std = True,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        check_extraction("corl", extraction)
        if not 0.0 <= threshold <= 1.0:
            raise ConfigError(f"threshold is a share of the answers and must lie in [0, 1], got {threshold}")
        self._extraction: Extraction = extraction
        self._threshold = threshold
        self._std = checked_std(std)
        self._loss = PolicyGradient(clip_low, clip_high)

    def share(self, situation: Situation) -> Shared:
        lessons: list[Lesson] = []
        votes: list[Vote] = []
        for group in situation.groups:
            if group:
                voters = self._voters(situation, group)
                winner = self._winner(voters)
                rewards = [float(winner is not None and self._key(e.completion.text) == winner) for e in group]
                advantages = group_advantages(rewards, std=self._std)
                lessons.extend(Lesson(e, a, self._loss) for e, a in zip(group, advantages, strict=True))
                votes.append(Vote(accuracy(group), accuracy(voters), self._is_right(winner, voters), voters != group))
        return Shared(tuple(lessons), measured(votes))

    def _voters(self, situation: Situation, group: Group) -> Group:
        """The group of the next in the ring that wrote on this task, or the reader's own."""
        found = {a: g for a, g in situation.rollouts.get(group[0].task.id, {}).items() if g}
        order = sorted(found, key=lambda author: (author <= situation.reader, author))
        return found[order[0]] if order else group

    def _winner(self, voters: Group) -> object | None:
        answers = [key for key in (self._key(e.completion.text) for e in voters) if key is not None]
        if not answers:
            return None
        winner, count = Counter(answers).most_common(1)[0]
        return winner if count >= self._threshold * len(answers) else None

    def _is_right(self, winner: object | None, voters: Group) -> bool | None:
        """What the verifier says of those who wrote the winner; None where there is none."""
        if winner is None:
            return None
        return any(e.verdict.correct for e in voters if self._key(e.completion.text) == winner)

    def _key(self, text: str) -> object | None:
        answer = final_answer(text, self._extraction)
        if answer is None:
            return None
        number = last_number(answer) if _NUMBER_ALONE.fullmatch(answer) else None
        return " ".join(answer.casefold().split()) if number is None else number


@dataclass(frozen=True, slots=True)
class Vote:
    """How right the reader and its voters were on a prompt, and their vote (None: there was none)."""

    own: float
    theirs: float
    is_right: bool | None
    is_peers: bool


def accuracy(group: Group) -> float:
    return sum(e.verdict.correct for e in group) / len(group)


def measured(votes: Sequence[Vote]) -> Metrics:
    cast = [vote.is_right for vote in votes if vote.is_right is not None]
    count = max(len(votes), 1)
    return {
        "vote/peers": float(sum(vote.is_peers for vote in votes)),
        "vote/cast": float(len(cast)),
        "vote/right": sum(cast) / max(len(cast), 1),
        "vote/accuracy_sum": math.fsum(vote.own + vote.theirs for vote in votes) / count,
        "vote/converges": sum(vote.own + vote.theirs > 1.0 for vote in votes) / count,
    }


_NUMBER_ALONE = re.compile(r"\s*[-+\N{MINUS SIGN}]?[\d,]*\.?\d+(?:[eE][-+]?\d+)?(?:\s*/\s*\d+)?\s*")
