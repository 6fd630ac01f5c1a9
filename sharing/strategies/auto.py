"""auto: prompt by prompt, GRPO, XGRPO, a rescue or a graft, as the bandit suggests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeAlias, Unpack

from mutual_env.errors import ConfigError
from mutual_env.types import JSON, CompatibilityGate, Experience, Group, Lesson, Metrics, PolicyGradient
from sharing.advantages import Moments, Std, checked_std, group_advantages
from sharing.edges import PerEdge
from sharing.pooling import Pool, pools, rewards_of, successes, untraced
from sharing.records import Kind
from sharing.rescue import Imitation, ShareController, drawn_one
from sharing.situation import Common, Credit, Shared, Situation
from sharing.strategies.memory import Shelf
from sharing.wrapper import SharingWrapper

Choice: TypeAlias = Literal["grpo", "xgrpo", "rescue", "graft"]
WasLearnt: TypeAlias = Callable[[str, str], bool | None]
"""From a reader and a task to whether a past rescue on it was learnt; None: nothing is known."""


class Auto(SharingWrapper):
    """For each prompt one of four, by the reader's successes n_k, its peers' n_j, and how near an author is:

    n_k > 0       XGRPO where the peers together do no better than the reader: their rewards steady its baseline, and
                  say that a group that is all right is not what everybody does; GRPO where they do better, because a
                  baseline from above makes noise
    n_k = 0       nobody else solved it: GRPO; somebody did: a rescue by one verified success (cross-entropy, `weight`
                  λ), or a graft of the peer's whole group where that author is near enough

    A graft moves about three times as far as a rescue and is the noisier of the two, and where the gate shuts out right
    answers it leads the wrong way. So it is chosen only if the author's group is mixed and the effective sample size of
    its chunk weights, as this reader's batches measured it (`batch/chunk_sample_size`, half of it the last round's), is
    at least `graft_above`; until it is known, and on real pairs of families, that is a rescue. It is chosen too where a
    past rescue on the same task was not learnt: the reader met the task again and solved it not once. A `was_learnt`
    of one's own may say so instead.

    `target_share` adapts the rescues' λ as SGT's does: they, and not the grafts, are to be this share of the gradient.

    Every choice is counted (`share/auto/...`), and every lesson says which it belongs to (`Lesson.note`). No peers:
    GRPO, to the last bit.
    """

    kinds: tuple[Kind, ...] = ("rollout",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"own rollouts", "peers' rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        weight: PerEdge = 0.1,
        per_rescue: bool = False,
        target_share: float | None = None,
        graft_above: float = 0.995,
        floor: float = 0.8,
        was_learnt: WasLearnt | None = None,
        std: Std = True,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        if not 0.0 <= floor < 1.0 or graft_above < 0.0:
            raise ConfigError(f"floor must lie in [0, 1) and graft_above be at least 0, got {floor} and {graft_above}")
        self._imitation = Imitation.of(weight, env.possible_agents, compatible=True, per_rescue=per_rescue)
        self._controller = ShareController.of(target_share, self._imitation)
        self._near = graft_above
        self._gate = CompatibilityGate(floor=floor)
        self._was_learnt = was_learnt
        self._std = checked_std(std)
        self._loss = PolicyGradient(clip_low, clip_high)
        self._sizes: dict[str, dict[str, float]] = {}  # reader -> author -> effective sample size, as a share
        self._shelves: dict[str, Shelf] = {}

    def share(self, situation: Situation) -> Shared:
        shelf = self._shelves.setdefault(situation.reader, Shelf({}, {}))
        metrics = shelf.notice(situation.groups)
        lessons: list[Lesson] = []
        counts: Counter[str] = Counter()
        for pool in pools(situation):
            choice, made = self._taught(situation, pool, shelf)
            counts[choice] += 1
            lessons.extend(replace(lesson, note=f"auto: {choice}") for lesson in made)
            if choice == "rescue":
                shelf.count(pool.own[0].task.id, situation.round)
        shelf.shrink(_CAPACITY)
        metrics.update({f"auto/{choice}": float(counts[choice]) for choice in ("grpo", "xgrpo", "rescue", "graft")})
        for author, size in sorted(self._sizes.get(situation.reader, {}).items()):
            metrics[f"auto/chunk_sample_size/{author}"] = size
        metrics.update(self._controller.metrics(situation.reader))
        return Shared(tuple(lessons), {**metrics, "untraced": untraced(situation)})

    def learnt(self, reader: str, metrics: Metrics) -> None:
        super().learnt(reader, metrics)
        self._controller.learnt(reader, metrics)
        sizes = self._sizes.setdefault(reader, {})
        for key, value in metrics.items():
            if key.startswith(CHUNK_SAMPLE_SIZE):
                author = key.removeprefix(CHUNK_SAMPLE_SIZE)
                sizes[author] = 0.5 * (sizes.get(author, value) + value)

    def state_dict(self) -> dict[str, JSON]:
        sizes: JSON = {reader: dict(sorted(known.items())) for reader, known in sorted(self._sizes.items())}
        shelves: JSON = {reader: shelf.as_json() for reader, shelf in sorted(self._shelves.items())}
        return {**super().state_dict(), **self._controller.state(), "sizes": sizes, "shelves": shelves}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._controller.restore(state)
        self._sizes = {reader: dict(known) for reader, known in state["sizes"].items()}
        self._shelves = {reader: Shelf.from_json(kept) for reader, kept in state["shelves"].items()}

    def _taught(self, situation: Situation, pool: Pool, shelf: Shelf) -> tuple[Choice, list[Lesson]]:
        own, task_id = pool.own, pool.own[0].task.id
        if successes(own):
            return self._with_own(situation.reader, pool)
        offered = [
            e for e in pool.borrowed if e.verdict.correct and self._imitation.weight.at(situation.reader, e.author)
        ]
        if not offered:
            return "grpo", self._against(own, Moments.of(rewards_of(own)))
        sources = self._sources(situation.reader, pool, was_in_vain=self._was_in_vain(situation.reader, task_id, shelf))
        if sources:
            source = drawn_one(sources, situation, "auto graft", task_id).author
            return "graft", self._grafted(pool.peers[source])
        chosen = drawn_one(offered, situation, "sgt", task_id)
        rescue = self._imitation.lesson(situation.reader, chosen, self._controller.factor(situation.reader))
        rescue = replace(rescue, correction=CompatibilityGate(floor=0.0, power=0.0))  # measured, and not weighed by it
        return "rescue", [*self._against(own, Moments.of(rewards_of(own))), rescue]

    def _with_own(self, reader: str, pool: Pool) -> tuple[Choice, list[Lesson]]:
        """Where some own sample is right."""
        own, peers = pool.own, list(pool.peers.items())
        moments = Moments.of(rewards_of(own))
        theirs = successes(pool.borrowed)
        if not peers or theirs * len(own) > successes(own) * len(pool.borrowed):
            return "grpo", self._against(own, moments)
        weights = [(self._trust.at(reader, author), rewards_of(group)) for author, group in peers]
        return "xgrpo", self._against(own, moments.with_peers(weights))

    def _against(self, own: Group, baseline: Moments) -> list[Lesson]:
        advantages = baseline.advantages(rewards_of(own), std=self._std)
        return [Lesson(e, a, self._loss) for e, a in zip(own, advantages, strict=True)]

    def _sources(self, reader: str, pool: Pool, *, was_in_vain: bool) -> Sequence[Experience]:
        """One experience of each author whose group may be grafted: mixed, near enough, and solved most often."""
        near = [
            (successes(group), group[0])
            for author, group in pool.peers.items()
            if 0 < successes(group) < len(group)
            and (was_in_vain or self._sizes.get(reader, {}).get(author, 0.0) >= self._near)
        ]
        most = max((count for count, _ in near), default=0)
        return [first for count, first in near if count == most]

    def _grafted(self, borrowed: Group) -> list[Lesson]:
        advantages = group_advantages(rewards_of(borrowed), std=self._std)
        return [Lesson(e, a, self._loss, self._gate, order=1) for e, a in zip(borrowed, advantages, strict=True)]

    def _was_in_vain(self, reader: str, task_id: str, shelf: Shelf) -> bool:
        """Whether the reader was rescued on this task before, and has not learnt from it."""
        known = self._was_learnt(reader, task_id) if self._was_learnt is not None else None
        if known is not None:
            return not known
        past = shelf.rescued.get(task_id)
        return past is not None and past.returns > 0 and not past.is_retained


CHUNK_SAMPLE_SIZE = "batch/chunk_sample_size/"
_CAPACITY = 4096
