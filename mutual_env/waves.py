"""Dynamic sampling: a round in waves, in which groups without spread of reward are sampled again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gymnasium.spaces import Dict
from pettingzoo.utils.wrappers import BaseParallelWrapper

from mutual_env.conversations import without_the_over
from mutual_env.env import Action, Observation, ReasoningEnv, Stepped, flat, summarize
from mutual_env.errors import InvalidActionError, InvalidInputError
from mutual_env.spaces import conversation_space
from mutual_env.spec import whole_number
from mutual_env.turns import ConversationEnv
from mutual_env.types import AgentInfo, Completion, Context, Experience, Group, Metrics, Task, Verdict
from mutual_env.verifiers import settle


class Waves(BaseParallelWrapper):  # type: ignore[misc]  # PettingZoo is not checked
    """DAPO's dynamic sampling around an env of one turn, for each agent by itself.

    The first wave is the round as it would have been. Then, up to `refills` times, each group whose rewards are all
    equal is sampled again, and the new one takes its place. Where groups without spread are left after that, as many of
    the round's `spare_prompts` are asked for in their places, until no place is without spread or no spare is left; a
    spare prompt is not refilled. So a round has at most 1 + refills + spare_prompts waves.

    Agents observe what to sample as open conversations that have not begun, None where nothing is asked for: a loop
    that plays turns plays waves. `infos[agent]["groups"]` has a group for each of `tasks`, the spare ones last; the
    groups that stayed without spread are among them, for rescues and shared statistics live on those, and a spare
    prompt that was not asked for has an empty one. Metrics of what a policy wrote are those of the first wave: what was
    chosen for its spread does not say how good a policy is.
    """

    ends_apart = True

    def __init__(self, env: Any, *, refills: int = 0, spare_prompts: int = 0) -> None:
        super().__init__(env)
        if not isinstance(env, ReasoningEnv) or isinstance(env, ConversationEnv):
            raise InvalidInputError(
                f"refills and spare_prompts are for envs of one turn, got {env}: leave them out where episodes have "
                "several turns, and put a strategy around this wrapper, not inside it"
            )
        self._refills = whole_number("refills", refills, 0)
        self._spare_prompts = whole_number("spare_prompts", spare_prompts, 0)
        self._spec = env.spec
        shape = self._spec.prompts_per_round, self._spec.group_size, self._spec.max_chars
        self._observations: dict[str, Dict] = {agent: conversation_space(*shape) for agent in env.possible_agents}
        self._alive: list[str] = []
        self._tasks: tuple[Task, ...] = ()
        self._places: dict[str, Places] = {}

    @property
    def agents(self) -> list[str]:
        return list(self._alive)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of the round, then those in reserve."""
        return self._tasks

    def observation_space(self, agent: str) -> Dict:
        self.env.observation_space(agent)  # which knows the agents
        return self._observations[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        _, infos = self.env.reset(seed=seed, options=options)
        self._tasks = (*self.env.tasks, *self.env.spare_tasks(self._spare_prompts))
        self._alive = list(self.env.agents)
        asked = self._spec.prompts_per_round
        self._places = {agent: Places(asked, len(self._tasks), self._refills) for agent in self._alive}
        return {agent: self._observe(agent) for agent in self._alive}, infos

    def step(self, actions: Mapping[str, Action]) -> Stepped:
        written = self._written(actions)
        asked = [(self._tasks[t], c.text) for agent in self._alive for t, c in written[agent]]
        verdicts = self.env.verify(asked)
        settlement = settle(verdicts, self._spec.on_unscored, self._spec.unscored_limit)
        kept = dict(zip(settlement.kept, settlement.verdicts, strict=True))
        start = 0
        for agent in self._alive:
            own = range(start, start + len(written[agent]))
            settled, raw = [kept.get(i) for i in own], [verdicts[i] for i in own]
            self._places[agent].sampled(self._groups(agent, written[agent], settled), written[agent], raw)
            start = own.stop
        return self._stepped()

    def _stepped(self) -> Stepped:
        alive = self._alive
        ended = {agent: self._places[agent].is_over for agent in alive}
        infos: dict[str, AgentInfo] = {}
        for agent in alive:
            places = self._places[agent]
            over = ended[agent]
            groups, metrics = (places.groups, places.metrics()) if over else ((), {})
            infos[agent] = AgentInfo(round=self.env.round, groups=groups, metrics=metrics)
        self._alive = [agent for agent in alive if not ended[agent]]
        rewards = {agent: _mean_reward(infos[agent]["groups"]) for agent in alive}
        return {a: self._observe(a) for a in alive}, rewards, ended, dict.fromkeys(alive, False), infos

    def _observe(self, agent: str) -> Observation:
        """What to sample now; the prompts are the round's, whatever has taken their places."""
        size = self._spec.group_size
        asked = self._places[agent].asked
        contexts = tuple((None if t is None else Context(self._tasks[t].prompt),) * size for t in asked)
        prompts = tuple(task.prompt for task in self._tasks[: self._spec.prompts_per_round])
        return {"conversations": contexts, "prompts": prompts}

    def _written(self, actions: Mapping[str, Action]) -> dict[str, list[tuple[int, Completion]]]:
        """What each agent wrote, by task; what does not fit is refused before anything is changed."""
        if not self._alive:
            raise InvalidActionError("step: no round is open; call reset() before each step")
        if not isinstance(actions, Mapping) or actions.keys() != set(self._alive):
            given = sorted(map(str, actions)) if isinstance(actions, Mapping) else f"a {type(actions).__name__}"
            raise InvalidActionError(f"actions must hold exactly the agents {self._alive}, got {given}")
        size = self._spec.group_size
        written: dict[str, list[tuple[int, Completion]]] = {}
        for agent in self._alive:
            asked = self._places[agent].asked
            action = without_the_over([[t is None] * size for t in asked], actions[agent])
            defect = self.action_space(agent).defect(action)
            if defect is not None:
                raise InvalidActionError(f"actions[{agent!r}]{defect}")
            tasks = [t for t in asked for _ in range(size)]
            written[agent] = [(t, c) for t, c in zip(tasks, flat(action), strict=True) if t is not None]
        return written

    def _groups(
        self, agent: str, written: Sequence[tuple[int, Completion]], settled: Sequence[Verdict | None]
    ) -> dict[int, Group]:
        groups: dict[int, list[Experience]] = {t: [] for t, _ in written}
        for (t, completion), verdict in zip(written, settled, strict=True):
            if verdict is not None:
                groups[t].append(Experience(self._tasks[t], agent, completion, verdict, self.env.round))
        return {t: tuple(group) for t, group in groups.items()}


class Places:
    """One agent's round: which task each of its places holds, what was sampled there, what is asked for next.

    `asked` names the task that is asked for in each place, None where nothing is.
    """

    def __init__(self, places: int, tasks: int, refills: int) -> None:
        self.asked: list[int | None] = list(range(places))
        self.groups: tuple[Group, ...] = ((),) * tasks
        self._holding = list(range(places))
        self._spares = list(range(places, tasks))
        self._refills, self._waves = refills, 0
        self._first: Metrics = {}
        self._flat_at_first: frozenset[int] = frozenset()
        self._refilled = 0

    @property
    def is_over(self) -> bool:
        return all(task is None for task in self.asked)

    def sampled(
        self, groups: Mapping[int, Group], written: Sequence[tuple[int, Completion]], verdicts: Sequence[Verdict]
    ) -> None:
        """Take what was asked for, and decide what to ask for next."""
        self.groups = tuple(groups.get(t, group) for t, group in enumerate(self.groups))
        flat_places = [p for p, task in enumerate(self._holding) if not has_spread(self.groups[task])]
        if self._waves == 0:
            first = [self.groups[task] for task in self._holding]
            self._first = summarize(first, [c for _, c in written], verdicts)
            self._flat_at_first = frozenset(self._holding[p] for p in flat_places)
        self._waves += 1
        self.asked = [None] * len(self._holding)
        for place in flat_places:
            if self._waves <= self._refills:
                self._refilled += 1
            elif self._spares:
                self._holding[place] = self._spares.pop(0)
            else:
                continue
            self.asked[place] = self._holding[place]

    def metrics(self) -> Metrics:
        places = len(self._holding)
        spares = [group for group in self.groups[places:] if group]
        return {
            **self._first,
            "waves": float(self._waves),
            "spread/first": float(places - len(self._flat_at_first)),
            "spread/last": float(sum(map(has_spread, self.groups))),
            "refills": float(self._refilled),
            "refills/gained": float(sum(has_spread(self.groups[task]) for task in self._flat_at_first)),
            "spare_prompts": float(len(spares)),
            "spare_prompts/gained": float(sum(map(has_spread, spares))),
        }


def has_spread(group: Group) -> bool:
    """Whether its rewards differ, so that it teaches something by itself."""
    rewards = {experience.verdict.reward for experience in group}
    return len(rewards) > 1


def _mean_reward(groups: Sequence[Group]) -> float:
    rewards = [e.verdict.reward or 0.0 for group in groups for e in group]
    return math.fsum(rewards) / len(rewards) if rewards else 0.0
