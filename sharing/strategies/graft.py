"""GRAFT: a failed group is replaced by a peer's whole group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Unpack

from mutual_env.errors import ConfigError
from mutual_env.seeding import generator
from mutual_env.types import CompatibilityGate, Correction, Group, Lesson, OldPolicy, PolicyGradient
from sharing.advantages import Std, checked_std, group_advantages
from sharing.pooling import Pool, pools, rewards_of, successes, untraced
from sharing.records import Kind
from sharing.situation import Common, Credit, Shared, Situation
from sharing.strategies.independent import own_lessons
from sharing.wrapper import SharingWrapper


class Graft(SharingWrapper):
    """GRPO on the reader's own groups, of which some that failed are replaced by a peer's group as it stands.

    From source j to reader k: candidates C_jk = prompts where k solved nothing and j solved some but not all. Balance:
    m = min(|C_jk|, |C_kj|) are kept, those that j solved most often first, with every tie of the last; each
    ordered pair of policies is balanced by itself, and a prompt kept from several sources goes to the one that
    solved it most often (a tie is drawn, seeded by run, round, reader and task). The peer's advantages are those
    of its own full group. The gate weighs each sample by w = 1[s > floor] min(s, 1), s = exp(mean log π_old - mean
    log β). The ratio is taken against π_old for all, and peers' groups are trained on last.

    The ablations are options: `gate=False`, `floor=0` (the weight without the floor), `balance=False`,
    `peers_at="first"` or `"shuffled"` (all prompts, replaced or not, in an order drawn anew each round, seeded by run,
    round and reader), `pooled=True` (the reader's group stays, both normalised together),
    `success_only=True` (of the peer's group only what is right). `stored=True` is the form for recorded peers: one
    direction, no balance. No candidates: GRPO, to the last bit.
    """

    kinds: tuple[Kind, ...] = ("rollout",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"own rollouts", "peers' rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        std: Std = True,
        clip_low: float = 0.2,
        clip_high: float = 0.28,
        gate: bool = True,
        floor: float = 0.8,
        balance: bool = True,
        peers_at: Literal["last", "first", "shuffled"] = "last",
        pooled: bool = False,
        success_only: bool = False,
        stored: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        if peers_at not in _ORDER:
            raise ConfigError(f"peers_at must be one of {', '.join(_ORDER)}, got {peers_at!r}")
        if not 0.0 <= floor < 1.0:
            raise ConfigError(f"floor must lie in [0, 1), got {floor}: at 1 and above no weight is left")
        self._std = checked_std(std)
        self._loss = PolicyGradient(clip_low, clip_high)
        self._correction: Correction = CompatibilityGate(floor=floor) if gate else OldPolicy()
        self._balance = balance and not stored
        self._peers_at = peers_at
        self._pooled = pooled
        self._success_only = success_only

    def asks(self, groups: Sequence[Group]) -> Sequence[str]:
        """Balance looks at both directions, and so at every prompt; without it, failed prompts are enough."""
        return [group[0].task.id for group in groups if group and (self._balance or not successes(group))]

    def share(self, situation: Situation) -> Shared:
        pooled = pools(situation)
        chosen = self._chosen(situation, pooled)
        lessons: list[Lesson] = []
        for pool in self._in_order(situation, pooled):
            source = chosen.get(pool.own[0].task.id)
            lessons.extend(
                own_lessons([pool.own], self._loss, std=self._std)
                if source is None
                else self._grafted(pool.own, pool.peers[source])
            )
        candidates = sum(bool(_sources(pool)) for pool in pooled)
        metrics = {"candidates": float(candidates), "grafted": float(len(chosen)), "untraced": untraced(situation)}
        return Shared(tuple(lessons), metrics)

    def _in_order(self, situation: Situation, pooled: Sequence[Pool]) -> Sequence[Pool]:
        if self._peers_at != "shuffled":
            return pooled
        draw = generator(situation.seed, "graft order", situation.round, situation.reader)
        return [pooled[i] for i in draw.permutation(len(pooled))]

    def _chosen(self, situation: Situation, pooled: Sequence[Pool]) -> dict[str, str]:
        """Which prompts get a graft, and from whom."""
        kept: dict[str, list[tuple[int, str]]] = {}
        for source in sorted({author for pool in pooled for author in pool.peers}):
            for pool in self._kept(source, pooled):
                kept.setdefault(pool.own[0].task.id, []).append((successes(pool.peers[source]), source))
        chosen = {}
        for task_id, offers in kept.items():
            most = max(count for count, _ in offers)
            best = [source for count, source in offers if count == most]
            draw = generator(situation.seed, "graft", situation.round, situation.reader, task_id)
            chosen[task_id] = best[int(draw.integers(len(best)))]
        return chosen

    def _kept(self, source: str, pooled: Sequence[Pool]) -> list[Pool]:
        """The prompts that this source may graft on: the best m, and all that tie with the last of them."""
        here = [pool for pool in pooled if source in _sources(pool)]
        if not self._balance:
            return here
        there = sum(_partly(pool.own) and not successes(pool.peers.get(source, pool.own)) for pool in pooled)
        m = min(len(here), there)
        if m == 0:
            return []
        border = sorted((successes(pool.peers[source]) for pool in here), reverse=True)[m - 1]
        return [pool for pool in here if successes(pool.peers[source]) >= border]

    def _grafted(self, own: Group, borrowed: Group) -> list[Lesson]:
        lessons: list[Lesson] = []
        if self._pooled:
            both = group_advantages(rewards_of(own + borrowed), std=self._std)
            lessons = [Lesson(e, a, self._loss) for e, a in zip(own, both, strict=False)]
            advantages = both[len(own) :]
        else:
            advantages = group_advantages(rewards_of(borrowed), std=self._std)
        return lessons + [
            Lesson(e, a, self._loss, self._correction, order=_ORDER[self._peers_at])
            for e, a in zip(borrowed, advantages, strict=True)
            if e.verdict.correct or not self._success_only
        ]


def _sources(pool: Pool) -> list[str]:
    """Who could replace the reader's group here."""
    if successes(pool.own):
        return []
    return [author for author, group in pool.peers.items() if _partly(group)]


def _partly(group: Group) -> bool:
    return 0 < successes(group) < len(group)


_ORDER = {"last": 1, "first": -1, "shuffled": 0}
