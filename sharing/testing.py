"""What a strategy must do, as a test that everybody's can be run through, and a small env to run it in.

from sharing.testing import check_strategy

check_strategy(lambda env, **common: MyStrategy(Independent(env, **common), **common))
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from pettingzoo import ParallelEnv

from mutual_env.errors import ConformanceError
from mutual_env.seeding import generator
from mutual_env.spaces import GroupSpace, round_space
from mutual_env.types import Completion, Experience, Lesson, Task, Verdict
from sharing.exchange.memory import InMemoryExchange
from sharing.wrapper import SharingWrapper

_AGENTS = ("policy_0", "policy_1", "policy_2")
_ROUNDS = 4
_PROMPTS = 6
_GROUP = 4


class MakeWrapper(Protocol):
    """A strategy around an env. `common` are options that every strategy takes, such as the exchange."""

    def __call__(self, env: Any, **common: Any) -> SharingWrapper: ...


class ScriptedEnv(ParallelEnv[str, Any, Any]):  # type: ignore[misc]  # PettingZoo has no types
    """A round of yes-or-no tasks, scored by what the answers say.

    "yes..." is right, a number is worth itself, "?..." cannot be scored, all else is wrong. Each token of an
    answer is a character. With `fixed`, every round has the same tasks. `verified` counts what `verify` was asked
    from outside.
    """

    metadata = {"name": "scripted", "render_modes": []}  # noqa: RUF012  # as PettingZoo declares it
    verifier_id = "scripted"
    render_mode = None

    def __init__(
        self, agents: Sequence[str] = _AGENTS[:2], *, prompts: int = 2, group: int = 2, fixed: bool = False
    ) -> None:
        self.possible_agents = list(agents)
        self.agents: list[str] = []
        self.verified = 0
        self._round = -1
        self._prompts = prompts
        self._fixed = fixed
        self._observations = {agent: round_space(prompts, 1000) for agent in agents}
        self._actions = {agent: GroupSpace(prompts, group, 2**21) for agent in agents}

    @property
    def tasks(self) -> tuple[Task, ...]:
        at = 0 if self._fixed else self._round
        return tuple(scripted_task(f"t{at}.{i}") for i in range(self._prompts))

    def observation_space(self, agent: str) -> Any:
        return self._observations[agent]

    def action_space(self, agent: str) -> Any:
        return self._actions[agent]

    def verify(self, items: Sequence[tuple[Task, str]]) -> list[Verdict]:
        self.verified += len(items)
        return [scripted_verdict(text) for _, text in items]

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> Any:
        self._round = (options or {}).get("round", 0 if seed is not None else self._round + 1)
        self.agents = self.possible_agents[:]
        return self._observe(), {a: {"round": self._round, "groups": (), "metrics": {}} for a in self.agents}

    def step(self, actions: Mapping[str, Any]) -> Any:
        infos = {agent: self._info(agent, actions[agent]) for agent in self.agents}
        agents, self.agents = self.agents, []
        rewards = {agent: infos[agent]["metrics"]["reward/mean"] for agent in agents}
        return self._observe(), rewards, dict.fromkeys(agents, True), dict.fromkeys(agents, False), infos

    def _observe(self) -> Any:
        return {agent: {"prompts": tuple(t.prompt for t in self.tasks)} for agent in self.possible_agents}

    def _info(self, agent: str, action: Any) -> Any:
        completions = [[c if isinstance(c, Completion) else scripted_completion(c) for c in group] for group in action]
        groups = tuple(
            tuple(Experience(task, agent, c, scripted_verdict(c.text), self._round) for c in group)
            for task, group in zip(self.tasks, completions, strict=True)
        )
        rewards = [e.verdict.reward for group in groups for e in group if e.verdict.reward is not None]
        return {
            "round": self._round,
            "groups": groups,
            "metrics": {"reward/mean": math.fsum(rewards) / max(len(rewards), 1)},
        }


def scripted_task(task_id: str) -> Task:
    return Task(id=task_id, prompt=f"{task_id}?", answer="yes")


def scripted_completion(text: str, *, version: int = 0, logprob: float = -0.5) -> Completion:
    ids = np.array([ord(character) % 128 for character in text], np.int32)
    return Completion(text, ids, np.full(ids.size, logprob), "stop", version, "scripted")


def scripted_verdict(text: str) -> Verdict:
    if text.startswith("?"):
        return Verdict.unscored("timeout")
    try:
        return Verdict.scored(float(text), correct=float(text) == 1.0)
    except ValueError:
        right = text.startswith("yes")
        return Verdict.scored(float(right), correct=right)


def play(env: Any, answers: Mapping[str, Sequence[Sequence[Any]]], *, round: int = 0, seed: int = 7) -> Any:
    """One round in which each agent gives its group of answers to each task. Returns the infos."""
    env.reset(seed=seed, options={"round": round})
    return env.step({agent: [list(group) for group in answers[agent]] for agent in env.agents})[-1]


def check_strategy(make_wrapper: MakeWrapper) -> None:
    """Raise a ConformanceError that says what a strategy broke. See each check's docstring."""
    for check in (
        _leaves_the_env_as_it_is,
        _returns_lessons_and_finite_numbers,
        _repeats_itself,
        _ignores_the_order_of_agents,
        _cannot_tell_where_peers_are,
        _learns_alone_from_itself,
        _survives_rounds_without_verdicts,
        _goes_on_from_its_state,
    ):
        check(make_wrapper)


