"""The strategies as they are shipped, on the bandit: a small env whose actions are arms, a real wrapper around it, and
the update that its lessons ask for. With this the analysis is one of the code that trains, not of a second writing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import MultiDiscrete
from pettingzoo import ParallelEnv

from benchmarks.bandit.lessons import lesson_update
from mutual_env.types import AgentInfo, Completion, Experience, Floats, Group, Lesson, Task, Verdict
from sharing.analysis.bandit import Bools, Context
from sharing.analysis.outcomes import Counts
from sharing.registry import make
from sharing.wrapper import SharingWrapper

TOKENIZER = "arms"

# Name of the analysis -> (name of the strategy, options). HACPO knows capability from past steps only: it is 1 for all
# in a first round.
SHIPPED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "independent": ("independent", {}),
    "xgrpo": ("xgrpo", {}),
    "prp": ("prp", {}),
    "prp unclipped": ("prp", {"clip_low": np.inf, "clip_high": np.inf}),
    "sgt": ("sgt", {}),
    "auto": ("auto", {}),
    "graft": ("graft", {"stored": True}),
    "hacpo": ("hacpo", {}),
    "ftis": ("ftis", {}),
    "luffy": ("luffy", {}),
    "sapo": ("sapo", {}),
    "trrd": ("trrd", {"teacher": "agent_1"}),
    "kd-rl": ("kdrl", {"teacher": "agent_1"}),
    "topd": ("topd", {"teacher": "agent_1"}),
    "offline distillation": ("offline", {"teacher": "agent_1", "max_staleness": 0}),  # the analysis has no memory
}


def agent_names(context: Context) -> list[str]:
    return [f"agent_{row}" for row in range(context.policies_AK.shape[0])]


class BanditEnv(ParallelEnv[str, Any, Any]):  # type: ignore[misc]  # PettingZoo is not checked
    """One prompt for all agents; an action is a group of arms. The reader is `agent_0`."""

    metadata = {"name": "bandit", "render_modes": []}  # noqa: RUF012  # as PettingZoo declares it
    render_mode = None
    verifier_id = "bandit"

    def __init__(self, context: Context, size: int) -> None:
        self.context = context
        self.possible_agents = agent_names(context)
        self.agents: list[str] = []
        self.round = -1
        self._task = Task(context.name, context.name, "")
        self._arms = MultiDiscrete([context.reader_K.size] * size)

    def observation_space(self, agent: str) -> MultiDiscrete:
        return self._arms

    def action_space(self, agent: str) -> MultiDiscrete:
        return self._arms

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> Any:
        self.round = 0 if seed is not None else self.round + 1
        self.agents = self.possible_agents[:]
        return {}, {agent: {"round": self.round, "groups": (), "metrics": {}} for agent in self.agents}

    def step(self, actions: Mapping[str, Sequence[int]]) -> Any:
        infos: dict[str, AgentInfo] = {
            agent: {"round": self.round, "groups": (self._group(row, actions[agent]),), "metrics": {}}
            for row, agent in enumerate(self.possible_agents)
        }
        agents, self.agents = self.agents, []
        return {}, dict.fromkeys(agents, 0.0), dict.fromkeys(agents, True), dict.fromkeys(agents, False), infos

    def verify(self, items: Sequence[tuple[Task, str]]) -> list[Verdict]:
        return [self._verdict(int(text.split("#")[0])) for _, text in items]

    def _verdict(self, arm: int) -> Verdict:
        correct = bool(self.context.correct_K[arm])
        return Verdict.scored(float(correct), correct=correct)

    def _group(self, row: int, arms: Sequence[int]) -> Group:
        tokens = self.context.tokens
        carries_T = np.arange(tokens) < self.context.places
        log_KT = np.log(self.context.policies_AK[row])[:, None] * carries_T / self.context.places
        return tuple(
            Experience(
                self._task,
                self.possible_agents[row],
                Completion(f"{arm}#{index}", np.full(tokens, arm), log_KT[arm], "stop", 0, TOKENIZER),
                self._verdict(int(arm)),
                self.round,
            )
            for index, arm in enumerate(arms)
        )


def shipped(strategy: str, context: Context, size: int, **options: Any) -> SharingWrapper:
    """The strategy of this name of the analysis, around the bandit."""
    name, defaults = SHIPPED[strategy]
    return make(name, BanditEnv(context, size), **{**defaults, **options})


def arm_of(experience: Experience) -> int:
    """A text is `arm#index`: which arm, and which sample of the group."""
    return int(experience.completion.text.split("#")[0])


def shipped_lessons(strategy: SharingWrapper, arms_AG: Counts, *, seed: int | None = None) -> tuple[Lesson, ...]:
    """One round through the real wrapper: publish, read, admit, share. Returns the reader's lessons.

    With a seed it is round 0 of that seed, else the next round.
    """
    strategy.reset(seed=seed)
    names = strategy.possible_agents
    *_, infos = strategy.step({name: arms_G.tolist() for name, arms_G in zip(names, arms_AG, strict=True)})
    lessons: tuple[Lesson, ...] = infos[names[0]]["lessons"]
    return lessons


def shipped_update(
    strategy: SharingWrapper, context: Context, arms_AG: Counts, aligned_AG: Bools, *, seed: int | None = None
) -> Floats:
    """u of the shipped strategy for these samples (A, G), of which the `aligned` ones have an exact chunk."""
    return update_of(shipped_lessons(strategy, arms_AG, seed=seed), context, aligned_AG)


def update_of(lessons: Sequence[Lesson], context: Context, aligned_AG: Bools) -> Floats:
    """u of lessons on the bandit."""
    agents = {name: row for row, name in enumerate(agent_names(context))}

    def is_aligned(experience: Experience) -> bool:
        return bool(aligned_AG[agents[experience.author], int(experience.completion.text.split("#")[1])])

    return lesson_update(lessons, context, agents, arm_of, is_aligned)
