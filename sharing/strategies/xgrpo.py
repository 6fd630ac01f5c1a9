"""XGRPO: only statistics move, and they move the baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

from mutual_env.types import Group, Lesson, PolicyGradient
from sharing.advantages import Moments, Std, checked_std
from sharing.edges import Edges, PerReader, within_0_and_1
from sharing.pooling import rewards_of
from sharing.records import Kind, Statistics
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class CrossPolicyAdvantageSharing(SharingWrapper):
    """The reader trains on its own rollouts alone, against a baseline in which its peers take part.

    Each policy publishes (n, sum r, sum r^2) of each prompt. With the mixing weight η, the baseline is
    (1 - η) mean_own + η mean_peers, and the scale is the standard deviation of the likewise mixed distribution:
    the root of the mixed second moment minus the baseline squared. `eta=None`: each prompt's η is the peers' share
    of all rollouts, so that every rollout counts the same. Among the peers every rollout counts as often as its author
    is trusted (`trust`). η may be one for all or one for each reader.

    η = 0, no peers, no statistics on a prompt: GRPO on it, to the last bit.
    """

    kinds: tuple[Kind, ...] = ("statistics",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"own rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        eta: PerReader | None = None,
        std: Std = True,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        self._eta = None if eta is None else Edges.of("eta", eta, self.possible_agents, within_0_and_1, by_author=False)
        self._std = checked_std(std)
        self._loss = PolicyGradient(clip_low, clip_high)

    def asks(self, groups: Sequence[Group]) -> Sequence[str]:
        return () if self._eta is not None and self._eta.is_always(0.0) else super().asks(groups)

    def share(self, situation: Situation) -> Shared:
        lessons: list[Lesson] = []
        shifts: list[float] = []
        for group in situation.groups:
            if not group:
                continue
            rewards = rewards_of(group)
            own = Moments.of(rewards)
            mixed = self._mixed(situation.reader, own, situation.statistics.get(group[0].task.id, {}))
            shifts.append(abs(mixed.mean - own.mean))
            advantages = mixed.advantages(rewards, std=self._std)
            lessons.extend(Lesson(e, a, self._loss) for e, a in zip(group, advantages, strict=True))
        return Shared(tuple(lessons), {"baseline_shift": math.fsum(shifts) / max(len(shifts), 1)})

    def _mixed(self, reader: str, own: Moments, peers: Mapping[str, Statistics]) -> Moments:
        if not peers:
            return own
        trusted = [(self._trust.at(reader, author), s) for author, s in peers.items()]
        sums = [(t * s.count, t * s.reward_sum, t * s.square_sum) for t, s in trusted]
        return own.with_sums(sums, None if self._eta is None else self._eta.at(reader))