def _leaves_the_env_as_it_is(make_wrapper: MakeWrapper) -> None:
    """Observations, rewards, endings, groups and the env's own metrics pass through unchanged."""
    bare, wrapped = _env(), make_wrapper(_env())
    for round_ in range(_ROUNDS):
        options: dict[str, Any] = {"round": round_}
        same = wrapped.reset(seed=7, options=options) == bare.reset(seed=7, options=options)
        _require(same, "reset was changed")
        there, here = bare.step(_answers(round_)), wrapped.step(_answers(round_))
        _require(here[:4] == there[:4], "observations, rewards, terminations or truncations were changed")
        for agent, info in there[4].items():
            _require(here[4][agent]["groups"] == info["groups"], f"the groups of {agent} were changed")
            kept = {key: here[4][agent]["metrics"].get(key) for key in info["metrics"]}
            _require(kept == info["metrics"], f"metrics of the env were changed for {agent}")


def _returns_lessons_and_finite_numbers(make_wrapper: MakeWrapper) -> None:
    """Lessons are about this round's tasks, say finite things, and metrics are finite floats."""
    env = make_wrapper(_env())
    for round_ in range(_ROUNDS):
        for agent, info in play(env, _answers(round_), round=round_).items():
            _require(isinstance(info["lessons"], tuple), f"lessons of {agent} must be a tuple")
            tasks = {task.id for task in env.unwrapped.tasks}
            for lesson in info["lessons"]:
                _check_lesson(agent, lesson, tasks)
            for key, value in info["metrics"].items():
                _require(isinstance(value, float), f"metric {key} of {agent} is a {type(value).__name__}, not a float")
                _require(math.isfinite(value), f"metric {key} of {agent} is {value}")


def _check_lesson(agent: str, lesson: object, tasks: set[str]) -> None:
    if not isinstance(lesson, Lesson):
        raise ConformanceError(f"{lesson!r} is no Lesson")
    _require(lesson.experience.task.id in tasks, f"{agent} learns from another round's task")
    _require(lesson.experience.verdict.reward is not None, f"{agent} learns from what was not scored")
    finite = math.isfinite(lesson.advantage) and math.isfinite(lesson.weight) and lesson.weight >= 0
    _require(finite, f"advantage {lesson.advantage}, weight {lesson.weight}: both finite, the weight not below 0")


def _repeats_itself(make_wrapper: MakeWrapper) -> None:
    """Same seed, same lessons, even if another strategy runs in between and global generators move."""
    first, second, other = make_wrapper(_env()), make_wrapper(_env()), make_wrapper(_env())
    for round_ in range(_ROUNDS):
        one = play(first, _answers(round_), round=round_)
        play(other, _answers(round_ + 10), round=round_ + 10)
        np.random.rand()  # the global generator is what must not matter
        two = play(second, _answers(round_), round=round_)
        _require(_told(one) == _told(two), "the same seed gave other lessons")


