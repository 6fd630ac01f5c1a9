"""A strategy with a loss that nobody else has."""

from __future__ import annotations

from mutual_env.types import Lesson, NamedLoss
from sharing import Shared, SharingWrapper, Situation


class BestPeer(SharingWrapper):
    """Learn, by a loss of our own, the first verified success of any peer on every prompt."""

    kinds = ("success",)
    credits = frozenset({"peers' rollouts"})

    def share(self, situation: Situation) -> Shared:
        lessons = []
        for _, by_author in sorted(situation.successes.items()):
            first = min(by_author)
            lessons.append(Lesson(by_author[first][0], 1.0, NamedLoss.of("acme-surprise", focus=0.5), weight=0.5))
        return Shared(situation.lessons + tuple(lessons), {"imitated": float(len(lessons))})
