"""Rescues from memory: what was solved once, by a peer or by oneself, helps where all fail later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Unpack

from mutual_env.errors import ConfigError
from mutual_env.options import Unbounded
from mutual_env.seeding import generator
from mutual_env.types import JSON, Experience, Group, Lesson, Metrics
from sharing.edges import PerEdge
from sharing.records import Kind
from sharing.rescue import Imitation, ShareController, as_json, drawn_one, failed, from_json
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class RescueMemory(SharingWrapper):
    """SGT with a memory: a prompt where every own rollout failed is rescued by a peer's success of this round or by a
    verified success of an earlier one, the reader's own among them, as cross-entropy with `weight` λ.

    Kept for each reader and task are the last `per_task` successes: one of its own of each round in which it solved the
    task, and one of each peer's of each round in which it failed. The rescue is drawn (seeded by run, round, reader and
    task) with probabilities in proportion to 2^(-age / half_life), age in rounds, times `own_weight` for its own.
    `budget` bounds the rescues of a round: tasks that were rescued least often first, then by lot. `replay` adds that
    many rescues of tasks that are not in this round: rescued before and not solved unaided since, in the same order.
    `capacity` bounds how many tasks are kept: those solved unaided after a rescue go first, then those untouched
    longest.

    `target_share` adapts λ as SGT's does: what is rescued and replayed together is to be this share of the gradient.

    The retention of a rescue is whether the task, when it comes up again, is solved by a sample of the reader's own.
    Tasks that never come up again and no replay: SGT. λ = 0: exactly the lessons below.
    """

    kinds: tuple[Kind, ...] = ("success",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"peers' rollouts"})
    needs: ClassVar[frozenset[Credit]] = frozenset({"own rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        weight: PerEdge = 0.1,
        compatible: bool = False,
        per_rescue: bool = False,
        own: bool = True,
        own_weight: float = 4.0,
        half_life: Unbounded = 32.0,
        per_task: int = 4,
        capacity: int = 4096,
        budget: int | None = None,
        replay: int = 0,
        target_share: float | None = None,
        **common: Unpack[Common],
    ) -> None:
        if min(per_task, capacity) < 1 or min(replay, 0 if budget is None else budget) < 0:
            raise ConfigError(
                f"per_task and capacity must be at least 1, replay and budget at least 0, got {per_task}, {capacity}, "
                f"{replay} and {budget}"
            )
        if not (half_life > 0 and own_weight > 0):
            raise ConfigError(f"half_life and own_weight must be above 0, got {half_life} and {own_weight}")
        self._imitation = Imitation.of(weight, env.possible_agents, compatible=compatible, per_rescue=per_rescue)
        self._controller = ShareController.of(target_share, self._imitation)
        self.kinds = self._imitation.kinds
        super().__init__(env, **common)
        self._own, self._own_weight, self._half_life = own, own_weight, half_life
        self._per_task, self._capacity, self._budget, self._replay = per_task, capacity, budget, replay
        self._shelves: dict[str, Shelf] = {}

    def asks(self, groups: Sequence[Group]) -> Sequence[str]:
        return () if self._imitation.is_off else [group[0].task.id for group in groups if failed(group)]

    def share(self, situation: Situation) -> Shared:
        if self._imitation.is_off:
            return Shared(situation.lessons, {})
        shelf = self._shelves.setdefault(situation.reader, Shelf({}, {}))
        retention = shelf.notice(situation.groups)
        offers = {g[0].task.id: self._offered(situation, shelf, g[0].task.id) for g in situation.groups if failed(g)}
        chosen = shelf.least_rescued([t for t, offered in offers.items() if offered], self._budget, situation)
        rescues = [self._rescue(situation, offers[task_id], task_id) for task_id in chosen]
        replayed = self._replayed(situation, shelf)
        for lesson in (*rescues, *replayed):
            shelf.count(lesson.experience.task.id, situation.round)
        self._keep(situation, shelf)
        recalled = sum(lesson.experience.round < situation.round for lesson in rescues)
        mine = sum(lesson.experience.author == situation.reader for lesson in (*rescues, *replayed))
        metrics = {
            "failed": float(len(offers)),
            "rescued": float(len(rescues)),
            "rescued_from_memory": float(recalled),
            "rescued_by_own": float(mine),
            "replayed": float(len(replayed)),
            "remembered": float(len(shelf.kept)),
            **retention,
            **self._controller.metrics(situation.reader),
        }
        return Shared((*situation.lessons, *rescues, *replayed), metrics)

    def learnt(self, reader: str, metrics: Metrics) -> None:
        super().learnt(reader, metrics)
        self._controller.learnt(reader, metrics)

    def state_dict(self) -> dict[str, JSON]:
        shelves: JSON = {reader: shelf.as_json() for reader, shelf in sorted(self._shelves.items())}
        return {**super().state_dict(), **self._controller.state(), "shelves": shelves}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._controller.restore(state)
        self._shelves = {reader: Shelf.from_json(kept) for reader, kept in state["shelves"].items()}

    def _offered(self, situation: Situation, shelf: Shelf, task_id: str) -> list[Experience]:
        """What could rescue this task: peers' successes of this round, and what is kept."""
        fresh = self._imitation.offered(situation, task_id)
        return [*fresh, *(e for e in shelf.kept.get(task_id, ()) if self._may(situation.reader, e.author))]

    def _may(self, reader: str, author: str) -> bool:
        return self._own if author == reader else self._imitation.weight.at(reader, author) > 0.0

    def _rescue(self, situation: Situation, offered: Sequence[Experience], task_id: str) -> Lesson:
        draw = generator(situation.seed, "memory", situation.round, situation.reader, task_id)
        chances = [
            (self._own_weight if e.author == situation.reader else 1.0)
            * 2.0 ** (-max(situation.round - e.round, 0) / self._half_life)
            for e in offered
        ]
        total = sum(chances)
        picked = offered[int(draw.choice(len(offered), p=[chance / total for chance in chances]))]
        return self._imitation.lesson(situation.reader, picked, self._controller.factor(situation.reader))

    def _replayed(self, situation: Situation, shelf: Shelf) -> list[Lesson]:
        here = {group[0].task.id for group in situation.groups if group}
        waiting = [task_id for task_id, past in shelf.rescued.items() if not past.is_retained and task_id not in here]
        found = {task_id: self._offered(situation, shelf, task_id) for task_id in sorted(waiting)}
        chosen = shelf.least_rescued([t for t, offered in found.items() if offered], self._replay, situation)
        return [self._rescue(situation, found[task_id], task_id) for task_id in chosen]

    def _keep(self, situation: Situation, shelf: Shelf) -> None:
        """One success of the reader's own, or where it failed one of each peer's, for each task of this round."""
        for group in situation.groups:
            if not group:
                continue
            task_id = group[0].task.id
            right = tuple(e for e in group if e.verdict.correct and not e.earlier)
            if right and self._own:
                shelf.put(drawn_one(right, situation, "memory own", task_id), self._per_task)
            if failed(group):
                offered = self._imitation.offered(situation, task_id)
                for author in sorted({e.author for e in offered}):
                    theirs = [e for e in offered if e.author == author]
                    shelf.put(drawn_one(theirs, situation, f"memory {author}", task_id), self._per_task)
        shelf.shrink(self._capacity)