def _ignores_the_order_of_agents(make_wrapper: MakeWrapper) -> None:
    """Which agent comes first decides nothing."""
    forward, backward = make_wrapper(_env()), make_wrapper(_env(_AGENTS[::-1]))
    for round_ in range(_ROUNDS):
        one, two = (play(env, _answers(round_), round=round_) for env in (forward, backward))
        _require(_told(one) == _told(two), "the order of agents changed the lessons")


def _cannot_tell_where_peers_are(make_wrapper: MakeWrapper) -> None:
    """Peers in an env of their own, that share only the exchange, teach what peers in the same env teach."""
    together = make_wrapper(_env())
    exchange = InMemoryExchange()
    apart = {agent: make_wrapper(_env([agent]), exchange=exchange) for agent in _AGENTS}
    for round_ in range(_ROUNDS):
        one = play(together, _answers(round_), round=round_)
        for agent in (*_AGENTS[1:], _AGENTS[0]):
            two = play(apart[agent], _answers(round_), round=round_)
        _require(_told(one)[_AGENTS[0]] == _told(two)[_AGENTS[0]], "peers in another env taught something else")


def _learns_alone_from_itself(make_wrapper: MakeWrapper) -> None:
    """A single agent borrows nothing."""
    env = make_wrapper(_env(_AGENTS[:1]))
    for round_ in range(_ROUNDS):
        for agent, info in play(env, _answers(round_), round=round_).items():
            _require(all(x.experience.author == agent for x in info["lessons"]), f"{agent} borrowed from nobody")


def _survives_rounds_without_verdicts(make_wrapper: MakeWrapper) -> None:
    """A group, an agent or a round that could not be scored is no error, and no lesson."""
    env = make_wrapper(_env())
    nothing = [["?"] * _GROUP] * _PROMPTS
    for silent in (_AGENTS[:1], _AGENTS):
        answers = {**_answers(0), **dict.fromkeys(silent, nothing)}
        for agent, info in play(env, answers).items():
            own = [lesson for lesson in info["lessons"] if lesson.experience.author == agent]
            _require(agent not in silent or not own, f"{agent} learns from its own unscored group")


def _goes_on_from_its_state(make_wrapper: MakeWrapper) -> None:
    """A state that went through JSON goes on as if nothing had happened."""
    steady = make_wrapper(_env())
    for round_ in range(_ROUNDS):
        resumed = make_wrapper(_env())
        resumed.load_state_dict(json.loads(json.dumps(steady.state_dict())))
        one, two = (play(env, _answers(round_), round=round_) for env in (steady, resumed))
        _require(_told(one) == _told(two), "a strategy that was resumed from its state taught something else")


def _env(agents: Sequence[str] = _AGENTS) -> ScriptedEnv:
    return ScriptedEnv(agents, prompts=_PROMPTS, group=_GROUP)


def _answers(round_: int) -> dict[str, list[list[str]]]:
    """A seeded mixture of right, wrong and half right, so that all-fail, mixed and all-pass groups come up."""
    answers: dict[str, list[list[str]]] = {}
    for agent in _AGENTS:
        draw = generator("check_strategy", agent, round_)
        answers[agent] = [
            [_answer(agent, prompt, i, float(draw.random()), ease) for i in range(_GROUP)]
            for prompt, ease in enumerate(draw.choice([0.0, 0.5, 1.0], size=_PROMPTS))
        ]
    return answers


def _answer(agent: str, prompt: int, index: int, luck: float, ease: float) -> str:
    return f"yes, says {agent} ({prompt}.{index})" if luck < ease else f"no, says {agent} ({prompt}.{index})"


def _told(infos: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The lessons as they matter to a learner."""
    return {agent: [_matter(lesson) for lesson in info["lessons"]] for agent, info in sorted(infos.items())}


def _matter(lesson: Lesson) -> tuple[Any, ...]:
    experience = lesson.experience
    return (
        experience.author,
        experience.task.id,
        experience.completion,
        lesson.advantage,
        lesson.loss,
        lesson.correction,
        lesson.weight,
        lesson.order,
    )


_require = ConformanceError.unless
