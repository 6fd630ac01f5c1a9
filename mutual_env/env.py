"""The env: one round is one episode. `reset` draws the prompts, `step` verifies what the agents wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, get_args

from gymnasium.spaces import Dict
from pettingzoo import ParallelEnv

from mutual_env.errors import InvalidActionError, InvalidInputError, UnknownNameError
from mutual_env.metrics import ACCURACY, REWARD
from mutual_env.prompts import PromptShape
from mutual_env.seeding import derive_seed
from mutual_env.spaces import GroupSpace, PromptSpace, round_space
from mutual_env.spec import EnvSpec, whole_number
from mutual_env.tasks.source import ClosableSource, TaskSource
from mutual_env.types import AgentInfo, Completion, Experience, Group, Metrics, Task, Verdict, VerdictStatus
from mutual_env.verifiers import VerifierPool, settle

Observation: TypeAlias = dict[str, Any]
"""`{"prompts": (P prompts)}`; where episodes have several turns also `"conversations"`: P x G contexts, or None."""
_STATUSES: tuple[VerdictStatus, ...] = get_args(VerdictStatus)
Action: TypeAlias = Sequence[Sequence[Completion | str]]
Stepped: TypeAlias = tuple[
    dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, AgentInfo]
]


class ReasoningEnv(ParallelEnv[str, Observation, Action]):  # type: ignore[misc]  # PettingZoo is not checked
    """A round of tasks for any number of agents.

    `reset()` draws the next round's tasks; every agent observes the same prompts. `reset(seed=s)` starts over at round
    0 of the task stream of seed s, `reset(options={"round": r})` jumps to round r. `step(actions)` takes from each
    agent, for each of the P prompts, a group of G completions, verifies them and ends the episode.

    `rewards[agent]` is the mean reward over what the agent submitted and what could be scored (0.0 if nothing could);
    `infos[agent]` is an `AgentInfo`. The verdicts depend on the texts alone: not on who else acts, nor in which order,
    nor on how many processes verify. An action that is refused leaves the round open: the corrected one can be stepped.
    """

    render_mode = "ansi"
    ends_apart = False
    """Whether agents may end in different steps of a round."""

    def __init__(self, spec: EnvSpec, source: TaskSource, pool: VerifierPool | None = None) -> None:
        self.metadata = {"name": spec.id, "render_modes": ["ansi"], "is_parallelizable": True}
        self.possible_agents = list(spec.agents)
        self.agents: list[str] = []
        self._spec = spec
        self._source = source
        self._owns_pool = pool is None
        self._pool = VerifierPool() if pool is None else pool
        self._seed = spec.seed
        self._round = -1
        self._tasks: tuple[Task, ...] = ()
        self._prompt_space = PromptSpace(spec.max_chars)
        self._shape = PromptShape.of(spec.prompt)
        shape = spec.prompts_per_round, spec.group_size, spec.max_chars
        self._actions = {agent: GroupSpace(*shape) for agent in spec.agents}
        self._observations = {agent: round_space(spec.prompts_per_round, spec.max_chars) for agent in spec.agents}

    @property
    def spec(self) -> EnvSpec:
        """What this env was made from."""
        return self._spec

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of the round that `reset` drew last, in the order of the prompts."""
        return self._tasks

    @property
    def round(self) -> int:
        """The round that `reset` drew last; -1 before the first."""
        return self._round

    @property
    def verifier_id(self) -> str:
        """Which verifier scores this env's experience."""
        return self._spec.verifier.id

    @property
    def reward_range(self) -> tuple[float, float] | None:
        """The least and the most that this env's verifier says that it gives; None: it says nothing."""
        return self._pool.reward_range(self._spec.verifier)

    def verify(self, items: Sequence[tuple[Task, str]]) -> list[Verdict]:
        """What this env's verifier says of these texts, e.g. of a peer's, whatever the round."""
        return self._pool.verify(self._spec.verifier, items)

    @property
    def joint(self) -> bool:
        """Whether what one agent writes is answered to another: then none can be asked without the others."""
        return False

    def begin_verifying(self, agent: str, groups: Action, first: int = 0) -> None:
        """Groups that the agent is going to give to `step`, from the place `first` on, while it or others still act:
        their verification begins now. Nothing that `step` says depends on it."""
        tasks = self._tasks[first : first + len(groups)]
        if agent in self.agents and len(tasks) == len(groups) and self._actions[agent].groups_defect(groups) is None:
            texts = [completion.text for completion in flat(groups)]
            self._pool.begin(self._spec.verifier, list(zip(self._for_each(tasks), texts, strict=True)))

    def spare_tasks(self, n: int) -> tuple[Task, ...]:
        """n further tasks in reserve for the round that `reset` drew last. They come from a stream of their own, so
        that rounds have the same tasks with and without a reserve."""
        if n == 0:
            return ()
        here = {task.id for task in self._tasks}
        drawn = self._draw(derive_seed(self._seed, "spare"), self._round, len(here) + n)
        return tuple(task for task in drawn if task.id not in here)[:n]

    def observation_space(self, agent: str) -> Dict:
        return self._observations[self._known(agent)]

    def action_space(self, agent: str) -> GroupSpace:
        return self._actions[self._known(agent)]

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, AgentInfo]]:
        following = self._round + 1 if seed is None else 0
        seed = self._seed if seed is None else whole_number("seed", seed, 0)
        round_ = whole_number("options['round']", (options or {}).get("round", following), 0)
        tasks = self._drawn(seed, round_)
        self._seed, self._round, self._tasks = seed, round_, tasks
        self.agents = self.possible_agents[:]
        self._begin()
        infos: dict[str, AgentInfo] = {a: {"round": round_, "groups": (), "metrics": {}} for a in self.agents}
        return self._observe(), infos

    def step(self, actions: Mapping[str, Action]) -> Stepped:
        self._check(actions)
        submitted = {agent: flat(actions[agent]) for agent in self.agents}
        verdicts = self.verify(self._items(submitted))
        settlement = settle(verdicts, self._spec.on_unscored, self._spec.unscored_limit)
        kept = dict(zip(settlement.kept, settlement.verdicts, strict=True))
        settled = [kept.get(i) for i in range(len(verdicts))]
        infos: dict[str, AgentInfo] = {}
        start = 0
        for agent, completions in submitted.items():
            stop = start + len(completions)
            groups = self._groups(agent, completions, settled[start:stop])
            metrics = summarize(groups, completions, verdicts[start:stop])
            infos[agent] = {"round": self._round, "groups": groups, "metrics": metrics}
            start = stop
        agents, self.agents = self.agents, []
        rewards = {agent: infos[agent]["metrics"][REWARD] for agent in agents}
        return self._observe(), rewards, dict.fromkeys(agents, True), dict.fromkeys(agents, False), infos

    def render(self) -> str:
        prompts = "\n".join(f"  {task.id}" for task in self._tasks)
        return f"{self.metadata['name']}, round {self._round}, agents {', '.join(self.possible_agents)}\n{prompts}"

    def close(self) -> None:
        """Stop the processes that this env started. A pool that was passed in stays open. Safe to call twice."""
        if self._owns_pool:
            self._pool.close()
        if isinstance(self._source, ClosableSource):
            self._source.close()

    def _begin(self) -> None:
        """What an env of several turns does when a round has been drawn."""

    def _drawn(self, seed: int, round_: int) -> tuple[Task, ...]:
        """The tasks of a round."""
        return self._draw(seed, round_, self._spec.prompts_per_round)

    def _draw(self, seed: int, round_: int, n: int) -> tuple[Task, ...]:
        """Tasks with their prompts in the env's shape."""
        name = self._spec.id
        tasks = tuple(self._source.draw(seed, round_, n))
        check_drawn(tasks, n, name, self._prompt_space)
        if self._shape != PromptShape():
            tasks = tuple(replace(task, prompt=self._shape(task.prompt)) for task in tasks)
            check_drawn(tasks, n, name, self._prompt_space)
        return tasks

    def _known(self, agent: str) -> str:
        if agent not in self._actions:
            raise UnknownNameError.of("agent", agent, self.possible_agents)
        return agent

    def _observe(self) -> dict[str, Observation]:
        prompts = tuple(task.prompt for task in self._tasks)
        return {agent: {"prompts": prompts} for agent in self.possible_agents}

    def _check(self, actions: Mapping[str, Action]) -> None:
        """Refuse what does not fit the round, before anything is changed."""
        if not self.agents:
            raise InvalidActionError("step: no round is open; call reset() before each step")
        if not isinstance(actions, Mapping) or actions.keys() != set(self.agents):
            given = sorted(map(str, actions)) if isinstance(actions, Mapping) else f"a {type(actions).__name__}"
            raise InvalidActionError(f"actions must hold exactly the agents {self.agents}, got {given}")
        for agent in self.agents:
            defect = self._actions[agent].defect(actions[agent])
            if defect is not None:
                raise InvalidActionError(f"actions[{agent!r}]{defect}")

    def _items(self, submitted: Mapping[str, Sequence[Completion]]) -> list[tuple[Task, str]]:
        """What there is to verify: each agent wrote G completions for every task in turn."""
        tasks = self._for_each(self._tasks)
        return [
            (task, c.text) for completions in submitted.values() for task, c in zip(tasks, completions, strict=True)
        ]

    def _for_each(self, tasks: Sequence[Task]) -> list[Task]:
        """Of each completion of these tasks' groups, the task."""
        return [task for task in tasks for _ in range(self._spec.group_size)]

    def _groups(
        self, agent: str, completions: Sequence[Completion], settled: Sequence[Verdict | None]
    ) -> tuple[Group, ...]:
        """The agent's experiences, a group for each task; what was dropped is missing from its group."""
        size, round_ = self._spec.group_size, self._round
        groups = []
        for task, p in zip(self._tasks, range(0, len(completions), size), strict=True):
            written = zip(completions[p : p + size], settled[p : p + size], strict=True)
            group = [Experience(task, agent, c, verdict, round_) for c, verdict in written if verdict is not None]
            groups.append(tuple(group))
        return tuple(groups)


