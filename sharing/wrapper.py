"""The env wrapper that every strategy is: it publishes what its agents did, reads what their peers did, and asks
one hook.

    env.step -> Experience -> publish -> read -> admit -> Situation -> share -> Shared (lessons, metrics)

Whether the peers act in this env, in another process or in a stored run makes no difference to a strategy.
"""

from __future__ import annotations

import time
import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Unpack, cast

from pettingzoo.utils.wrappers import BaseParallelWrapper

from mutual_env.errors import ConfigError, InvalidInputError
from mutual_env.options import fields_of
from mutual_env.together import EndTogether
from mutual_env.types import JSON, AgentInfo, Group, Lesson, Metrics
from sharing.admission import AdmissionContext, Admitted, Limits, Verify, admit
from sharing.codec import wire_size
from sharing.dialogue import checked_divergence, in_own_dialogue
from sharing.edges import Edges, at_least_0, ring
from sharing.exchange.memory import InMemoryExchange
from sharing.exchange.protocol import Exchange, Reading
from sharing.records import KINDS, Kind, Record, as_it_is, records_of
from sharing.shaping import SoftOverlong, checked_truncated, penalty_of, shaped, whole
from sharing.situation import Common, Credit, Sampled, Shared, Situation, check_common
from sharing.traffic import complaints, outcomes, traffic