@dataclass(frozen=True, slots=True)
class Past:
    """What became of a task since it was first rescued: how often it was, in which round last, how often it came up
    again, and how often the reader solved it then."""

    rescues: int
    last: int
    returns: int = 0
    solved: int = 0

    @property
    def is_retained(self) -> bool:
        return self.solved > 0


@dataclass(frozen=True, slots=True)
class Shelf:
    """What one reader keeps: successes by task, oldest first, the task touched last being last; and what became of
    tasks that were rescued."""

    kept: dict[str, tuple[Experience, ...]]
    rescued: dict[str, Past]

    def notice(self, groups: Sequence[Group]) -> Metrics:
        """Tasks that were rescued and come up again: how many, and how many of them the reader now solves."""
        returned = solved = 0
        for group in groups:
            past = self.rescued.get(group[0].task.id) if group else None
            if past is not None:
                unaided = not failed(group)
                returned, solved = returned + 1, solved + unaided
                self.rescued[group[0].task.id] = replace(past, returns=past.returns + 1, solved=past.solved + unaided)
        ever = sum(past.returns for past in self.rescued.values())
        metrics = {"returned": float(returned), "retained": float(solved)}
        if ever:
            metrics["retention"] = sum(past.solved for past in self.rescued.values()) / ever
        return metrics

    def least_rescued(self, task_ids: Sequence[str], count: int | None, situation: Situation) -> list[str]:
        """So many of the tasks: those rescued least often first, then by lot. In their order where all are taken."""
        if count is None or count >= len(task_ids):
            return list(task_ids)
        lot = generator(situation.seed, "memory budget", situation.round, situation.reader).permutation(len(task_ids))
        times = [self.rescued[t].rescues if t in self.rescued else 0 for t in task_ids]
        return [task_ids[i] for i in sorted(range(len(task_ids)), key=lambda i: (times[i], lot[i]))[:count]]

    def count(self, task_id: str, round: int) -> None:
        past = self.rescued.get(task_id, Past(0, round))
        self.rescued[task_id] = replace(past, rescues=past.rescues + 1, last=round)

    def put(self, experience: Experience, per_task: int) -> None:
        task_id = experience.task.id
        others = [
            e
            for e in self.kept.pop(task_id, ())
            if (e.author, e.completion.text) != (experience.author, experience.completion.text)
        ]
        self.kept[task_id] = (*others, experience)[-per_task:]

    def shrink(self, capacity: int) -> None:
        """Forget tasks beyond the capacity, and as many that were rescued and are not kept."""
        for table in (self.kept, self.rescued):
            spare = [t for t in table if t in self.rescued and self.rescued[t].is_retained]
            for task_id in [*spare, *(t for t in list(table) if t not in spare)][: max(len(table) - capacity, 0)]:
                del table[task_id]

    def as_json(self) -> JSON:
        return {
            "kept": [[as_json(e) for e in found] for found in self.kept.values()],
            "rescued": [[t, past.rescues, past.last, past.returns, past.solved] for t, past in self.rescued.items()],
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Shelf:
        found = [tuple(from_json(e) for e in of_task) for of_task in kept["kept"]]
        return cls({of_task[0].task.id: of_task for of_task in found}, {t: Past(*past) for t, *past in kept["rescued"]})
