"""Asynchronous rounds of a run: each policy has an env of its own over the same tasks, and meets its peers in the
exchange."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from learners.resources import Halves, Learnt, Rounds, at_own_pace
from learners.run.loop import Loop
from mutual_env.errors import InvalidInputError
from mutual_env.types import AgentInfo, Lesson, Metrics
from sharing import Sampled


@dataclass(frozen=True, slots=True)
class RoundResult:
    """One round of everybody who is left. `paces` says how each came to it: its lead over the slowest, and its wait."""

    infos: Mapping[str, AgentInfo]
    paces: Mapping[str, Mapping[str, float]]


def rounds_at_own_pace(loops: Sequence[Loop], rounds: Rounds, *, first: int, limit: float) -> Generator[RoundResult]:
    """The rounds from `first` to the last, each as soon as everybody has learnt from it. All have learnt from all of
    them at the end: nothing that was sampled is left over.

    With a loop's `ahead`, round r is sampled while round r - staleness is learnt from, and not before.
    """
    following = None
    if any(loop.ahead is not None for loop in loops):
        if rounds.staleness < 1:
            raise InvalidInputError("loops that sample beside their updates (`ahead`) need a staleness of 1 or more")
        following, rounds = rounds, Rounds(rounds.count, rounds.staleness - 1)
    versions = {name: learner.version - first for loop in loops for name, learner in loop.learners.items()}
    halves = {name: _Halves(name, loop, versions, following) for loop in loops for name in loop.learners}
    steps = {name: Halves(half.sample, half.learn) for name, half in halves.items()}
    with closing(at_own_pace(loops[0].executor, rounds, steps, limit=limit, first=first)) as paced:
        for learnt in paced:
            inside = [name for name in halves if name in learnt]
            yield RoundResult({n: learnt[n].value for n in inside}, {n: _pace(learnt[n]) for n in inside})


class _Halves:
    """One policy's rounds; what it has sampled waits here until it is learnt from."""

    def __init__(self, name: str, loop: Loop, versions: Mapping[str, int], ahead: Rounds | None) -> None:
        self._name, self._loop, self._versions, self._ahead = name, loop, versions, ahead
        self._waiting: dict[int, Sampled] = {}

    def sample(self, round: int) -> None:
        self._waiting[round] = self._loop.sample(round)

    def learn(self, round: int) -> AgentInfo:
        info = self._loop.learn(self._waiting.pop(round), self._following(round))[self._name]
        ages = staleness(info.get("lessons", ()), round, self._versions)
        return {**info, "metrics": {**info["metrics"], **ages}}

    def _following(self, round: int) -> int | None:
        """Which round is sampled while this one is learnt from."""
        if self._ahead is None:
            return None
        following = round + self._ahead.staleness
        return following if following < self._ahead.count else None


def staleness(lessons: Sequence[Lesson], round: int, versions: Mapping[str, int]) -> Metrics:
    """How many updates older the weights were that wrote what is learnt in this round, than their author's are when it
    has learnt from all rounds before. `versions`: what each policy's version was before round 0."""
    written = [(lesson.experience.author, lesson.experience.completion.policy_version) for lesson in lessons]
    ages = [round - (version - versions[author]) for author, version in written if author in versions]
    return {"staleness/mean": sum(ages) / len(ages), "staleness/max": float(max(ages))} if ages else {}


def _pace(learnt: Learnt[AgentInfo]) -> dict[str, float]:
    return {"lead": float(learnt.lead), "waited": learnt.waited}