class SharingWrapper(BaseParallelWrapper):  # type: ignore[misc]
    """Subclasses say which record kinds they read (`kinds`), what they give credit to (`credits`), what must have
    been credited by the strategy below (`needs`), and override `share`; `asks` where they do not need every task."""

    kinds: tuple[Kind, ...] = ()
    credits: ClassVar[frozenset[Credit]] = frozenset()
    needs: ClassVar[frozenset[Credit]] = frozenset()

    def __init__(self, env: Any, **common: Unpack[Common]) -> None:
        below = sharing_below(env)
        super().__init__(env if below or not _ends_apart(env) else EndTogether(env))
        self._below = below
        _check_stack(type(self), env)
        check_common(common)
        self._max_staleness = common.get("max_staleness", 0)
        self.exchange: Exchange = common.get("exchange") or (
            below.exchange if below else InMemoryExchange(keep_rounds=_keep(self._max_staleness))
        )
        peers = common.get("peers")
        self._peers = ring(self.possible_agents, peers) if isinstance(peers, int) else peers
        self._wait = common.get("wait", 0.0)
        self._publishes = _publishes(self, common.get("publish", ()), below)
        self._verify = _verify(env, common) if common.get("reverify", True) else None
        limits = common.get("limits", Limits())
        self._limits = limits if isinstance(limits, Limits) else fields_of("limits", Limits, limits)
        self._trust: Edges = Edges.of("trust", common.get("trust", 1.0), self.possible_agents, at_least_0)
        self._most_diverged = checked_divergence(common.get("max_divergence", 1.0))
        self._penalty: SoftOverlong | None = penalty_of(common.get("length_penalty", below._penalty if below else None))
        self._truncated: str = checked_truncated(common.get("truncated", below._truncated if below else "keep"))
        self._seed = 0
        self._seen: dict[str, tuple[int, int]] = {}
        self._rewards: tuple[float, ...] = ()  # the least and the most that this env's verifier has given
        self._published: dict[int, dict[int, Record]] = {}  # this env's records by round and id, until they are taught
        self._warned: set[str] = set()

    @abstractmethod
    def share(self, situation: Situation) -> Shared:
        """What the reader learns from its situation. A pure function of it, whatever the order in which readers
        ask.
        """

    def asks(self, groups: Sequence[Group]) -> Sequence[str]:
        """On which tasks the reader wants to see records."""
        return [group[0].task.id for group in groups if group]

    def state_dict(self) -> dict[str, JSON]:
        """What this strategy and those below keep from round to round, as JSON."""
        seen: JSON = {author: list(last) for author, last in sorted(self._seen.items())}
        state: dict[str, JSON] = {"seen": seen, "rewards": list(self._rewards)}
        return {**state, "below": self._below.state_dict()} if self._below else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._seen = {author: (int(r), int(v)) for author, (r, v) in state["seen"].items()}
        self._rewards = tuple(map(float, state.get("rewards", ())))
        if self._below:
            self._below.load_state_dict(state["below"])

    def learnt(self, reader: str, metrics: Metrics) -> None:
        """What came of the reader's lessons: the metrics of its batch and update, as the loop of a run says after each
        update. A strategy that adapts to it overrides this, and calls it for the strategies below."""
        if self._below:
            self._below.learnt(reader, metrics)

    def __str__(self) -> str:
        return f"<{type(self).__name__}{self.env}>" if self._below else f"<{type(self).__name__}<{self.env}>>"

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if seed is not None:
            self._seed = seed
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: dict[str, Any]) -> Any:
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        if not self.env.agents:  # else the round goes on: nothing is shared before its end
            infos = self._with_lessons(infos, self._send(infos))
        return observations, rewards, terminations, truncations, infos

    def sample(self, actions: dict[str, Any]) -> Sampled:
        """The first half of `step`: verify and publish. For a loop whose peers may be rounds behind. Where the round
        has further turns, nothing is published yet, and the observations are what agents go on from."""
        if self._below:
            below = self._below.sample(actions)
            return Sampled(below.infos, (self._publish_at_end(below.infos), *below.sent), below.observations)
        stepped = self.env.step(actions)
        return Sampled(stepped[-1], (self._publish_at_end(stepped[-1]),), stepped[0])

    def _publish_at_end(self, infos: Mapping[str, AgentInfo]) -> Mapping[str, Mapping[str, int]]:
        return {} if self.env.agents else self._send(infos)

    def teach(self, sampled: Sampled) -> dict[str, AgentInfo]:
        """The second half, any number of rounds later: read the peers, and what they teach."""
        infos, (sent, *others) = sampled.infos, sampled.sent
        if self._below:
            infos = self._below.teach(Sampled(infos, tuple(others)))
        return self._with_lessons(infos, sent)

    def _with_lessons(
        self, infos: Mapping[str, AgentInfo], sent: Mapping[str, Mapping[str, int]]
    ) -> dict[str, AgentInfo]:
        round_ = _round_of(infos)
        context = AdmissionContext(round_, self.possible_agents, self._published_of_stack(round_), self._seen)
        self._rewards = _extremes([*self._rewards, *_rewards_of(infos)])
        taught: dict[str, AgentInfo] = {}
        seen = dict(self._seen)
        offered, heard = 0, Counter[str]()
        for agent, info in infos.items():
            taught[agent], reading, admitted = self._teach(agent, info, sent.get(agent, _NO_BYTES_SENT), context)
            offered += len(reading.records) + reading.unreadable
            heard.update({"taken": admitted.taken, "refused/unreadable": reading.unreadable, **admitted.counts})
            for author, latest in admitted.versions.items():
                seen[author] = max(seen.get(author, latest), latest)
        self._seen = seen  # only now: what one reader met must not decide what the next one admits
        self._warn(offered, heard)
        return taught

    def _warn(self, offered: int, heard: Counter[str]) -> None:
        """Once of each kind: of what nobody would notice."""
        for kind, sentence in complaints(type(self).__name__, offered, heard, rewards_said(self.env)).items():
            if kind not in self._warned:
                self._warned.add(kind)
                warnings.warn(sentence, stacklevel=4)

    def _limits_now(self) -> Limits:
        """With the rewards in range that this env's verifier says that it gives, or has given; peers' statistics are of
        rewards under the penalty."""
        limits = self._limits.widened([*self._rewards, *(rewards_said(self.env) or ())])
        return limits if self._penalty is None else limits.widened([limits.reward_range[0] - 1.0])

    def _send(self, infos: Mapping[str, AgentInfo]) -> dict[str, Counter[str]]:
        """Publish everybody's records in one batch, in the order of names. Returns each agent's bytes by kind."""
        for agent, info in infos.items():
            if "groups" not in info:
                raise InvalidInputError(
                    f"infos[{agent!r}] holds no 'groups': a sharing strategy wraps an env of mutual_env.make(...), or "
                    "one that returns the same AgentInfo"
                )
        if not self._publishes:
            return {}
        verifier = verifier_id(self.env)
        shape = as_it_is if self._penalty is None else self._penalty.shaped
        records: list[Record] = []
        sizes: dict[str, Counter[str]] = {}
        for agent in sorted(infos):
            mine = [
                record
                for group in infos[agent]["groups"]
                for record in records_of(group, self._publishes, verifier, shape)
            ]
            sizes[agent] = Counter()
            for record in mine:
                sizes[agent][record.kind] += wire_size(record)
            records.extend(mine)
        self._published.pop(round_ := _round_of(infos), None)
        self._published[round_] = dict(zip(self.exchange.publish(records), records, strict=True)) if records else {}
        for old in list(self._published)[:-_ROUNDS_AHEAD]:
            del self._published[old]
        return sizes

    def _teach(
        self, reader: str, info: AgentInfo, sent: Mapping[str, int], context: AdmissionContext
    ) -> tuple[AgentInfo, Reading, Admitted]:
        scored = (tuple(e for e in group if e.verdict.reward is not None) for group in info["groups"])
        groups = tuple(shaped(group, self._penalty) for group in scored)
        reading, heard = self._listen(reader, info["round"], groups, context)
        admitted = self._trusted(reader, heard)
        situation = Situation(
            reader,
            info["round"],
            self._seed,
            groups,
            info.get("lessons", ()),
            admitted.rollouts,
            admitted.successes,
            admitted.statistics,
        )
        shared = self.share(situation)
        lessons = self._weighed(situation, shared.lessons)
        metrics = dict(info["metrics"])
        for key, value in (traffic(reading, admitted, sent, len(groups)) if self.kinds or sent else {}).items():
            metrics[f"share/{key}"] = metrics.get(f"share/{key}", 0.0) + value
        metrics.update(outcomes(reader, groups, lessons))
        for key, value in shared.metrics.items():
            metrics[f"share/{key}"] = value
        if self._truncated == "mask":
            metrics["share/masked"] = float(len(shared.lessons) - len(lessons))
        taught: AgentInfo = {**info, "lessons": lessons, "metrics": metrics}
        return taught, reading, heard

    def _trusted(self, reader: str, admitted: Admitted) -> Admitted:
        """What the reader hears: nothing of an author with trust 0, no conversation that would have been another, and
        peers' rewards under its own penalty."""
        admitted = in_own_dialogue(self.env, reader, admitted, self._most_diverged)
        if self._trust.is_always(1.0) and self._penalty is None:
            return admitted
        return admitted.seen_by(
            lambda author: self._trust.at(reader, author) > 0.0, lambda group: shaped(group, self._penalty)
        )

    def _weighed(self, situation: Situation, lessons: tuple[Lesson, ...]) -> tuple[Lesson, ...]:
        """The lessons that this strategy gives, each peer's weighed by the trust in it; those from below are as they
        came. What was cut off is left out where that is asked for."""
        if not self._trust.is_always(1.0):
            came = set(map(id, situation.lessons))
            reader = situation.reader
            lessons = tuple(
                lesson
                if id(lesson) in came or lesson.experience.author == reader
                else replace(lesson, weight=lesson.weight * self._trust.at(reader, lesson.experience.author))
                for lesson in lessons
            )
        return whole(lessons) if self._truncated == "mask" else lessons

    def _listen(
        self, reader: str, round_: int, groups: Sequence[Group], context: AdmissionContext
    ) -> tuple[Reading, Admitted]:
        if not self.kinds:
            return _NOTHING_READ
        wanted = set(self.asks(groups))
        tasks = {g[0].task.id: g[0].task for g in groups if g and g[0].task.id in wanted}
        authors = self._authors(reader)
        if not tasks or authors == ():
            return _NOTHING_READ
        if self._wait and authors is not None:
            self._wait_for(reader, list(tasks), round_, authors)
        reading = self.exchange.read(
            reader, list(tasks), self.kinds, round=round_, max_staleness=self._max_staleness, authors=authors
        )
        return reading, admit(reading.records, tasks, context, self._limits_now(), self._verify)

    def _authors(self, reader: str) -> tuple[str, ...] | None:
        """Whom this reader reads; None is everybody."""
        if self._peers is None:
            return None
        names = self._peers.get(reader, ()) if isinstance(self._peers, Mapping) else self._peers
        return tuple(sorted(set(names) - {reader}))

    def _wait_for(self, reader: str, task_ids: Sequence[str], round_: int, authors: Sequence[str]) -> None:
        """Until each author has published on every task (its statistics say so), or the time is up."""
        deadline = time.monotonic() + self._wait
        pause = 0.001
        while True:
            reading = self.exchange.read(
                reader, task_ids, ("statistics",), round=round_, max_staleness=self._max_staleness, authors=authors
            )
            if len(reading.records) >= len(task_ids) * len(authors) or time.monotonic() >= deadline:
                return
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(2 * pause, 0.1)

    def _published_of_stack(self, round_: int) -> Mapping[int, Record]:
        """What this env published in a round, through whichever of the stacked strategies, to this exchange."""
        mine, below = self._published.get(round_, {}), self._below
        if below is None or below.exchange is not self.exchange:
            return mine
        return {**mine, **below._published_of_stack(round_)}