def summarize(groups: Sequence[Group], completions: Sequence[Completion], verdicts: Sequence[Verdict]) -> Metrics:
    """What one agent's round comes to.

    `accuracy` and `reward/mean` are over what was kept, and 0 if nothing was; `solved` is the share of tasks with at
    least one correct completion; `verify/<status>` counts verdicts as they came, `verify/unscored` those without a
    reward. Where completions have a trace there is `length/tokens`, `length/truncated`, the share of those that were
    cut off, and `entropy`, minus the mean log-probability of the sampled tokens: an unbiased estimate of the entropy a
    token has under what was sampled from.
    """
    correct_PG = [[e.verdict.correct for e in group] for group in groups]
    statuses = [v.status for v in verdicts]
    metrics: Metrics = {
        REWARD: _mean([e.verdict.reward or 0.0 for group in groups for e in group]),
        ACCURACY: _mean([correct for group in correct_PG for correct in group]),
        "solved": _mean([True in group for group in correct_PG]),
        "length/chars": _mean([len(c.text) for c in completions]),
        "verify/unscored": float([v.reward for v in verdicts].count(None)),
    }
    for status in _STATUSES:
        metrics[f"verify/{status}"] = float(statuses.count(status))
    traced = [c for c in completions if c.tokenizer]
    tokens = sum(c.token_ids.size for c in traced)
    if traced:
        metrics["length/tokens"] = tokens / len(traced)
        metrics["length/truncated"] = _mean([c.finish_reason == "length" for c in traced])
    surprise = -math.fsum(float(c.logprobs.sum()) for c in traced)
    if tokens and math.isfinite(surprise):
        metrics["entropy"] = surprise / tokens
    return metrics


def flat(action: Action) -> list[Completion]:
    """Completions, group after group; a plain text becomes one without a trace."""
    return [item if isinstance(item, Completion) else Completion.from_text(item) for group in action for item in group]


def check_drawn(tasks: Sequence[Task], n: int, name: str, prompt_space: PromptSpace) -> None:
    """A source owes n tasks with n different ids and prompts that lie in the observation space."""
    if len(tasks) != n or not all(isinstance(t, Task) for t in tasks):
        raise InvalidInputError(f"{name}: draw(n={n}) must return {n} Tasks, got {len(tasks)} items")
    for task in tasks:
        if task.prompt not in prompt_space:
            raise InvalidInputError(
                f"{name}: the prompt of task {task.id!r} is not text or messages: {task.prompt!r:.200}"
            )
    ids = {t.id for t in tasks}
    if len(ids) != n:
        raise InvalidInputError(f"{name}: draw(n={n}) must return different tasks, got {n - len(ids)} repeated ids")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0  # fsum: the same whatever the order
