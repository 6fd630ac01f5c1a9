"""Conformance tests for envs, wrappers and verifiers, ours and anybody's.

    check_env(make_env)        the whole contract of a round: spaces, keys, infos, refusals, seeding, closing
    check_wrapper(wrap)        the same for a wrapper around an env, and that it only adds
    seed_test(make_env)        same seed, same everything, whatever else runs in the process
    fuzz_actions(make_env)     odd and broken actions are scored or refused, and a refusal loses nothing
    check_verifier(spec, ...)  a verifier tells right from wrong, the same each time, and survives anything written

They raise `ConformanceError`, which is an AssertionError, with a sentence that says what was expected.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from pettingzoo import ParallelEnv
from pettingzoo.utils import BaseParallelWrapper

from mutual_env.conversations import without_the_over
from mutual_env.env import ReasoningEnv
from mutual_env.errors import ConformanceError, InvalidInputError, MutualEnvError
from mutual_env.registry import make
from mutual_env.testing_turns import MOST_TURNS, check_turns, ended_in, said_in
from mutual_env.types import AgentInfo, Completion, Task
from mutual_env.verifiers.testing import check_verifier

__all__ = ["check_env", "check_verifier", "check_wrapper", "fuzz_actions", "seed_test"]

Env: TypeAlias = "ParallelEnv[str, Any, Any]"
MakeEnv: TypeAlias = Callable[[], Env]


def check_env(make_env: MakeEnv, *, seed: int = 0) -> None:
    """Play one round with sampled actions and hold every part of it against the contract of `ReasoningEnv`: beside
    PettingZoo's interface an env has `tasks`, those of the round, in the order of the prompts. Where agents observe
    conversations, the round is played turn by turn to its end."""
    before = _global_generators()
    env = make_env()
    _check_identity(env)
    observations, infos = env.reset(seed=seed)
    _expect(list(env.agents) == list(env.possible_agents), "after reset every possible agent is an agent")
    _check_observations(env, observations)
    _expect(set(infos) == set(env.agents), f"reset gives infos for exactly the agents, got {sorted(infos)}")
    _check_spaces(env)
    _seed_actions(env, seed)
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    _check_refusals(env, actions)
    if "conversations" in observations[env.agents[0]]:
        check_turns(env, observations)
    else:
        _check_step(env, actions)
    _check_rounds(env, seed, observations)
    env.close()
    env.close()
    _expect(_global_generators() == before, "an env leaves the generators of `random` and `numpy.random` as they are")


def check_wrapper(wrap: Callable[[ReasoningEnv], Env], make_env: Callable[[], ReasoningEnv] | None = None) -> None:
    """The wrapped env passes `check_env` and `seed_test`, shows the stack in its name, and adds to what the inner env
    returns without changing it. The default inner env is a small one of `mutual/arithmetic-v0` with three agents."""
    inner = make_env or _small_env
    check_env(lambda: wrap(inner()))
    seed_test(lambda: wrap(inner()))
    plain, wrapped = inner(), wrap(inner())
    _expect(isinstance(wrapped, BaseParallelWrapper), "a wrapper is a pettingzoo.utils.BaseParallelWrapper")
    _expect(type(wrapped.unwrapped) is type(plain), "`unwrapped` is the innermost env")
    _expect(str(plain) in str(wrapped) and str(wrapped) != str(plain), f"str shows the stack, got {str(wrapped)!r}")
    _expect(wrapped.reset(seed=3)[0] == plain.reset(seed=3)[0], "a wrapper leaves the prompts as they are")
    expected, got = ended_in(plain, wrapped)
    for agent in plain.possible_agents:
        _expect(got[agent][:4] == expected[agent][:4], "a wrapper leaves observations, rewards and ends as they are")
        _expect(got[agent][4]["groups"] == expected[agent][4]["groups"], "a wrapper leaves the groups as they are")
        _check_lessons(agent, got[agent][4])
    plain.close()
    wrapped.close()


def seed_test(make_env: MakeEnv, *, rounds: int = 2, seed: int = 42) -> None:
    """Two envs of one seed give the same rounds, bit for bit, though they take turns and a third draws in between; and
    conversations are what they are whatever was said in the rounds before."""
    first, second, third, fresh = make_env(), make_env(), make_env(), make_env()
    before = _global_generators()
    for number in range(rounds):
        played = []
        for env in (first, second):
            observations, _ = env.reset(seed=seed) if number == 0 else env.reset()
            third.reset(seed=seed + 1 + number)
            played.append((observations, _played(env, seed + number)))
        _expect(played[0] == played[1], f"round {number} of two envs with seed {seed} is the same")
    fresh.reset(seed=seed, options={"round": rounds - 1})
    again = said_in(_played(fresh, seed + rounds - 1))
    _expect(again == said_in(played[0][1]), f"round {rounds - 1} is the same where no round was played before it")
    _expect(_global_generators() == before, "an env leaves the generators of `random` and `numpy.random` as they are")
    for env in (first, second, third, fresh):
        env.close()


def fuzz_actions(make_env: MakeEnv, *, n: int = 200, seed: int = 0) -> dict[str, int]:
    """Step n broken or odd actions. Each is either in the action space, and then scored, or refused with an
    `InvalidInputError`, and then the round is still open. Returns how many were scored and refused."""
    rng = random.Random(seed)
    env = make_env()
    observations, _ = env.reset(seed=seed)
    counts = {"scored": 0, "refused": 0}
    for number in range(n):
        _seed_actions(env, seed + number)
        actions = _mutate({a: env.action_space(a).sample() for a in env.agents}, rng)
        fits = isinstance(actions, dict) and actions.keys() == set(env.agents)
        fits = fits and all(_as_read(actions[a], observations[a]) in env.action_space(a) for a in env.agents)
        try:
            env.step(actions)
        except InvalidInputError as e:
            _expect(not fits, f"an action of the action space is not refused, got: {e}")
            _expect(list(env.agents) == list(env.possible_agents), "a refused action leaves the round open")
            counts["refused"] += 1
        else:
            _expect(fits, f"an action outside the action space is refused, got through: {actions!r:.300}")
            counts["scored"] += 1
            observations, _ = env.reset()
    env.close()
    return counts


# -- the parts of check_env -------------------------------------------------------------------------------------------


def _check_identity(env: Env) -> None:
    names = list(env.possible_agents)
    _expect(len(names) > 0 and len(set(names)) == len(names), f"possible_agents are different names, got {names}")
    _expect(all(isinstance(name, str) for name in names), f"possible_agents are strings, got {names}")
    _expect(str(env.metadata.get("name", "")) != "", "metadata['name'] is the id of the env")
    _expect(hasattr(env, "render_mode"), "an env has a render_mode")


def _check_observations(env: Env, observations: Mapping[str, Any]) -> None:
    _expect(
        set(observations) == set(env.possible_agents), f"observations are for every agent, got {sorted(observations)}"
    )
    for agent, observation in observations.items():
        _expect(
            observation in env.observation_space(agent),
            f"observation of {agent!r} lies in its space: {observation!r:.300}",
        )
    prompts = [observation["prompts"] for observation in observations.values()]
    _expect(all(p == prompts[0] for p in prompts), "every agent observes the same prompts")


def _check_spaces(env: Env) -> None:
    for agent in env.possible_agents:
        for space in (env.observation_space, env.action_space):
            _expect(space(agent) is space(agent), f"{space.__name__}({agent!r}) is the same object each time")
            sample = space(agent).sample()
            _expect(sample in space(agent), f"a sample of {space(agent)} lies in it, got {sample!r:.300}")
            twin = copy.deepcopy(space(agent))
            _expect(twin == space(agent), f"a copy of {space(agent)} equals it")
            twin.seed(7)
            space(agent).seed(7)
            _expect(twin.sample() == space(agent).sample(), f"{space(agent)} samples the same after the same seed")


def _check_refusals(env: Env, actions: dict[str, Any]) -> None:
    """Each broken action raises an error of the tree, and the round goes on as if nothing had been stepped."""
    agent = env.agents[0]
    groups = [list(group) for group in actions[agent]]
    broken = {
        "a missing agent": {a: x for a, x in actions.items() if a != agent},
        "an extra agent": {**actions, "nobody_0": actions[agent]},
        "no dict": list(actions.values()),
        "a missing group": {**actions, agent: groups[1:]},
        "an empty group": {**actions, agent: [[], *groups[1:]]},
        "one completion too many": {**actions, agent: [[*groups[0], "x"], *groups[1:]]},
        "a number for a text": {**actions, agent: [[1, *groups[0][1:]], *groups[1:]]},
        "bytes for a text": {**actions, agent: [[b"x", *groups[0][1:]], *groups[1:]]},
        "a lone surrogate": {**actions, agent: [["\ud800", *groups[0][1:]], *groups[1:]]},
        "None": {**actions, agent: None},
    }
    for what, action in broken.items():
        try:
            env.step(action)
        except InvalidInputError as e:
            _expect(len(str(e)) > 20, f"the refusal of {what} says what is wrong, got {str(e)!r}")
        else:
            raise ConformanceError(f"an action with {what} is refused with an InvalidInputError")
        _expect(list(env.agents) == list(env.possible_agents), f"a refused action with {what} leaves the round open")


def _check_step(env: Env, actions: dict[str, Any]) -> None:
    agents = list(env.agents)
    reordered = {agent: actions[agent] for agent in reversed(agents)}
    observations, rewards, terminations, truncations, infos = env.step(reordered)
    for what, result in {
        "rewards": rewards,
        "terminations": terminations,
        "truncations": truncations,
        "infos": infos,
    }.items():
        _expect(list(result) == agents, f"{what} are for every agent in the declared order, got {list(result)}")
    _check_observations(env, observations)
    _expect(all(v is True for v in terminations.values()), "one round is one episode: every agent is terminated")
    _expect(not any(truncations.values()), "nobody is truncated")
    _expect(list(env.agents) == [], "after step there is no agent left")
    for agent in agents:
        _check_info(env, agent, infos[agent], actions[agent], rewards[agent])
    try:
        env.step(actions)
    except MutualEnvError:
        return
    _expect(False, "a second step without a reset is refused")


def _check_info(
    env: Env, agent: str, info: AgentInfo, action: Sequence[Sequence[Completion | str]], reward: float
) -> None:
    tasks: Sequence[Task] = env.tasks
    _expect(
        len(info["groups"]) == len(tasks), f"infos[{agent!r}]['groups'] has a group for each of the {len(tasks)} tasks"
    )
    rewards: list[float] = []
    for task, group, written in zip(tasks, info["groups"], action, strict=True):
        texts = [item.text if isinstance(item, Completion) else item for item in written]
        for e in group:
            _expect(
                e.task == task and e.author == agent and e.round == info["round"],
                f"an experience says whose it is: {e!r:.300}",
            )
            _expect(e.completion.text in texts, "an experience holds the text that was submitted")
            _expect(e.verdict.reward is not None, "an experience of a group has a reward: what has none is dropped")
            rewards.append(e.verdict.reward or 0.0)
    mean = math.fsum(rewards) / len(rewards) if rewards else 0.0
    _expect(
        isinstance(reward, float) and math.isfinite(reward), f"rewards[{agent!r}] is a finite float, got {reward!r}"
    )
    _expect(reward == mean, f"rewards[{agent!r}] is the mean over the groups, {mean!r}, got {reward!r}")
    for name, value in info["metrics"].items():
        _expect(isinstance(value, float) and math.isfinite(value), f"metric {name!r} is a finite float, got {value!r}")


def _check_rounds(env: Env, seed: int, first: Mapping[str, Any]) -> None:
    second, _ = env.reset()
    again, _ = env.reset(seed=seed, options={"an option of somebody else's": 1})
    _expect(again == first, "reset(seed) starts the task stream of that seed over")
    jumped, _ = env.reset(options={"round": 1})
    _expect(jumped == second, "reset(options={'round': 1}) draws the second round")


def _check_lessons(agent: str, info: AgentInfo) -> None:
    _expect("lessons" in info, f"a sharing wrapper writes infos[{agent!r}]['lessons']")
    for lesson in info["lessons"]:
        _expect(
            math.isfinite(lesson.advantage) and math.isfinite(lesson.weight),
            f"a lesson's numbers are finite: {lesson!r:.300}",
        )


def _played(env: Env, seed: int) -> list[Any]:
    """What each step of a round returns, with sampled actions."""
    _seed_actions(env, seed)
    steps: list[Any] = []
    while env.agents and len(steps) < MOST_TURNS:
        steps.append(env.step({agent: env.action_space(agent).sample() for agent in env.agents}))
    return steps


# -- small parts ------------------------------------------------------------------------------------------------------


def _small_env() -> ReasoningEnv:
    return make("mutual/arithmetic-v0", agents=3, group_size=4, prompts_per_round=3, digits=1)


def _as_read(action: Any, observation: Mapping[str, Any]) -> Any:
    """The action without what stands where nothing is asked for: that is not read, whatever it is."""
    asked = observation.get("conversations")
    return action if asked is None else without_the_over([[c is None for c in group] for group in asked], action)


def _seed_actions(env: Env, seed: int) -> None:
    for i, agent in enumerate(env.possible_agents):
        env.action_space(agent).seed(seed * 1000 + i)


def _global_generators() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()  # the legacy generator is what is looked at
    return random.getstate(), name, np.asarray(keys).tobytes(), *rest


def _expect(holds: bool, sentence: str) -> None:
    ConformanceError.unless(holds, f"expected: {sentence}")


_ODD_TEXTS: tuple[Any, ...] = (
    "", " ", "\n", "\0", "a\0b", "\ud800", "x\udfff", "\U0010ffff", "\ufeff1", "١٢", "1e999", "nan", "inf", "-0", "1/0",
    "<answer></answer>", "<answer>" * 50, "\\boxed{" * 50, "####", "()" * 500, "9" * 5000, "__import__('os')",
    "a" * 100_000, None, 1, 1.5, b"bytes", ["a"], object(),
)  # fmt: skip


def _mutate(actions: dict[str, Any], rng: random.Random) -> Any:
    """The actions with one thing changed: a text, a group, the groups, an agent, or everything."""
    agent = rng.choice(sorted(actions))
    groups: Any = [list(group) for group in actions[agent]]
    p = rng.randrange(len(groups))
    kind = rng.randrange(9)
    if kind <= 3:
        groups[p][rng.randrange(len(groups[p]))] = rng.choice(_ODD_TEXTS)
    elif kind == 4:
        groups[p] = groups[p] * rng.randrange(3)
    elif kind == 5:
        groups[p] = rng.choice([None, "text", 3, {}, iter(())])
    elif kind == 6:
        groups = rng.choice([[], groups * 2, groups[:-1], {}, "text", None])
    elif kind == 7:
        return {a: x for a, x in actions.items() if a != agent}
    else:
        return rng.choice([None, [], {}, {**actions, "nobody": groups}, {**actions, 3: groups}, "text"])
    return {**actions, agent: groups}