def sharing_below(env: Any) -> SharingWrapper | None:
    """The nearest strategy in a stack of wrappers."""
    while isinstance(env, BaseParallelWrapper):
        if isinstance(env, SharingWrapper):
            return env
        env = env.env
    return None


def verifier_id(env: Any) -> str:
    """Which verifier scores an env's experience; "" where the env does not say."""
    return str(getattr(env.unwrapped, "verifier_id", ""))


def rewards_said(env: Any) -> tuple[float, float] | None:
    """The least and the most that an env says its verifier gives."""
    return cast(tuple[float, float] | None, getattr(env.unwrapped, "reward_range", None))


def credits_below(env: Any) -> dict[Credit, str]:
    """What the strategies in a stack give credit to, and which of them does."""
    given: dict[Credit, str] = {}
    below = sharing_below(env)
    while below is not None:
        given.update(dict.fromkeys(type(below).credits, type(below).__name__))
        below = below._below
    return given


def _check_stack(strategy: type[SharingWrapper], env: Any) -> None:
    given = credits_below(env)
    for credit in sorted(strategy.needs - given.keys()):
        raise ConfigError(
            f"{strategy.__name__} adds to lessons on {credit} and finds none below it: "
            f"{strategy.__name__}(Independent(env)), or sharing.make by name, which does that"
        )
    for credit in sorted(strategy.credits & given.keys()):
        raise ConfigError(
            f"{strategy.__name__} over {given[credit]} would give {credit} credit twice: use one of the two, or put "
            f"{strategy.__name__} over a strategy that leaves {credit} alone"
        )


def _round_of(infos: Mapping[str, AgentInfo]) -> int:
    return max((info["round"] for info in infos.values()), default=0)


def _rewards_of(infos: Mapping[str, AgentInfo]) -> list[float]:
    given = (e.verdict.reward for info in infos.values() for group in info["groups"] for e in group)
    return [reward for reward in given if reward is not None]


def _extremes(rewards: Sequence[float]) -> tuple[float, ...]:
    return (min(rewards), max(rewards)) if rewards else ()


def _keep(max_staleness: int | None) -> int | None:
    return None if max_staleness is None else max_staleness + 1


def _publishes(wrapper: SharingWrapper, extra: Collection[Kind], below: SharingWrapper | None) -> tuple[Kind, ...]:
    """What the strategies below do not publish to the same exchange already."""
    wanted = {*wrapper.kinds, *extra, *(("statistics",) if wrapper._wait else ())}
    while below is not None:
        if below.exchange is wrapper.exchange:
            wanted -= set(below._publishes)
        below = below._below
    return tuple(kind for kind in KINDS if kind in wanted)


def _verify(env: Any, common: Common) -> Verify:
    given = common.get("verify") or getattr(env.unwrapped, "verify", None)
    if given is not None:
        return cast(Verify, given)

    def refuse(items: Sequence[Any]) -> Any:
        raise ConfigError(
            f"{env} cannot verify {len(items)} records that it did not make: give verify=..., or accept their "
            "claims with reverify=False"
        )

    return refuse


_ROUNDS_AHEAD = 256  # of rounds that are sampled and not yet taught, more are not remembered
_NO_BYTES_SENT: Mapping[str, int] = {}
_NOTHING_READ = (Reading(()), Admitted({}, {}, {}))


def _ends_apart(env: Any) -> bool:
    return bool(getattr(env, "ends_apart", False))
